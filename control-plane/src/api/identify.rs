//! POST /v1/keys/identify: identifies a found secret by its digest, without storing the text.

use axum::extract::State;
use axum::response::Response;
use policy::key_text::MAX_FOREIGN_BYTES;
use policy::{Digest, UnixSeconds, WorkspaceId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::authority::AnyAdmin;
use super::fields::{Fields, InvalidValue};
use super::keys::status_word;
use super::principal::Principal;
use super::requests::{IdentifiedKind, IdentifiedStatus, IdentifySecret, KeyStatus, RoleName};
use super::response::ok_json;
use super::{Api, values};
use crate::base::instant;
use crate::base::secret::Secret;
use crate::base::tokens::Token;
use crate::store::{AdminToken, DigestOwner, EdgeToken, SecretRecord, SecretStatus};
use crate::web::problem::Problem;

/// The key or token that a text belongs to. All fields are present, `null` where there is nothing.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Identified)]
pub(crate) struct IdentifiedBody {
    /// `key`, `admin_token` or `edge_token`.
    #[schema(value_type = IdentifiedKind)]
    pub(crate) kind: &'static str,
    #[schema(value_type = IdentifiedStatus)]
    pub(crate) status: &'static str,
    #[schema(value_type = Option<String>, required)]
    pub(crate) workspace_id: Option<WorkspaceId>,
    #[schema(required)]
    pub(crate) key_id: Option<String>,
    #[schema(required)]
    pub(crate) token_id: Option<String>,
    pub(crate) name: String,
    /// `null` for an imported key whose last characters weren't given.
    #[schema(required)]
    pub(crate) last_characters: Option<String>,
    #[schema(value_type = Option<KeyStatus>, required)]
    pub(crate) key_status: Option<&'static str>,
    #[schema(value_type = Option<RoleName>, required)]
    pub(crate) role: Option<&'static str>,
    #[schema(required)]
    pub(crate) edge: Option<String>,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub(crate) created_at: Option<UnixSeconds>,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub(crate) ended_at: Option<UnixSeconds>,
}

/// Identifies a text that somebody found. The text is neither stored nor logged.
#[utoipa::path(
    post,
    path = "/keys/identify",
    operation_id = "identify_secret",
    request_body = IdentifySecret,
    responses((status = 200, description = "The key or token", body = IdentifiedBody))
)]
pub(super) async fn identify(
    State(api): State<Api>,
    AnyAdmin(principal): AnyAdmin,
    fields: Fields,
) -> Result<Response, Problem> {
    ok_json(&find(&api, &principal, fields).await?)
}

/// Identifies the text in the fields.
pub(crate) async fn find(api: &Api, principal: &Principal, mut fields: Fields) -> Result<IdentifiedBody, Problem> {
    let secret = fields.required("secret", secret);
    let secret = fields.finish(|| secret)?;
    let now = api.clock.now();
    if principal.reach().is_none()
        && let Some(found) = identify_token_file(api, &secret)
    {
        return Ok(found);
    }
    let found = api.store.identify(secret.digest(), now).await?;
    // A secret outside the principal's reach is answered like one that doesn't exist.
    let within = |found: &DigestOwner| principal.reach().is_none_or(|own| found.workspace() == Some(own));
    match found.filter(within) {
        Some(DigestOwner::Secret(secret)) => Ok(IdentifiedBody::from(secret)),
        Some(DigestOwner::AdminToken(token)) => Ok(admin_token_body(token, now)),
        Some(DigestOwner::EdgeToken(token)) => Ok(IdentifiedBody::from(token)),
        None => Err(Problem::unknown_secret()),
    }
}

fn secret(value: Value) -> Result<Secret, InvalidValue> {
    let secret = Secret::new(values::string(value)?);
    match secret.expose().len() {
        0 => Err(InvalidValue::new("empty", "must be the text of a key or token")),
        1..=MAX_FOREIGN_BYTES => Ok(secret),
        _ => Err(InvalidValue::new("too-long", format!("must have at most {MAX_FOREIGN_BYTES} bytes"))),
    }
}

/// Identifies a token of the token files: those aren't in the database.
fn identify_token_file(api: &Api, secret: &Secret) -> Option<IdentifiedBody> {
    let digest: Digest = secret.digest();
    let is = |token: &Token| token.has(&digest);
    let (kind, role) = match (is(&api.admin_token), is(&api.edge_token)) {
        (true, _) => ("admin_token", Some("platform_admin")),
        (false, true) => ("edge_token", None),
        (false, false) => return None,
    };
    let (name, last_characters) = ("token file".to_owned(), secret.last_characters().into_option());
    Some(IdentifiedBody { kind, status: "active", role, name, last_characters, ..IdentifiedBody::default() })
}

impl From<SecretRecord> for IdentifiedBody {
    fn from(secret: SecretRecord) -> Self {
        Self {
            kind: "key",
            status: match secret.status {
                SecretStatus::Current => "current",
                SecretStatus::Previous => "previous",
                SecretStatus::RotatedOut => "rotated_out",
                SecretStatus::Deleted => "deleted",
            },
            workspace_id: Some(secret.workspace),
            key_id: Some(secret.key.to_string()),
            name: secret.name,
            last_characters: secret.last_characters.into_option(),
            key_status: secret.key_status.map(status_word),
            created_at: Some(secret.created_at),
            ended_at: secret.ended_at,
            ..Self::default()
        }
    }
}

fn admin_token_body(token: AdminToken, now: UnixSeconds) -> IdentifiedBody {
    IdentifiedBody {
        kind: "admin_token",
        status: match token.revoked_at {
            Some(_) => "revoked",
            None if token.is_expired(now) => "expired",
            None => "active",
        },
        workspace_id: token.role.workspace(),
        token_id: Some(token.id.to_string()),
        name: token.name,
        last_characters: token.last_characters.into_option(),
        role: Some(token.role.name()),
        created_at: Some(token.created_at),
        ended_at: token.revoked_at,
        ..IdentifiedBody::default()
    }
}

impl From<EdgeToken> for IdentifiedBody {
    fn from(token: EdgeToken) -> Self {
        Self {
            kind: "edge_token",
            status: if token.revoked_at.is_some() { "revoked" } else { "active" },
            token_id: Some(token.id.to_string()),
            name: token.name,
            last_characters: token.last_characters.into_option(),
            edge: Some(token.edge),
            created_at: Some(token.created_at),
            ended_at: token.revoked_at,
            ..Self::default()
        }
    }
}
