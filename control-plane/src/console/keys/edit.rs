//! Editing a key: everything except its expiration, which is fixed, and its secret, which is rotated.

use std::net::IpAddr;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::Revision;
use serde_json::Value;

use super::fields::{KeyFields, merge_patch};
use super::view::href;
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::console::display::Moment;
use crate::console::form::{VerifiedForm, fields};
use crate::console::page::{Area, Frame, WorkspaceRef, html, redirect_done, see_other};
use crate::console::problems::FormErrors;
use crate::console::session::ConsoleSession;
use crate::operations::keys::update::UpdateKey;
use crate::operations::permissions::may;
use crate::operations::principal::InWorkspace;
use crate::operations::request::RequestBody as _;
use crate::store::{Key, Precondition};
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "key_edit.html")]
struct Page {
    frame: Frame,
    workspace: WorkspaceRef,
    errors: FormErrors,
    name: String,
    href: String,
    key_fields: KeyFields,
    expires: Option<Moment>,
    address: Option<IpAddr>,
    /// The revision that the form was filled from, so that saving can't silently undo another change.
    revision: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    let (key_fields, revision) = (KeyFields::of(&key, &api.config), key.revision.to_string());
    html(StatusCode::OK, &page(&api, &session, &at, &key, (key_fields, revision, FormErrors::none())))
}

pub(in crate::console) async fn save(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    let mut key_fields = KeyFields::from_form(&form, &api.config);
    let revision = form.text("revision").to_owned();
    if form.has("check") {
        key_fields.allowlist = key_fields.allowlist.validated();
        return html(StatusCode::OK, &page(&api, &session, &at, &key, (key_fields, revision, FormErrors::none())));
    }
    let read_at: Option<u64> = revision.parse().ok();
    let precondition = Precondition::OneOf(read_at.map(Revision).into_iter().collect());
    let saved = match key_fields.to_json() {
        Err(errors) => Err(errors),
        Ok(mut input) => {
            if let Some(Value::Object(metadata)) = input.get("metadata") {
                let patch = merge_patch(&key.metadata, metadata);
                input.insert("metadata".to_owned(), Value::Object(patch));
            }
            let operations = api.operations();
            let saved = match UpdateKey::parse(fields(input), &operations.context_in(&at)) {
                Ok(request) => operations.update_key(&at, id, precondition, request).await,
                Err(error) => Err(error),
            };
            match saved {
                Ok(saved) => Ok(saved),
                Err(error) => Err(FormErrors::of(error)?),
            }
        }
    };
    let here = href(&at.workspace, &key);
    match saved {
        Ok(saved) if saved.revision == key.revision => see_other(&format!("{here}?done=unchanged")),
        Ok(saved) => redirect_done(&here, "saved", saved.revision),
        Err(errors) => {
            html(StatusCode::UNPROCESSABLE_ENTITY, &page(&api, &session, &at, &key, (key_fields, revision, errors)))
        }
    }
}

fn page(
    api: &Api,
    session: &ConsoleSession,
    at: &InWorkspace,
    key: &Key,
    (key_fields, revision, errors): (KeyFields, String, FormErrors),
) -> Page {
    Page {
        frame: Frame::within(session, &at.workspace, Area::Keys),
        workspace: WorkspaceRef::of(&at.workspace),
        errors,
        name: key.name.clone(),
        href: href(&at.workspace, key),
        key_fields,
        expires: Moment::optional(key.expires_at, api.clock.now()),
        address: session.principal.address(),
        revision,
    }
}
