//! `/v1/admin-tokens`: tokens for REST. A new one never exceeds its creator's role or lifetime.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::key_text::Kind;
use policy::{AdminTokenId, Revision, UnixSeconds, WorkspaceId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::authority::AnyAdmin;
use super::fields::{Fields, InvalidValue, QueryFields};
use super::idempotency::{self, IdempotencyKey};
use super::path::AdminTokenInPath;
use super::precondition::IfMatch;
use super::principal::Principal;
use super::requests::{CreateAdminToken, RoleName, TokenStatus};
use super::response::{PageBody, changed_resource, no_content, ok_json, resource};
use super::{Api, cursor, expiration, values};
use crate::base::instant;
use crate::base::secret::Secret;
use crate::store::{
    AdminToken, AtRevision, NewAdminToken, NewSecret, OnceResult, Role, StoreError, TokenQuery, WorkspaceName,
};
use crate::web::problem::Problem;

/// A token as JSON. All fields are present, `null` where there is nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminToken)]
struct TokenBody {
    #[schema(value_type = String)]
    id: AdminTokenId,
    name: String,
    #[schema(value_type = RoleName)]
    role: &'static str,
    #[schema(value_type = Option<String>, required)]
    workspace_id: Option<WorkspaceId>,
    last_characters: String,
    /// `active` or `expired`.
    #[schema(value_type = TokenStatus)]
    status: &'static str,
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
            status: if token.is_expired(now) { "expired" } else { "active" },
            id: token.id,
            name: token.name,
            role: token.role.name(),
            workspace_id: token.role.workspace(),
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
    request_body = CreateAdminToken,
    responses((status = 201, description = "The token and its text", body = TokenWithSecret))
)]
pub(super) async fn create(
    State(api): State<Api>,
    AnyAdmin(principal): AnyAdmin,
    key: IdempotencyKey,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let principal = principal.once(once);
    let run = async {
        let now = api.clock.now();
        let (made, secret) = create_token(&api, &principal, fields).await?;
        let body = TokenWithSecret { token: TokenBody::new(made.value, now), secret: Some(secret.expose()) };
        changed_resource(StatusCode::CREATED, &body, made.revision)
    };
    idempotency::run_once(&api, once, run, |made| replay(&api, &principal, made)).await
}

/// The response to a retry: the token as it is now.
async fn replay(api: &Api, principal: &Principal, made: OnceResult) -> Result<Response, Problem> {
    let id = made.ids.first().and_then(|id| id.parse().ok()).ok_or_else(Problem::unknown_token)?;
    let token = api.store.admin_token(id, principal.reach()).await.map_err(token_problem)?;
    let revision = token.revision;
    let body = TokenWithSecret { token: TokenBody::new(token, api.clock.now()), secret: None };
    changed_resource(StatusCode::CREATED, &body, revision)
}

/// Creates the token that the fields describe. Returns its text, which is shown once.
pub(crate) async fn create_token(
    api: &Api,
    principal: &Principal,
    mut fields: Fields,
) -> Result<(AtRevision<AdminToken>, Secret), Problem> {
    let context = principal.change_context(&api.clock);
    let name = fields.required("name", values::name);
    let role_name = fields.required("role", requested_role);
    let is_given = fields.has("workspace");
    let workspace = match fields.optional("workspace", values::optional_string) {
        None if is_given => None,
        named => workspace_for(api, principal, role_name, named.flatten(), &mut fields).await?,
    };
    let expires_at = expiration(&mut fields, principal, context.at);
    let role = role_name.and_then(|role_name| bound_role(role_name, workspace));
    let (name, role, expires_at) = fields.finish(|| Some((name?, role?, expires_at?)))?;

    let secret = api.entropy.secret(&Kind::AdminToken)?;
    let new = NewAdminToken {
        id: api.entropy.id(&api.clock)?,
        name,
        role: require_included(principal, role)?,
        expires_at,
        secret: NewSecret::from(&secret),
    };
    Ok((api.store.create_admin_token(new, context).await?, secret))
}

