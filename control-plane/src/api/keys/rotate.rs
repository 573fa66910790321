//! POST …/keys/{key}/rotate: gives a key a new secret and shows it once.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::KeyId;
use policy::key_text::Kind;

use super::{KeyAndSecret, KeyWithSecret, key_problem, replay};
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::fields::{Fields, InvalidValue};
use crate::api::idempotency::{self, IdempotencyKey};
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::api::requests::RotateKey;
use crate::api::response::changed_resource;
use crate::api::{Api, expiration, values};
use crate::store::{NewSecret, Precondition, Rotation};
use crate::web::problem::Problem;

/// Gives a key a new secret, and shows it once.
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
    key: IdempotencyKey,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let at = at.once(once);
    let rotate = async {
        let now = api.clock.now();
        let KeyAndSecret { changed: rotated, secret } = rotate_secret(&api, &at, id, precondition, fields).await?;
        changed_resource(StatusCode::OK, &KeyWithSecret::new(rotated.value, Some(&secret), now), rotated.revision)
    };
    idempotency::run_once(&api, once, rotate, |made| replay(&api, at.workspace.id, made, StatusCode::OK)).await
}

/// Gives a key a new secret, as the fields request.
pub(crate) async fn rotate_secret(
    api: &Api,
    at: &InWorkspace,
    id: KeyId,
    precondition: Precondition,
    mut fields: Fields,
) -> Result<KeyAndSecret, Problem> {
    let rotation = rotation(&mut fields);
    let rotation = fields.finish(|| Some(rotation))?;

    // The secret's text contains the environment, which a key keeps.
    let key = api.store.key(at.workspace.id, id).await.map_err(key_problem)?;
    let secret = api.entropy.secret(&Kind::Key(key.environment))?;
    let context = at.principal.change_context(&api.clock);
    let new = NewSecret::from(&secret);
    let changed = api.store.rotate_key(at.workspace.id, id, new, rotation, precondition, context).await;
    Ok(KeyAndSecret { changed: changed.map_err(key_problem)?, secret })
}

/// What happens to the secrets that the key has now.
fn rotation(fields: &mut Fields) -> Rotation {
    let overlap = fields.optional("overlap", expiration::overlap).flatten();
    let replaces = fields.optional("replace", values::boolean).unwrap_or(false);
    match (overlap, replaces) {
        (Some(_), true) => {
            let message = "ends the current secret at once, and so can't be combined with `overlap`; send one of them";
            fields.refuse("replace", InvalidValue::new("ambiguous", message));
            Rotation::Replace
        }
        (None, true) => Rotation::Replace,
        (Some(secs), false) => Rotation::Overlap { secs },
        (None, false) => Rotation::EndAll,
    }
}
