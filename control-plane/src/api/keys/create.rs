//! POST /v1/workspaces/{workspace}/keys: creates a key and shows its secret once.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{KeyWithSecret, replay};
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::idempotency::{self, IdempotencyKey};
use crate::api::response::changed_resource;
use crate::operations::WithSecret;
use crate::operations::fields::Fields;
use crate::operations::keys::create::CreateKey;
use crate::operations::permissions::may;
use crate::operations::request::RequestBody as _;
use crate::web::problem::Problem;

/// Creates a key, and shows its secret once.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys",
    operation_id = "create_key",
    params(IdempotencyKey),
    request_body = CreateKey,
    responses((status = 201, description = "The key and its secret", body = KeyWithSecret))
)]
pub(in crate::api) async fn create(
    State(api): State<Api>,
    Within(at, ..): Within<may::ManageKeys>,
    key: IdempotencyKey,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let at = at.once(once);
    let run = async {
        let now = api.clock.now();
        let operations = api.operations();
        let request = CreateKey::parse(fields, &operations.context_in(&at))?;
        let WithSecret { changed: made, secret } = operations.create_key(&at, request).await?;
        changed_resource(StatusCode::CREATED, &KeyWithSecret::new(made.value, Some(&secret), now), made.revision)
    };
    idempotency::run_once(&api, once, run, |made| replay(&api, at.workspace.id, made, StatusCode::CREATED)).await
}
