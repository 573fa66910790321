//! `/v1/admin-tokens`: tokens for REST and the console.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{AdminTokenId, Allowlist, Revision, UnixSeconds, WorkspaceId};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::authority::Anywhere;
use super::idempotency::{self, IdempotencyKey};
use super::path::AdminTokenInPath;
use super::precondition::IfMatch;
use super::query::{PageParams, QueryFields};
use super::response::{PageBody, changed_resource, no_content, ok_json, resource};
use crate::base::instant;
use crate::operations::WithSecret;
use crate::operations::admin_tokens::CreateAdminToken;
use crate::operations::cursor::CursorPage;
use crate::operations::fields::Fields;
use crate::operations::permissions::may;
use crate::operations::principal::Principal;
use crate::operations::request::RequestBody as _;
use crate::store::{AdminToken, OnceResult, RoleName};
use crate::web::problem::Problem;

/// Whether a token can be used.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum TokenStatus {
    Active,
    Expired,
}

/// A token as JSON. All fields are present, `null` where there is nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminToken)]
struct TokenBody {
    #[schema(value_type = String)]
    id: AdminTokenId,
    name: String,
    role: RoleName,
    #[schema(value_type = Option<String>, required)]
    workspace_id: Option<WorkspaceId>,
    /// `null`: any address.
    #[schema(value_type = Option<Vec<String>>, required)]
    ip_allowlist: Allowlist,
    /// `null`: all roles that its own includes.
    #[schema(value_type = Option<Vec<RoleName>>, required)]
    may_make: Option<Vec<&'static str>>,
    last_characters: String,
    /// `active` or `expired`.
    status: TokenStatus,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    expires_at: Option<UnixSeconds>,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    created_at: UnixSeconds,
    created_by: String,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_used_at: Option<UnixSeconds>,
    #[schema(value_type = u64)]
    revision: Revision,
}

impl TokenBody {
    fn new(token: AdminToken, now: UnixSeconds) -> Self {
        Self {
            status: if token.is_expired(now) { TokenStatus::Expired } else { TokenStatus::Active },
            id: token.id,
            name: token.name,
            role: token.role.name(),
            workspace_id: token.role.workspace(),
            may_make: token.may_make.names(),
            ip_allowlist: token.allowlist,
            last_characters: token.last_characters.0,
            expires_at: token.expires_at,
            created_at: token.created_at,
            created_by: token.created_by,
            last_used_at: token.last_used_at,
            revision: token.revision,
        }
    }
}

/// The only response that shows a token's text.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminTokenWithSecret)]
struct TokenWithSecret<'a> {
    token: TokenBody,
    /// `null` in the response to a retry: the text is shown only once.
    #[schema(required)]
    secret: Option<&'a str>,
}

/// Creates an admin token, and shows its text once.
#[utoipa::path(
    post,
    path = "/admin-tokens",
    operation_id = "create_admin_token",
    params(IdempotencyKey),
    request_body = CreateAdminToken,
    responses((status = 201, description = "The token and its text", body = TokenWithSecret))
)]
pub(super) async fn create(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::ManageAdminTokens>,
    key: IdempotencyKey,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let principal = principal.once(once);
    let run = async {
        let now = api.clock.now();
        let operations = api.operations();
        let context = operations.context_for(&principal, &fields).await?;
        let request = CreateAdminToken::parse(fields, &context)?;
        let WithSecret { changed: made, secret } = operations.create_admin_token(&principal, request).await?;
        let body = TokenWithSecret { token: TokenBody::new(made.value, now), secret: Some(secret.expose()) };
        changed_resource(StatusCode::CREATED, &body, made.revision)
    };
    idempotency::run_once(&api, once, run, |made| replay(&api, &principal, made)).await
}

/// The response to a retry: the token as it is now.
async fn replay(api: &Api, principal: &Principal, made: OnceResult) -> Result<Response, Problem> {
    let id = made.ids.first().and_then(|id| id.parse().ok()).ok_or_else(Problem::unknown_token)?;
    let token = api.operations().admin_token(principal, id).await?;
    let revision = token.revision;
    let body = TokenWithSecret { token: TokenBody::new(token, api.clock.now()), secret: None };
    changed_resource(StatusCode::CREATED, &body, revision)
}

/// Lists the admin tokens that the token may see, oldest first.
#[utoipa::path(
    get,
    path = "/admin-tokens",
    operation_id = "list_admin_tokens",
    params(PageParams),
    responses((status = 200, description = "A page", body = PageBody<TokenBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::ReadAdminTokens>,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    let CursorPage { items, next_cursor } = api.operations().list_admin_tokens(&principal, fields).await?;
    let now = api.clock.now();
    ok_json(&PageBody { items: items.into_iter().map(|token| TokenBody::new(token, now)).collect(), next_cursor })
}

/// Shows an admin token.
#[utoipa::path(
    get,
    path = "/admin-tokens/{token}",
    operation_id = "get_admin_token",
    responses((status = 200, description = "The token", body = TokenBody))
)]
pub(super) async fn show(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::ReadAdminTokens>,
    AdminTokenInPath(id): AdminTokenInPath,
) -> Result<Response, Problem> {
    let token = api.operations().admin_token(&principal, id).await?;
    let revision = token.revision;
    resource(&TokenBody::new(token, api.clock.now()), revision)
}

/// Revokes an admin token permanently, with immediate effect.
#[utoipa::path(
    delete,
    path = "/admin-tokens/{token}",
    operation_id = "revoke_admin_token",
    params(IfMatch),
    responses((status = 204, description = "It is revoked"))
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::ManageAdminTokens>,
    AdminTokenInPath(id): AdminTokenInPath,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    Ok(no_content(api.operations().revoke_admin_token(&principal, id, precondition).await?.revision))
}
