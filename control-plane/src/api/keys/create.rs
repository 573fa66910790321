//! POST /v1/workspaces/{workspace}/keys: creates a key and shows its secret once.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::key_text::Kind;

use super::{KeyAndSecret, KeyWithSecret, key_problem, replay};
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::fields::Fields;
use crate::api::idempotency::{self, IdempotencyKey};
use crate::api::requests::CreateKey;
use crate::api::response::changed_resource;
use crate::api::{Api, expiration, values};
use crate::store::{NewKey, NewSecret};
use crate::web::problem::Problem;

/// Creates a key, and shows its secret once.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys",
    operation_id = "create_key",
    request_body = CreateKey,
    responses((status = 201, description = "The key and its secret", body = KeyWithSecret))
)]
pub(in crate::api) async fn create(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    key: IdempotencyKey,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let at = at.once(once);
    let run = async {
        let now = api.clock.now();
        let KeyAndSecret { changed: made, secret } = create_key(&api, &at, fields).await?;
        changed_resource(StatusCode::CREATED, &KeyWithSecret::new(made.value, Some(&secret), now), made.revision)
    };
    idempotency::run_once(&api, once, run, |made| replay(&api, at.workspace.id, made, StatusCode::CREATED)).await
}

/// Creates the key that the fields describe.
pub(crate) async fn create_key(api: &Api, at: &InWorkspace, mut fields: Fields) -> Result<KeyAndSecret, Problem> {
    let context = at.principal.change_context(&api.clock);
    let name = fields.required("name", values::name);
    let expires_at = expiration::parse(&mut fields, context.at);
    let scopes = fields.optional("scopes", |value| values::scopes(value, &api.config)).unwrap_or_default();
    let allowlist = fields.optional("ip_allowlist", values::allowlist).unwrap_or_default();
    let environment = fields.optional("environment", |value| values::environment(value, &api.config));
    let environment = environment.unwrap_or_else(|| api.config.first_environment());
    let metadata = fields.optional("metadata", values::metadata).unwrap_or_default();
    let (name, expires_at) = fields.finish(|| name.zip(expires_at))?;

    let secret = api.entropy.secret(&Kind::Key(environment.clone()))?;
    let id = api.entropy.id(&api.clock)?;
    let new = NewKey {
        id,
        name,
        environment,
        scopes,
        allowlist,
        expires_at,
        metadata,
        active: true,
        secret: NewSecret::from(&secret),
    };
    let changed = api.store.create_key(at.workspace.id, new, context).await.map_err(key_problem)?;
    Ok(KeyAndSecret { changed, secret })
}
