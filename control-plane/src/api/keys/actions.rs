//! POST …/keys/{key}/activate, /deactivate, /end-overlap: idempotent changes of a key's state.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::KeyBody;
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::api::response::changed_resource;
use crate::operations::fields::Fields;
use crate::operations::keys::state::KeyAction;
use crate::operations::permissions::may;
use crate::operations::request::{Nothing, RequestBody as _};
use crate::web::problem::Problem;

/// Activates a key. Idempotent.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/{key}/activate",
    operation_id = "activate_key",
    params(IfMatch),
    request_body = Option<Nothing>,
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn activate(
    api: State<Api>,
    at: Within<may::ManageKeys>,
    key: KeyInPath,
    precondition: IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    change(KeyAction::Activate, api, at, key, precondition, fields).await
}

/// Deactivates a key until it is activated again. Idempotent.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/{key}/deactivate",
    operation_id = "deactivate_key",
    params(IfMatch),
    request_body = Option<Nothing>,
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn deactivate(
    api: State<Api>,
    at: Within<may::RevokeKeys>,
    key: KeyInPath,
    precondition: IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    change(KeyAction::Deactivate, api, at, key, precondition, fields).await
}

/// Ends the overlap: the previous secret stops working. Idempotent.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/{key}/end-overlap",
    operation_id = "end_overlap",
    params(IfMatch),
    request_body = Option<Nothing>,
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn end_overlap(
    api: State<Api>,
    at: Within<may::RevokeKeys>,
    key: KeyInPath,
    precondition: IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    change(KeyAction::EndOverlap, api, at, key, precondition, fields).await
}

async fn change<P>(
    action: KeyAction,
    State(api): State<Api>,
    Within(at, ..): Within<P>,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    let (operations, now) = (api.operations(), api.clock.now());
    Nothing::parse(fields, &operations.context_in(&at))?;
    let changed = operations.change_key(&at, id, precondition, action).await?;
    changed_resource(StatusCode::OK, &KeyBody::new(changed.value, now), changed.revision)
}
