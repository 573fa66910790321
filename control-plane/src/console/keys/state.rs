//! Deactivating and activating a key, and ending an overlap.

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
use crate::console::session::ConsoleSession;
use crate::operations::keys::state::KeyAction;
use crate::operations::permissions::may;
use crate::store::Precondition;
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "key_deactivate.html")]
struct Page {
    frame: Frame,
    workspace: WorkspaceRef,
    name: String,
    mask: String,
    href: String,
    last_used: Option<Moment>,
}

pub(in crate::console) async fn confirm_deactivate(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::RevokeKeys>,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    let page = Page {
        frame: Frame::within(&session, &at.workspace, Area::Keys),
        workspace: WorkspaceRef::of(&at.workspace),
        name: key.name.clone(),
        mask: mask(&key),
        href: href(&at.workspace, &key),
        last_used: Moment::optional(key.used.last_at, api.clock.now()),
    };
    html(StatusCode::OK, &page)
}

pub(in crate::console) async fn deactivate(
    api: State<Api>,
    at: Within<may::RevokeKeys>,
    key: KeyInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    change(KeyAction::Deactivate, "deactivated", api, at, key).await
}

pub(in crate::console) async fn activate(
    api: State<Api>,
    at: Within<may::ManageKeys>,
    key: KeyInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    change(KeyAction::Activate, "activated", api, at, key).await
}

pub(in crate::console) async fn end_overlap(
    api: State<Api>,
    at: Within<may::RevokeKeys>,
    key: KeyInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    change(KeyAction::EndOverlap, "overlap-ended", api, at, key).await
}

/// Changes the key, and redirects to its page, which confirms `completed`.
async fn change<P>(
    action: KeyAction,
    completed: &str,
    State(api): State<Api>,
    Within(at, ..): Within<P>,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let changed = api.operations().change_key(&at, id, Precondition::None, action).await?;
    redirect_done(&href(&at.workspace, &changed.value), completed, changed.revision)
}
