//! Rotating a key: how long the old secret keeps working, and the one page that shows the new one.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::{href, mask};
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::console::display::Moment;
use crate::console::enforcement::EnforcementStatus;
use crate::console::form::{VerifiedForm, fields};
use crate::console::page::{Area, Frame, WorkspaceRef, html, html_with_secret};
use crate::console::problems::FormErrors;
use crate::console::secret::{SecretPage, ShellCommand, already_created};
use crate::console::session::ConsoleSession;
use crate::operations::keys::rotate::RotateKey;
use crate::operations::permissions::may;
use crate::operations::principal::InWorkspace;
use crate::operations::request::RequestBody as _;
use crate::operations::{OperationError, WithSecret};
use crate::store::{Key, Precondition, StoreError};
use crate::web::problem::Problem;

/// How long the old secret may keep working: the name in REST, and the label.
pub(super) const OVERLAPS: [(&str, &str); 6] = [
    ("", "Stop the old secret at once"),
    ("30m", "30 minutes"),
    ("1h", "1 hour"),
    ("12h", "12 hours"),
    ("1d", "1 day"),
    ("7d", "7 days"),
];

/// The form of a rotation, on its own page or in a dialog on the key's page.
pub(super) struct RotateForm {
    pub(super) href: String,
    pub(super) overlap: String,
    pub(super) overlaps: [(&'static str, &'static str); 6],
    pub(super) nonce: String,
    /// Whether an earlier overlap is still running, which a rotation ends.
    pub(super) ends_previous: bool,
    pub(super) is_inactive: bool,
}

#[derive(Template)]
#[template(path = "key_rotate.html")]
struct Page {
    frame: Frame,
    workspace: WorkspaceRef,
    errors: FormErrors,
    name: String,
    mask: String,
    last_used: Option<Moment>,
    rotate_form: RotateForm,
}

impl RotateForm {
    pub(super) fn of(api: &Api, href: &str, key: &Key) -> Result<Self, Problem> {
        Ok(Self {
            href: href.to_owned(),
            overlap: String::new(),
            overlaps: OVERLAPS,
            nonce: api.entropy.text()?.expose().to_owned(),
            ends_previous: key.previous_secret_expires_at(api.clock.now()).is_some(),
            is_inactive: !key.active,
        })
    }
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    html(StatusCode::OK, &page(&api, &session, &at, &key, FormErrors::none())?)
}

pub(in crate::console) async fn rotate(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let once_key = form.once_key()?;
    let at = at.once(once_key);
    let (operations, input) = (api.operations(), fields(form.fields(&["overlap"])));
    let rotated = match RotateKey::parse(input, &operations.context_in(&at)) {
        Ok(request) => operations.rotate_key(&at, id, Precondition::None, request).await,
        Err(error) => Err(error),
    };
    let error = match rotated {
        Ok(made) => return secret_page(&api, &session, &at, made, form.has("overlap")).await,
        Err(error) => error,
    };
    let key = api.operations().key(&at, id).await?;
    let status = match error {
        OperationError::Store(StoreError::ExpiredKey) => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let errors = match FormErrors::of(error) {
        Ok(errors) => errors,
        Err(error) => {
            let (frame, here) = (Frame::within(&session, &at.workspace, Area::Keys), href(&at.workspace, &key));
            return already_created(&api, error, (once_key, frame, &here), "Open the key").await;
        }
    };
    let mut page = page(&api, &session, &at, &key, errors)?;
    form.text("overlap").clone_into(&mut page.rotate_form.overlap);
    html(status, &page)
}

async fn secret_page(
    api: &Api,
    session: &ConsoleSession,
    at: &InWorkspace,
    WithSecret { changed, secret }: WithSecret<Key>,
    has_overlap: bool,
) -> Result<Response, Problem> {
    let mut steps = vec![
        "Copy the new secret into your vault, as a new version.",
        "Update the system that uses the key, and reload it.",
        "Check on the key's page that the new secret is used.",
    ];
    steps.extend(has_overlap.then_some("End the overlap, so that the old secret stops working."));
    steps.push("Remove the old secret from the vault.");
    let page = SecretPage {
        frame: Frame::within(session, &at.workspace, Area::Keys),
        title: "The key's new secret".to_owned(),
        name: &changed.value.name,
        secret: secret.expose(),
        command: Some(ShellCommand::with_key(api, &secret)),
        steps,
        enforcement: Some(EnforcementStatus::after_change(api, changed.revision).await),
        continue_href: href(&at.workspace, &changed.value),
        continue_label: "I have copied it: open the key",
    };
    html_with_secret(StatusCode::OK, &page)
}

fn page(api: &Api, session: &ConsoleSession, at: &InWorkspace, key: &Key, errors: FormErrors) -> Result<Page, Problem> {
    Ok(Page {
        frame: Frame::within(session, &at.workspace, Area::Keys),
        workspace: WorkspaceRef::of(&at.workspace),
        errors,
        name: key.name.clone(),
        mask: mask(key),
        last_used: Moment::optional(key.used.last_at, api.clock.now()),
        rotate_form: RotateForm::of(api, &href(&at.workspace, key), key)?,
    })
}
