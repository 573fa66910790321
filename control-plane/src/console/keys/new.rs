//! `New API Key`: the form, and the one page that shows the secret.

use std::net::IpAddr;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};

use super::fields::KeyFields;
use crate::api::Api;
use crate::api::authority::Within;
use crate::console::enforcement::EnforcementStatus;
use crate::console::form::{VerifiedForm, fields, instant_of};
use crate::console::page::{Area, Frame, WorkspaceRef, html, html_with_secret};
use crate::console::problems::FormErrors;
use crate::console::secret::{SecretPage, ShellCommand, already_created};
use crate::console::session::ConsoleSession;
use crate::operations::WithSecret;
use crate::operations::keys::create::CreateKey;
use crate::operations::permissions::may;
use crate::operations::principal::InWorkspace;
use crate::operations::request::RequestBody as _;
use crate::store::Key;
use crate::web::problem::Problem;

/// How long a key may be valid: the name in REST, and the label.
pub(in crate::console) const LIFETIMES: [(&str, &str); 8] = [
    ("1h", "1 hour"),
    ("1d", "1 day"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
    ("180d", "180 days"),
    ("360d", "360 days"),
    ("none", "No expiration"),
];

/// Long enough for a quarter, short enough that somebody reviews the key regularly.
const DEFAULT_LIFETIME: &str = "90d";

/// The choice of a custom expiration.
const CUSTOM_EXPIRATION: &str = "at";

#[derive(Template)]
#[template(path = "key_new.html")]
struct Page {
    frame: Frame,
    workspace: WorkspaceRef,
    errors: FormErrors,
    key_fields: KeyFields,
    lifetime: String,
    expires_at: String,
    lifetimes: [(&'static str, &'static str); 8],
    environments: Vec<String>,
    environment: String,
    address: Option<IpAddr>,
    nonce: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ManageKeys>,
) -> Result<Response, Problem> {
    let page = Page {
        key_fields: KeyFields::empty(&api.config),
        lifetime: DEFAULT_LIFETIME.to_owned(),
        expires_at: String::new(),
        environment: api.config.first_environment().to_string(),
        ..page(&api, &session, &at, FormErrors::none())?
    };
    html(StatusCode::OK, &page)
}

pub(in crate::console) async fn create(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ManageKeys>,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let key_fields = KeyFields::from_form(&form, &api.config);
    if form.has("check") {
        let key_fields = KeyFields { allowlist: key_fields.allowlist.validated(), ..key_fields };
        return redisplay(&api, &session, &at, (key_fields, &form, FormErrors::none()), StatusCode::OK);
    }
    let input = match key_fields.to_json() {
        Ok(input) => input,
        Err(errors) => {
            return redisplay(&api, &session, &at, (key_fields, &form, errors), StatusCode::UNPROCESSABLE_ENTITY);
        }
    };
    let once_key = form.once_key()?;
    let at = at.once(once_key);
    let (operations, input) = (api.operations(), fields(with_expiration(input, &form)));
    let created = match CreateKey::parse(input, &operations.context_in(&at)) {
        Ok(request) => operations.create_key(&at, request).await,
        Err(error) => Err(error),
    };
    match created.map_err(FormErrors::of) {
        Ok(made) => secret_page(&api, &session, &at, made).await,
        Err(Ok(errors)) => {
            redisplay(&api, &session, &at, (key_fields, &form, errors), StatusCode::UNPROCESSABLE_ENTITY)
        }
        Err(Err(error)) => {
            let frame = Frame::within(&session, &at.workspace, Area::Keys);
            let list = format!("/console/workspaces/{}/keys", at.workspace.slug);
            already_created(&api, error, (once_key, frame, &list), "Open the key").await
        }
    }
}

/// The page with the secret.
async fn secret_page(
    api: &Api,
    session: &ConsoleSession,
    at: &InWorkspace,
    made: WithSecret<Key>,
) -> Result<Response, Problem> {
    let WithSecret { changed, secret } = made;
    let page = SecretPage {
        frame: Frame::within(session, &at.workspace, Area::Keys),
        title: "Your new API key".to_owned(),
        name: &changed.value.name,
        secret: secret.expose(),
        command: Some(ShellCommand::with_key(api, &secret)),
        steps: Vec::new(),
        enforcement: Some(EnforcementStatus::after_change(api, changed.revision).await),
        continue_href: super::view::href(&at.workspace, &changed.value),
        continue_label: "I have copied it: open the key",
    };
    html_with_secret(StatusCode::CREATED, &page)
}

/// The form again, with the submitted values.
fn redisplay(
    api: &Api,
    session: &ConsoleSession,
    at: &InWorkspace,
    (key_fields, form, errors): (KeyFields, &VerifiedForm, FormErrors),
    status: StatusCode,
) -> Result<Response, Problem> {
    let page = Page {
        key_fields,
        lifetime: form.text("expires_in").to_owned(),
        expires_at: form.text("expires_at").to_owned(),
        environment: form.text("environment").to_owned(),
        ..page(api, session, at, errors)?
    };
    html(status, &page)
}

fn page(api: &Api, session: &ConsoleSession, at: &InWorkspace, errors: FormErrors) -> Result<Page, Problem> {
    Ok(Page {
        frame: Frame::within(session, &at.workspace, Area::Keys),
        workspace: WorkspaceRef::of(&at.workspace),
        errors,
        key_fields: KeyFields::empty(&api.config),
        lifetime: String::new(),
        expires_at: String::new(),
        lifetimes: LIFETIMES,
        environments: api.config.environments.iter().map(ToString::to_string).collect(),
        environment: String::new(),
        address: session.principal.address(),
        nonce: api.entropy.text()?.expose().to_owned(),
    })
}

/// Adds the chosen environment and expiration. A custom one is a day and a time, UTC, as browsers send them.
pub(in crate::console) fn with_expiration(mut input: Map<String, Value>, form: &VerifiedForm) -> Map<String, Value> {
    match form.text("expires_in") {
        "" => {}
        CUSTOM_EXPIRATION => {
            input.insert("expires_at".to_owned(), Value::from(instant_of(form.text("expires_at"))));
        }
        lifetime => {
            input.insert("expires_in".to_owned(), Value::from(lifetime));
        }
    }
    for name in ["environment"] {
        if form.has(name) {
            input.insert(name.to_owned(), Value::from(form.text(name)));
        }
    }
    input
}
