//! The page that shows a secret once, as the direct answer to its form.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::enforcement::Told;
use super::page::{Frame, html};
use crate::api::Api;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::store::Once;

/// What is shown with a secret.
#[derive(Template)]
#[template(path = "secret.html")]
pub(super) struct Shown<'a> {
    pub(super) frame: Frame,
    /// Of the page.
    pub(super) title: String,
    /// The name of what the secret belongs to.
    pub(super) name: &'a str,
    pub(super) secret: &'a str,
    /// A shell line that uses it.
    pub(super) line: Option<Line>,
    /// What to do now, in order.
    pub(super) steps: Vec<&'static str>,
    pub(super) enforcement: Option<Told>,
    /// The page to continue with.
    pub(super) on: String,
    pub(super) on_label: &'static str,
}

/// A shell line to paste.
pub(super) struct Line {
    pub(super) label: &'static str,
    pub(super) text: String,
    pub(super) hint: Option<&'static str>,
}

/// The answer to a form that was sent before.
#[derive(Template)]
#[template(path = "made_before.html")]
struct MadeBefore {
    frame: Frame,
    on: String,
    on_label: &'static str,
}

impl Line {
    /// Tries a key at the gateway.
    pub(super) fn of_key(api: &Api, secret: &Secret) -> Self {
        let (url, hint) = match &api.config.gateway_url {
            Some(url) => (url.as_str(), None),
            None => (
                "https://api.example.com/",
                Some("Put your gateway's address in; with gateway_url in latchkey.toml it stands here by itself."),
            ),
        };
        let text = format!("curl -i {} -H 'x-api-key: {}'", quoted(url), secret.expose());
        Self { label: "Try it", text, hint }
    }

    /// Tries an admin token at the control plane.
    pub(super) fn of_admin_token(api: &Api, secret: &Secret) -> Self {
        let url = quoted(&format!("{}/v1/workspaces", api.public_url));
        let text = format!("curl {url} -H 'authorization: Bearer {}'", secret.expose());
        Self { label: "Try it", text, hint: None }
    }
}

/// A text quoted as one word for a shell.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:.-_[]".contains(&byte);
    if text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// The answer when a form that shows a secret is sent again; any other refusal is returned.
pub(super) async fn made_before(
    api: &Api,
    problem: Problem,
    (once, frame, list): (Once, Frame, &str),
    on_label: &'static str,
) -> Result<Response, Problem> {
    if problem.code() != Problem::made_before().code() {
        return Err(problem);
    }
    let made = api.store.made_once(once, api.clock.now()).await?;
    let on = match made.as_ref().and_then(|made| made.ids.first()) {
        Some(id) if id.starts_with("key_") && !list.contains(id) => format!("{list}/{id}"),
        Some(_) | None => list.to_owned(),
    };
    html(StatusCode::CONFLICT, &MadeBefore { frame, on, on_label })
}
