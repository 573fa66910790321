//! PATCH …/keys/{key}: replaces the given fields; metadata is merged.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::KeyId;

use super::{KeyBody, key_problem};
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::fields::{Fields, InvalidValue};
use crate::api::path::KeyInPath;
use crate::api::precondition::IfMatch;
use crate::api::requests::UpdateKey;
use crate::api::response::changed_resource;
use crate::api::{Api, values};
use crate::store::{AtRevision, Key, KeyPatch, Precondition};
use crate::web::problem::Problem;

/// Replaces the given fields; `metadata` is merged.
#[utoipa::path(
    patch,
    path = "/workspaces/{workspace}/keys/{key}",
    operation_id = "update_key",
    request_body = UpdateKey,
    responses((status = 200, description = "The key", body = KeyBody))
)]
pub(in crate::api) async fn update(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    let now = api.clock.now();
    let updated = replace(&api, &at, id, precondition, fields).await?;
    changed_resource(StatusCode::OK, &KeyBody::new(updated.value, now), updated.revision)
}

/// Replaces the given fields of a key.
pub(crate) async fn replace(
    api: &Api,
    at: &InWorkspace,
    id: KeyId,
    precondition: Precondition,
    mut fields: Fields,
) -> Result<AtRevision<Key>, Problem> {
    let patch = KeyPatch {
        name: fields.optional("name", values::name),
        scopes: fields.optional("scopes", |value| values::scopes(value, &api.config)),
        allowlist: fields.optional("ip_allowlist", values::allowlist),
        metadata: fields.optional("metadata", values::metadata_patch),
    };
    for name in ["expires_at", "expires_in"] {
        fields.forbid(name, InvalidValue::new("expiration-immutable", "is fixed when a key is made"));
    }
    let patch = fields.finish(|| Some(patch))?;
    let context = at.principal.change_context(&api.clock);
    api.store.update_key(at.workspace.id, id, patch, precondition, context).await.map_err(key_problem)
}
