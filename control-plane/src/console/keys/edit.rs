//! Editing a key: everything except its expiration, which is fixed, and its secret, which is rotated.

use std::net::IpAddr;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::Revision;
use serde_json::Value;

use super::fields::{Common, merge_patch};
use super::view::href;
use crate::api::Api;
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::keys::{of_key, update};
use crate::api::path::KeyInPath;
use crate::console::form::{Posted, fields};
use crate::console::page::{Area, Frame, Place, done, html, see_other};
use crate::console::problems::Errors;
use crate::console::session::Visit;
use crate::console::words::Moment;
use crate::problem::Problem;
use crate::store::{Key, Precondition};

#[derive(Template)]
#[template(path = "key_edit.html")]
struct Page {
    frame: Frame,
    place: Place,
    errors: Errors,
    name: String,
    href: String,
    common: Common,
    expires: Option<Moment>,
    address: Option<IpAddr>,
    /// The revision that the form was filled from, so that saving can't silently undo another change.
    revision: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    let (common, revision) = (Common::of(&key, &api.config), key.revision.to_string());
    html(StatusCode::OK, &page(&api, &visit, &at, &key, (common, revision, Errors::none())))
}

pub(in crate::console) async fn save(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    form: Posted,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    let mut typed = Common::typed(&form, &api.config);
    let revision = form.text("revision").to_owned();
    if form.has("check") {
        typed.allowlist = typed.allowlist.checked();
        return html(StatusCode::OK, &page(&api, &visit, &at, &key, (typed, revision, Errors::none())));
    }
    let read: Option<u64> = revision.parse().ok();
    let precondition = Precondition::OneOf(read.map(Revision).into_iter().collect());
    let saved = match typed.given() {
        Err(errors) => Err(errors),
        Ok(mut given) => {
            if let Some(Value::Object(metadata)) = given.get("metadata") {
                let patch = merge_patch(&key.metadata, metadata);
                given.insert("metadata".to_owned(), Value::Object(patch));
            }
            match update::replace(&api, &at, id, precondition, fields(given)).await {
                Ok(saved) => Ok(saved),
                Err(problem) => Err(Errors::of(problem)?),
            }
        }
    };
    let here = href(&at.workspace, &key);
    match saved {
        Ok(saved) if saved.revision == key.revision => see_other(&format!("{here}?done=unchanged")),
        Ok(saved) => done(&here, "saved", saved.revision),
        Err(errors) => {
            html(StatusCode::UNPROCESSABLE_ENTITY, &page(&api, &visit, &at, &key, (typed, revision, errors)))
        }
    }
}

fn page(
    api: &Api,
    visit: &Visit,
    at: &InWorkspace,
    key: &Key,
    (common, revision, errors): (Common, String, Errors),
) -> Page {
    Page {
        frame: Frame::within(visit, &at.workspace, Area::Keys),
        place: Place::of(&at.workspace),
        errors,
        name: key.name.clone(),
        href: href(&at.workspace, key),
        common,
        expires: Moment::maybe(key.expires_at, api.clock.now()),
        address: visit.principal.address(),
        revision,
    }
}
