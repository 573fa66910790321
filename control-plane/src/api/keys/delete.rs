//! DELETE …/keys/{key}: deletes a key permanently.

use axum::extract::State;
use axum::response::Response;

use super::of_key;
use crate::api::Api;
use crate::api::answer::gone;
use crate::api::authority::AdminOf;
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::problem::Problem;

/// Deletes a key, for good and at once.
#[utoipa::path(
    delete,
    path = "/workspaces/{workspace}/keys/{key}",
    operation_id = "delete_key",
    responses((status = 204, description = "It is gone"))
)]
pub(in crate::api) async fn delete(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    let acting = at.principal.acting(&api.clock);
    let deleted = api.store.delete_key(at.workspace.id, id, precondition, acting).await.map_err(of_key)?;
    Ok(gone(deleted.revision))
}
