//! POST …/keys/{key}/activate, /deactivate, /end-overlap: idempotent changes of a key's state.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::UnixSeconds;

use super::{KeyBody, of_key};
use crate::api::Api;
use crate::api::answer::changed;
use crate::api::authority::AdminOf;
use crate::api::fields::Fields;
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::api::requests::Nothing;
use crate::problem::Problem;
use crate::store::{Changed, Key, StoreError};

/// Lets a key be used. May be repeated.
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
    let acting = at.principal.acting(&api.clock);
    let now = acting.at;
    told(api.store.activate_key(at.workspace.id, id, precondition, acting).await, now)
}

/// Stops a key until it is activated. May be repeated.
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
    let acting = at.principal.acting(&api.clock);
    let now = acting.at;
    told(api.store.deactivate_key(at.workspace.id, id, precondition, acting).await, now)
}

/// Ends the previous secret before its time. May be repeated.
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
    let acting = at.principal.acting(&api.clock);
    let now = acting.at;
    told(api.store.end_overlap(at.workspace.id, id, precondition, acting).await, now)
}

fn told(result: Result<Changed<Key>, StoreError>, now: UnixSeconds) -> Result<Response, Problem> {
    let Changed { value, revision } = result.map_err(of_key)?;
    changed(StatusCode::OK, &KeyBody::new(value, now), revision)
}
