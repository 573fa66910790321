//! POST …/keys/{key}/rotate: gives a key a new secret and shows it once.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{KeyWithSecret, replay};
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::idempotency::{self, IdempotencyKey};
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::api::response::changed_resource;
use crate::operations::WithSecret;
use crate::operations::fields::Fields;
use crate::operations::keys::rotate::RotateKey;
use crate::operations::permissions::may;
use crate::operations::request::RequestBody as _;
use crate::web::problem::Problem;

/// Gives a key a new secret, and shows it once.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/{key}/rotate",
    operation_id = "rotate_key",
    params(IfMatch, IdempotencyKey),
    request_body = Option<RotateKey>,
    responses((status = 200, description = "The key and its secret", body = KeyWithSecret))
)]
pub(in crate::api) async fn rotate(
    State(api): State<Api>,
    Within(at, ..): Within<may::ManageKeys>,
    KeyInPath(id): KeyInPath,
    key: IdempotencyKey,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let at = at.once(once);
    let rotate = async {
        let now = api.clock.now();
        let operations = api.operations();
        let request = RotateKey::parse(fields, &operations.context_in(&at))?;
        let WithSecret { changed: rotated, secret } = operations.rotate_key(&at, id, precondition, request).await?;
        changed_resource(StatusCode::OK, &KeyWithSecret::new(rotated.value, Some(&secret), now), rotated.revision)
    };
    idempotency::run_once(&api, once, rotate, |made| replay(&api, at.workspace.id, made, StatusCode::OK)).await
}
