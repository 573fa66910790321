//! DELETE …/keys/{key}: deletes a key permanently.

use axum::extract::State;
use axum::response::Response;

use super::key_problem;
use crate::api::Api;
use crate::api::authority::AdminOf;
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::api::response::no_content;
use crate::web::problem::Problem;

/// Deletes a key permanently, with immediate effect.
#[utoipa::path(
    delete,
    path = "/workspaces/{workspace}/keys/{key}",
    operation_id = "delete_key",
    responses((status = 204, description = "It is deleted"))
)]
pub(in crate::api) async fn delete(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    let context = at.principal.change_context(&api.clock);
    let deleted = api.store.delete_key(at.workspace.id, id, precondition, context).await.map_err(key_problem)?;
    Ok(no_content(deleted.revision))
}
