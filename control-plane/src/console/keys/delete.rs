//! Deleting a key: permanent, so the name has to be typed.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::{href, mask};
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::console::display::Moment;
use crate::console::form::VerifiedForm;
use crate::console::page::{Area, Frame, WorkspaceRef, html, redirect_done};
use crate::console::problems::FormErrors;
use crate::console::session::ConsoleSession;
use crate::operations::permissions::may;
use crate::operations::principal::InWorkspace;
use crate::store::{Key, Precondition};
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "key_delete.html")]
struct Page {
    frame: Frame,
    workspace: WorkspaceRef,
    errors: FormErrors,
    name: String,
    mask: String,
    href: String,
    is_active: bool,
    last_used: Option<Moment>,
    confirmation: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    html(StatusCode::OK, &page(&api, &session, &at, &key, (FormErrors::none(), "")))
}

pub(in crate::console) async fn delete(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    let confirmation = form.text("confirm");
    // Spaces around a name aren't visible, so they need not be typed.
    if confirmation.trim() != key.name.trim() {
        let errors = FormErrors::single("confirm", "This is not the key's name. Type it exactly as shown above.");
        return html(StatusCode::UNPROCESSABLE_ENTITY, &page(&api, &session, &at, &key, (errors, confirmation)));
    }
    let deleted = api.operations().delete_key(&at, id, Precondition::None).await?;
    redirect_done(&format!("/console/workspaces/{}/keys", at.workspace.slug), "deleted", deleted.revision)
}

fn page(
    api: &Api,
    session: &ConsoleSession,
    at: &InWorkspace,
    key: &Key,
    (errors, confirmation): (FormErrors, &str),
) -> Page {
    Page {
        frame: Frame::within(session, &at.workspace, Area::Keys),
        workspace: WorkspaceRef::of(&at.workspace),
        errors,
        name: key.name.clone(),
        mask: mask(key),
        href: href(&at.workspace, key),
        is_active: key.active,
        last_used: Moment::optional(key.used.last_at, api.clock.now()),
        confirmation: confirmation.to_owned(),
    }
}
