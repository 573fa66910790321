//! Deactivating and activating a key, and ending an overlap.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::{href, mask};
use crate::api::Api;
use crate::api::authority::AdminOf;
use crate::api::keys::of_key;
use crate::api::path::KeyInPath;
use crate::console::form::Posted;
use crate::console::page::{Area, Frame, Place, done, html};
use crate::console::session::Visit;
use crate::console::words::Moment;
use crate::problem::Problem;
use crate::store::Precondition;

#[derive(Template)]
#[template(path = "key_deactivate.html")]
struct Page {
    frame: Frame,
    place: Place,
    name: String,
    mask: String,
    href: String,
    last_used: Option<Moment>,
}

pub(in crate::console) async fn ask_deactivate(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    let page = Page {
        frame: Frame::within(&visit, &at.workspace, Area::Keys),
        place: Place::of(&at.workspace),
        name: key.name.clone(),
        mask: mask(&key),
        href: href(&at.workspace, &key),
        last_used: Moment::maybe(key.used.last_at, api.clock.now()),
    };
    html(StatusCode::OK, &page)
}

pub(in crate::console) async fn deactivate(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    _: Posted,
) -> Result<Response, Problem> {
    let acting = at.principal.acting(&api.clock);
    let changed = api.store.deactivate_key(at.workspace.id, id, Precondition::None, acting).await.map_err(of_key)?;
    done(&href(&at.workspace, &changed.value), "deactivated", changed.revision)
}

pub(in crate::console) async fn activate(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    _: Posted,
) -> Result<Response, Problem> {
    let acting = at.principal.acting(&api.clock);
    let changed = api.store.activate_key(at.workspace.id, id, Precondition::None, acting).await.map_err(of_key)?;
    done(&href(&at.workspace, &changed.value), "activated", changed.revision)
}

pub(in crate::console) async fn end_overlap(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    _: Posted,
) -> Result<Response, Problem> {
    let acting = at.principal.acting(&api.clock);
    let changed = api.store.end_overlap(at.workspace.id, id, Precondition::None, acting).await.map_err(of_key)?;
    done(&href(&at.workspace, &changed.value), "overlap-ended", changed.revision)
}
