//! Deleting a key: permanent, so the name has to be typed.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::{href, mask};
use crate::api::Api;
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::keys::of_key;
use crate::api::path::KeyInPath;
use crate::console::form::Posted;
use crate::console::page::{Area, Frame, Place, done, html};
use crate::console::problems::Errors;
use crate::console::session::Visit;
use crate::console::words::Moment;
use crate::problem::Problem;
use crate::store::{Key, Precondition};

#[derive(Template)]
#[template(path = "key_delete.html")]
struct Page {
    frame: Frame,
    place: Place,
    errors: Errors,
    name: String,
    mask: String,
    href: String,
    is_active: bool,
    last_used: Option<Moment>,
    typed: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    html(StatusCode::OK, &page(&api, &visit, &at, &key, (Errors::none(), "")))
}

pub(in crate::console) async fn delete(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    form: Posted,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    let typed = form.text("confirm");
    // Spaces around a name aren't visible, so they need not be typed.
    if typed.trim() != key.name.trim() {
        let errors = Errors::one("confirm", "This is not the key's name. Type it as it stands above.");
        return html(StatusCode::UNPROCESSABLE_ENTITY, &page(&api, &visit, &at, &key, (errors, typed)));
    }
    let acting = at.principal.acting(&api.clock);
    let deleted = api.store.delete_key(at.workspace.id, id, Precondition::None, acting).await.map_err(of_key)?;
    done(&format!("/console/workspaces/{}/keys", at.workspace.slug), "deleted", deleted.revision)
}

fn page(api: &Api, visit: &Visit, at: &InWorkspace, key: &Key, (errors, typed): (Errors, &str)) -> Page {
    Page {
        frame: Frame::within(visit, &at.workspace, Area::Keys),
        place: Place::of(&at.workspace),
        errors,
        name: key.name.clone(),
        mask: mask(key),
        href: href(&at.workspace, key),
        is_active: key.active,
        last_used: Moment::maybe(key.used.last_at, api.clock.now()),
        typed: typed.to_owned(),
    }
}
