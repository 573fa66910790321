//! GET …/keys/{key}: shows a key.

use axum::extract::State;
use axum::response::Response;

use super::KeyBody;
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::api::response::resource;
use crate::operations::permissions::may;
use crate::web::problem::Problem;

/// Shows a key.
#[utoipa::path(
    get,
    path = "/workspaces/{workspace}/keys/{key}",
    operation_id = "get_key",
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    Within(at, ..): Within<may::ReadKeys>,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    let revision = key.revision;
    resource(&KeyBody::new(key, api.clock.now()), revision)
}
