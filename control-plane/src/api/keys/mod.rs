//! `/v1/workspaces/{workspace}/keys`: a key as JSON, with a file for each operation.

pub(super) mod actions;
pub(super) mod clean_up;
pub(super) mod create;
pub(super) mod delete;
mod digest_text;
pub(super) mod import;
pub(crate) mod list;
pub(super) mod rotate;
pub(super) mod show;
pub(super) mod update;
pub(super) mod usage;

use std::net::IpAddr;

use axum::http::StatusCode;
use axum::response::Response;
use policy::{Allowlist, Environment, KeyId, Level, Revision, Scopes, UnixSeconds, WorkspaceId};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::response::changed_resource;
use crate::base::instant;
use crate::base::secret::Secret;
use crate::operations::field_types;
use crate::operations::{OperationError, Resource};
use crate::store::{Key, Metadata, OnceResult, Status};
use crate::web::problem::Problem;

/// A key as JSON. All fields are present, `null` where there is nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
struct KeyBody {
    #[schema(value_type = String)]
    id: KeyId,
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    name: String,
    #[schema(value_type = String)]
    environment: Environment,
    /// `null` for an imported key whose last characters weren't given.
    #[schema(required)]
    last_characters: Option<String>,
    status: Status,
    active: bool,
    #[schema(schema_with = field_types::scopes_schema)]
    scopes: Scopes,
    #[schema(value_type = Option<Vec<String>>, required)]
    ip_allowlist: Allowlist,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    expires_at: Option<UnixSeconds>,
    #[schema(value_type = Object)]
    metadata: Metadata,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    created_at: UnixSeconds,
    created_by: String,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: UnixSeconds,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    rotated_at: Option<UnixSeconds>,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    previous_secret_expires_at: Option<UnixSeconds>,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    previous_secret_last_used_at: Option<UnixSeconds>,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    secret_last_used_at: Option<UnixSeconds>,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_used_at: Option<UnixSeconds>,
    #[schema(value_type = Option<String>, required)]
    last_used_ip: Option<IpAddr>,
    warnings: Vec<Warning>,
    #[schema(value_type = u64)]
    revision: Revision,
}

/// A way to make the key safer.
#[derive(Serialize, ToSchema)]
struct Warning {
    code: &'static str,
    message: &'static str,
}

impl KeyBody {
    fn new(key: Key, now: UnixSeconds) -> Self {
        let warnings = warnings(&key);
        Self {
            status: key.status(now),
            previous_secret_expires_at: key.previous_secret_expires_at(now),
            previous_secret_last_used_at: key.previous_secret_last_used_at(now),
            id: key.id,
            workspace_id: key.workspace,
            name: key.name,
            environment: key.environment,
            last_characters: key.last_characters.into_option(),
            active: key.active,
            scopes: key.scopes,
            ip_allowlist: key.allowlist,
            expires_at: key.expires_at,
            metadata: key.metadata,
            created_at: key.created_at,
            created_by: key.created_by,
            updated_at: key.updated_at,
            rotated_at: key.rotated_at,
            secret_last_used_at: key.used.secret_at,
            last_used_at: key.used.last_at,
            last_used_ip: key.used.last_address,
            warnings,
            revision: key.revision,
        }
    }
}

/// The only response that shows a secret: of create and rotate.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyWithSecret)]
struct KeyWithSecret<'a> {
    key: KeyBody,
    /// `null` in the response to a retry: the secret is shown only once.
    #[schema(required)]
    secret: Option<&'a str>,
}

impl<'a> KeyWithSecret<'a> {
    fn new(key: Key, secret: Option<&'a Secret>, now: UnixSeconds) -> Self {
        Self { key: KeyBody::new(key, now), secret: secret.map(Secret::expose) }
    }
}

/// The response to a retry of create or rotate: the key as it is now.
async fn replay(api: &Api, workspace: WorkspaceId, made: OnceResult, status: StatusCode) -> Result<Response, Problem> {
    let id = made.ids.first().and_then(|id| id.parse().ok()).ok_or_else(Problem::unknown_key)?;
    let key = api.store.key(workspace, id).await.map_err(OperationError::about(Resource::Key))?;
    let revision = key.revision;
    changed_resource(status, &KeyWithSecret::new(key, None, api.clock.now()), revision)
}

/// Warnings about a key that may write: stolen, it does more harm.
fn warnings(key: &Key) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if key.scopes.values().any(|level| *level == Level::Write) {
        if key.allowlist == Allowlist::Any {
            let message = "the key may write and be used from any address; set `ip_allowlist` to those that use it";
            warnings.push(Warning { code: "write-without-allowlist", message });
        }
        if key.expires_at.is_none() {
            let message = "the key may write and never expires; create one that does, and delete this one";
            warnings.push(Warning { code: "write-without-expiration", message });
        }
    }
    warnings
}
