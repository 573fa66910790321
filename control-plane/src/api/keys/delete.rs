//! DELETE …/keys/{key}: deletes a key permanently.

use axum::extract::State;
use axum::response::Response;

use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::api::response::no_content;
use crate::operations::permissions::may;
use crate::web::problem::Problem;

/// Deletes a key permanently, with immediate effect.
#[utoipa::path(
    delete,
    path = "/workspaces/{workspace}/keys/{key}",
    operation_id = "delete_key",
    params(IfMatch),
    responses((status = 204, description = "It is deleted"))
)]
pub(in crate::api) async fn delete(
    State(api): State<Api>,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    Ok(no_content(api.operations().delete_key(&at, id, precondition).await?.revision))
}
