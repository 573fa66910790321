//! Deactivating and activating a key, and ending an overlap.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::{href, mask};
use crate::api::Api;
use crate::api::authority::AdminOf;
use crate::api::keys::key_problem;
use crate::api::path::KeyInPath;
use crate::console::display::Moment;
use crate::console::form::VerifiedForm;
use crate::console::page::{Area, Frame, WorkspaceRef, html, redirect_done};
use crate::console::session::ConsoleSession;
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
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(key_problem)?;
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
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    let context = at.principal.change_context(&api.clock);
    let changed =
        api.store.deactivate_key(at.workspace.id, id, Precondition::None, context).await.map_err(key_problem)?;
    redirect_done(&href(&at.workspace, &changed.value), "deactivated", changed.revision)
}

pub(in crate::console) async fn activate(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    let context = at.principal.change_context(&api.clock);
    let changed =
        api.store.activate_key(at.workspace.id, id, Precondition::None, context).await.map_err(key_problem)?;
    redirect_done(&href(&at.workspace, &changed.value), "activated", changed.revision)
}

pub(in crate::console) async fn end_overlap(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    let context = at.principal.change_context(&api.clock);
    let changed = api.store.end_overlap(at.workspace.id, id, Precondition::None, context).await.map_err(key_problem)?;
    redirect_done(&href(&at.workspace, &changed.value), "overlap-ended", changed.revision)
}
