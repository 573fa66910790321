//! PATCH …/keys/{key}: replaces the given fields; metadata is merged.

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
use crate::operations::keys::update::UpdateKey;
use crate::operations::permissions::may;
use crate::operations::request::RequestBody as _;
use crate::web::problem::Problem;

/// Replaces the given fields; `metadata` is merged.
#[utoipa::path(
    patch,
    path = "/workspaces/{workspace}/keys/{key}",
    operation_id = "update_key",
    params(IfMatch),
    request_body = UpdateKey,
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn update(
    State(api): State<Api>,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    let now = api.clock.now();
    let operations = api.operations();
    let request = UpdateKey::parse(fields, &operations.context_in(&at))?;
    let updated = operations.update_key(&at, id, precondition, request).await?;
    changed_resource(StatusCode::OK, &KeyBody::new(updated.value, now), updated.revision)
}
