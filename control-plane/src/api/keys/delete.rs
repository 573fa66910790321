//! DELETE …/keys/{key}: ends a key for good.

use axum::extract::State;
use axum::response::Response;

use super::of_key;
use crate::api::Api;
use crate::api::answer::gone;
use crate::api::path::{InWorkspace, KeyInPath};
use crate::problem::Problem;

pub(in crate::api) async fn delete(
    State(api): State<Api>,
    at: InWorkspace,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let acting = at.principal.acting(&api.clock);
    let deleted = api.store.delete_key(at.workspace.id, id, acting).await.map_err(of_key)?;
    Ok(gone(deleted.revision))
}