/// Lists the admin tokens that the token may see, oldest first.
#[utoipa::path(
    get,
    path = "/admin-tokens",
    operation_id = "list_admin_tokens",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page; 50 by default", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page"),
    ),
    responses((status = 200, description = "A page", body = PageBody<TokenBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    AnyAdmin(principal): AnyAdmin,
    QueryFields(mut fields): QueryFields,
) -> Result<Response, Problem> {
    let limit = fields.optional("limit", values::limit).unwrap_or(values::DEFAULT_LIMIT);
    let after = fields.optional("cursor", |value| cursor::decode::<AdminTokenId>(&values::string(value)?));
    let query = fields.finish(|| Some(TokenQuery { limit, after }))?;
    let now = api.clock.now();
    let page = api.store.list_admin_tokens(query, principal.reach()).await?;
    let next_cursor = page.items.last().filter(|_| page.more).map(|last| cursor::encode(&last.id));
    let items: Vec<_> = page.items.into_iter().map(|token| TokenBody::new(token, now)).collect();
    ok_json(&PageBody { items, next_cursor })
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
    AnyAdmin(principal): AnyAdmin,
    AdminTokenInPath(id): AdminTokenInPath,
) -> Result<Response, Problem> {
    let token = api.store.admin_token(id, principal.reach()).await.map_err(token_problem)?;
    let revision = token.revision;
    resource(&TokenBody::new(token, api.clock.now()), revision)
}

/// Revokes an admin token permanently, with immediate effect.
#[utoipa::path(
    delete,
    path = "/admin-tokens/{token}",
    operation_id = "revoke_admin_token",
    responses((status = 204, description = "It is revoked"))
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    AnyAdmin(principal): AnyAdmin,
    AdminTokenInPath(id): AdminTokenInPath,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    let context = principal.change_context(&api.clock);
    let revoked = api.store.revoke_admin_token(id, principal.reach(), precondition, context).await;
    Ok(no_content(revoked.map_err(token_problem)?.revision))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestedRole {
    PlatformAdmin,
    WorkspaceAdmin,
    WorkspaceMember,
}

fn requested_role(value: Value) -> Result<RequestedRole, InvalidValue> {
    match values::string(value)?.as_str() {
        "platform_admin" => Ok(RequestedRole::PlatformAdmin),
        "workspace_admin" => Ok(RequestedRole::WorkspaceAdmin),
        "workspace_member" => Ok(RequestedRole::WorkspaceMember),
        _ => Err(InvalidValue::new("unknown-role", "must be one of platform_admin, workspace_admin, workspace_member")),
    }
}

/// The workspace that a role is bound to: the named one, or by default the principal's own. One outside the principal's
/// reach is refused like one that doesn't exist.
async fn workspace_for(
    api: &Api,
    principal: &Principal,
    role_name: Option<RequestedRole>,
    named: Option<String>,
    fields: &mut Fields,
) -> Result<Option<WorkspaceId>, Problem> {
    let refusal = match (role_name, named) {
        (None, _) | (Some(RequestedRole::PlatformAdmin), None) => return Ok(None),
        (Some(RequestedRole::PlatformAdmin), Some(_)) => {
            InvalidValue::new("ambiguous", "belongs to the roles of a workspace; leave it out for a platform_admin")
        }
        (Some(_), None) => match principal.reach() {
            Some(own) => return Ok(Some(own)),
            None => InvalidValue::new("required", "is required for this role: a workspace's id or slug"),
        },
        (Some(_), Some(text)) => {
            let name = text.parse().map_or(WorkspaceName::Slug(text), WorkspaceName::Id);
            let found = match api.store.workspace(name).await {
                Ok(workspace) => Some(workspace.id),
                Err(StoreError::NotFound) => None,
                Err(error) => return Err(error.into()),
            };
            match found.filter(|id| principal.reach().is_none_or(|own| own == *id)) {
                Some(id) => return Ok(Some(id)),
                None => InvalidValue::new("unknown-workspace", "is not a workspace that you may see"),
            }
        }
    };
    fields.refuse("workspace", refusal);
    Ok(None)
}

fn bound_role(role_name: RequestedRole, workspace: Option<WorkspaceId>) -> Option<Role> {
    match role_name {
        RequestedRole::PlatformAdmin => Some(Role::PlatformAdmin),
        RequestedRole::WorkspaceAdmin => workspace.map(Role::WorkspaceAdmin),
        RequestedRole::WorkspaceMember => workspace.map(Role::WorkspaceMember),
    }
}

/// The role, if the principal's own role includes it.
fn require_included(principal: &Principal, role: Role) -> Result<Role, Problem> {
    let has = match (principal.role(), role) {
        (Role::PlatformAdmin, _) => true,
        (Role::WorkspaceAdmin(own), Role::WorkspaceAdmin(requested) | Role::WorkspaceMember(requested)) => {
            own == requested
        }
        (Role::WorkspaceMember(own), Role::WorkspaceMember(requested)) => own == requested,
        (Role::WorkspaceAdmin(_) | Role::WorkspaceMember(_), _) => false,
    };
    if has { Ok(role) } else { Err(Problem::forbidden("a token whose own role includes the new token's role")) }
}

/// When the token ends: as requested, by default with the token that creates it.
fn expiration(fields: &mut Fields, principal: &Principal, now: UnixSeconds) -> Option<Option<UnixSeconds>> {
    let own = principal.expires_at();
    let Some(field) = ["expires_in", "expires_at"].into_iter().find(|name| fields.has(name)) else {
        return Some(own);
    };
    let requested = expiration::parse(fields, now)?;
    match own {
        Some(own) if requested.is_none_or(|requested| requested > own) => {
            let message = format!("would outlive your own token, which ends {}", instant::text(own));
            fields.refuse(field, InvalidValue::new("beyond-own", message));
            None
        }
        _ => Some(requested),
    }
}

pub(crate) fn token_problem(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound => Problem::unknown_token(),
        other => other.into(),
    }
}
