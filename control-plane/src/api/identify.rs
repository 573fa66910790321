//! POST /v1/keys/identify: identifies a found secret by its digest.

use axum::extract::State;
use axum::response::Response;
use policy::{UnixSeconds, WorkspaceId};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::authority::Anywhere;
use super::openapi::NotFound;
use super::response::ok_json;
use crate::base::instant;
use crate::base::secret::LastCharacters;
use crate::operations::fields::Fields;
use crate::operations::identify::{Identified, IdentifySecret};
use crate::operations::permissions::may;
use crate::operations::request::RequestBody as _;
use crate::store::{AdminToken, EdgeToken, RoleName, SecretRecord, SecretStatus, Status};
use crate::web::problem::Problem;

/// What a text belongs to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum IdentifiedKind {
    Key,
    AdminToken,
    EdgeToken,
}

/// The status of a secret (the first four) or of a token (the others).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum IdentifiedStatus {
    Current,
    Previous,
    RotatedOut,
    Deleted,
    Active,
    Expired,
    Revoked,
}

/// The key or token that a text belongs to. All fields are present, `null` where there is nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = Identified)]
struct IdentifiedBody {
    /// `key`, `admin_token` or `edge_token`.
    kind: IdentifiedKind,
    status: IdentifiedStatus,
    #[schema(value_type = Option<String>, required)]
    workspace_id: Option<WorkspaceId>,
    #[schema(required)]
    key_id: Option<String>,
    #[schema(required)]
    token_id: Option<String>,
    name: String,
    /// `null` for an imported key whose last characters weren't given.
    #[schema(required)]
    last_characters: Option<String>,
    #[schema(required)]
    key_status: Option<Status>,
    #[schema(required)]
    role: Option<RoleName>,
    #[schema(required)]
    edge: Option<String>,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    created_at: Option<UnixSeconds>,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    ended_at: Option<UnixSeconds>,
}

/// Identifies a text that somebody found. The text is neither stored nor logged.
#[utoipa::path(
    post,
    path = "/keys/identify",
    operation_id = "identify_secret",
    extensions(("x-read-only" = json!(true))),
    request_body = IdentifySecret,
    responses((status = 200, description = "The key or token", body = IdentifiedBody), (status = 404, response = NotFound))
)]
pub(super) async fn identify(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::IdentifySecrets>,
    fields: Fields,
) -> Result<Response, Problem> {
    let operations = api.operations();
    let request = IdentifySecret::parse(fields, &operations.context(&principal))?;
    let (found, now) = operations.identify(&principal, request).await?;
    ok_json(&match found {
        Identified::Secret(secret) => IdentifiedBody::secret(secret),
        Identified::AdminToken(token) => IdentifiedBody::admin_token(token, now),
        Identified::EdgeToken(token) => IdentifiedBody::edge_token(token),
        Identified::AdminTokenFile(last) => IdentifiedBody {
            role: Some(RoleName::PlatformAdmin),
            ..IdentifiedBody::token_file(IdentifiedKind::AdminToken, last)
        },
        Identified::EdgeTokenFile(last) => IdentifiedBody::token_file(IdentifiedKind::EdgeToken, last),
    })
}

impl IdentifiedBody {
    fn new(kind: IdentifiedKind, status: IdentifiedStatus, name: String, last_characters: LastCharacters) -> Self {
        Self {
            kind,
            status,
            workspace_id: None,
            key_id: None,
            token_id: None,
            name,
            last_characters: last_characters.into_option(),
            key_status: None,
            role: None,
            edge: None,
            created_at: None,
            ended_at: None,
        }
    }

    fn secret(secret: SecretRecord) -> Self {
        let status = match secret.status {
            SecretStatus::Current => IdentifiedStatus::Current,
            SecretStatus::Previous => IdentifiedStatus::Previous,
            SecretStatus::RotatedOut => IdentifiedStatus::RotatedOut,
            SecretStatus::Deleted => IdentifiedStatus::Deleted,
        };
        Self {
            workspace_id: Some(secret.workspace),
            key_id: Some(secret.key.to_string()),
            key_status: secret.key_status,
            created_at: Some(secret.created_at),
            ended_at: secret.ended_at,
            ..Self::new(IdentifiedKind::Key, status, secret.name, secret.last_characters)
        }
    }

    fn admin_token(token: AdminToken, now: UnixSeconds) -> Self {
        let status = match token.revoked_at {
            Some(_) => IdentifiedStatus::Revoked,
            None if token.is_expired(now) => IdentifiedStatus::Expired,
            None => IdentifiedStatus::Active,
        };
        Self {
            workspace_id: token.role.workspace(),
            token_id: Some(token.id.to_string()),
            role: Some(token.role.name()),
            created_at: Some(token.created_at),
            ended_at: token.revoked_at,
            ..Self::new(IdentifiedKind::AdminToken, status, token.name, token.last_characters)
        }
    }

    fn edge_token(token: EdgeToken) -> Self {
        let status = if token.revoked_at.is_some() { IdentifiedStatus::Revoked } else { IdentifiedStatus::Active };
        Self {
            token_id: Some(token.id.to_string()),
            edge: Some(token.edge),
            created_at: Some(token.created_at),
            ended_at: token.revoked_at,
            ..Self::new(IdentifiedKind::EdgeToken, status, token.name, token.last_characters)
        }
    }

    /// A token of a token file: those aren't in the database.
    fn token_file(kind: IdentifiedKind, last_characters: LastCharacters) -> Self {
        Self::new(kind, IdentifiedStatus::Active, "token file".to_owned(), last_characters)
    }
}
