//! The page that shows a secret once, as the direct response to its form.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::enforcement::EnforcementStatus;
use super::page::{Frame, html};
use crate::api::Api;
use crate::base::secret::Secret;
use crate::operations::OperationError;
use crate::store::{OnceKey, StoreError};
use crate::web::problem::Problem;

/// The page with a new secret.
#[derive(Template)]
#[template(path = "secret.html")]
pub(super) struct SecretPage<'a> {
    pub(super) frame: Frame,
    /// Of the page.
    pub(super) title: String,
    /// The name of what the secret belongs to.
    pub(super) name: &'a str,
    pub(super) secret: &'a str,
    /// A shell command that uses it.
    pub(super) command: Option<ShellCommand>,
    /// What to do now, in order.
    pub(super) steps: Vec<&'static str>,
    pub(super) enforcement: Option<EnforcementStatus>,
    /// The page to continue with.
    pub(super) continue_href: String,
    pub(super) continue_label: &'static str,
}

/// A shell command to paste.
pub(super) struct ShellCommand {
    pub(super) label: &'static str,
    pub(super) text: String,
    pub(super) hint: Option<&'static str>,
}

/// The response to a form that was submitted before.
#[derive(Template)]
#[template(path = "already_created.html")]
struct AlreadyCreatedPage {
    frame: Frame,
    continue_href: String,
    continue_label: &'static str,
}

impl ShellCommand {
    /// Tries a key at the gateway.
    pub(super) fn with_key(api: &Api, secret: &Secret) -> Self {
        let (url, hint) = match &api.config.gateway_url {
            Some(url) => (url.as_str(), None),
            None => (
                "https://api.example.com/",
                Some("Replace the address with your gateway's. Set gateway_url in latchkey.toml to have it filled in."),
            ),
        };
        let text = format!("curl -i {} -H 'x-api-key: {}'", shell_quote(url), secret.expose());
        Self { label: "Try it", text, hint }
    }

    /// Tries an admin token at the control plane.
    pub(super) fn with_admin_token(api: &Api, secret: &Secret) -> Self {
        let url = shell_quote(&format!("{}/v1/workspaces", api.public_url));
        let text = format!("curl {url} -H 'authorization: Bearer {}'", secret.expose());
        Self { label: "Try it", text, hint: None }
    }
}

/// A text as one word for a shell, quoted if necessary.
fn shell_quote(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:.-_[]".contains(&byte);
    if text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// The response when a form that shows a secret is submitted again; any other error is returned.
pub(super) async fn already_created(
    api: &Api,
    error: OperationError,
    (once_key, frame, list): (OnceKey, Frame, &str),
    continue_label: &'static str,
) -> Result<Response, Problem> {
    if !matches!(error, OperationError::Store(StoreError::AlreadyMade)) {
        return Err(error.into());
    }
    let created = api.store.once_result(once_key, api.clock.now()).await?;
    let continue_href = match created.as_ref().and_then(|created| created.ids.first()) {
        Some(id) if id.starts_with("key_") && !list.contains(id) => format!("{list}/{id}"),
        Some(_) | None => list.to_owned(),
    };
    html(StatusCode::CONFLICT, &AlreadyCreatedPage { frame, continue_href, continue_label })
}
