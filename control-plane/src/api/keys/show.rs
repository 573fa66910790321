//! GET …/keys/{key}

use axum::extract::State;
use axum::response::Response;

use super::{KeyBody, of_key};
use crate::api::Api;
use crate::api::answer::shown;
use crate::api::path::{InWorkspace, KeyInPath};
use crate::problem::Problem;

pub(in crate::api) async fn show(
    State(api): State<Api>,
    at: InWorkspace,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    let revision = key.revision;
    shown(&KeyBody::new(key, api.clock.now()), revision)
}
