//! POST …/keys/{key}/rotate: gives a key another secret, and shows it once.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::KeyId;
use policy::key_text::Kind;

use super::{KeyWithSecret, WithSecret, of_key};
use crate::api::Api;
use crate::api::answer::changed;
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::fields::Fields;
use crate::api::path::KeyInPath;
use crate::api::requests::RotateKey;
use crate::api::values;
use crate::problem::Problem;
use crate::store::NewSecret;

/// Gives a key another secret, and shows it: this once.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/{key}/rotate",
    operation_id = "rotate_key",
    request_body = Option<RotateKey>,
    responses((status = 200, description = "The key and its secret", body = KeyWithSecret))
)]
pub(in crate::api) async fn rotate(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    fields: Fields,
) -> Result<Response, Problem> {
    let now = api.clock.now();
    let WithSecret { changed: rotated, secret } = give_secret(&api, &at, id, fields).await?;
    changed(StatusCode::OK, &KeyWithSecret::new(rotated.value, &secret, now), rotated.revision)
}

/// Gives a key another secret, as the fields say.
pub(crate) async fn give_secret(
    api: &Api,
    at: &InWorkspace,
    id: KeyId,
    mut fields: Fields,
) -> Result<WithSecret, Problem> {
    let overlap = fields.optional("overlap", values::overlap);
    let overlap = fields.finish(|| Some(overlap.flatten()))?;

    // The secret's text begins with the environment, which a key keeps.
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    let secret = api.entropy.secret(&Kind::Key(key.environment))?;
    let acting = at.principal.acting(&api.clock);
    let changed =
        api.store.rotate_key(at.workspace.id, id, NewSecret::from(&secret), overlap, acting).await.map_err(of_key)?;
    Ok(WithSecret { changed, secret })
}
