//! POST …/keys/{key}/activate, /deactivate, /end-overlap: idempotent changes of a key's state.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::UnixSeconds;

use super::{KeyBody, key_problem};
use crate::api::Api;
use crate::api::authority::AdminOf;
use crate::api::fields::Fields;
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::api::requests::Nothing;
use crate::api::response::changed_resource;
use crate::store::{AtRevision, Key, StoreError};
use crate::web::problem::Problem;

/// Activates a key. Idempotent.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/{key}/activate",
    operation_id = "activate_key",
    request_body = Option<Nothing>,
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn activate(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    fields.finish(|| Some(()))?;
    let context = at.principal.change_context(&api.clock);
    let now = context.at;
    respond(api.store.activate_key(at.workspace.id, id, precondition, context).await, now)
}

/// Deactivates a key until it is activated again. Idempotent.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/{key}/deactivate",
    operation_id = "deactivate_key",
    request_body = Option<Nothing>,
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn deactivate(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    fields.finish(|| Some(()))?;
    let context = at.principal.change_context(&api.clock);
    let now = context.at;
    respond(api.store.deactivate_key(at.workspace.id, id, precondition, context).await, now)
}

/// Ends the overlap: the previous secret stops working. Idempotent.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/{key}/end-overlap",
    operation_id = "end_overlap",
    request_body = Option<Nothing>,
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn end_overlap(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    fields.finish(|| Some(()))?;
    let context = at.principal.change_context(&api.clock);
    let now = context.at;
    respond(api.store.end_overlap(at.workspace.id, id, precondition, context).await, now)
}

fn respond(result: Result<AtRevision<Key>, StoreError>, now: UnixSeconds) -> Result<Response, Problem> {
    let AtRevision { value, revision } = result.map_err(key_problem)?;
    changed_resource(StatusCode::OK, &KeyBody::new(value, now), revision)
}
