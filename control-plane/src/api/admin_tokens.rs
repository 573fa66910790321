//! `/v1/admin-tokens`: tokens for REST. A new one never exceeds its creator's role or lifetime.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::key_text::Kind;
use policy::{AdminTokenId, Revision, UnixSeconds, WorkspaceId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{PageBody, changed, gone, listed, shown};
use super::authority::AnyAdmin;
use super::fields::{Fields, QueryFields, Refused};
use super::idempotency::{self, IdempotencyKey};
use super::path::AdminTokenInPath;
use super::precondition::IfMatch;
use super::principal::Principal;
use super::requests::{CreateAdminToken, RoleName, TokenStatus};
use super::{Api, cursor, values};
use crate::instant;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::store::{AdminToken, Changed, Made, NewAdminToken, NewSecret, Role, StoreError, TokenQuery, WorkspaceName};

/// A token as JSON. All fields are there, `null` where there is nothing.
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
            role: token.role.word(),
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

/// The one answer that shows a token's text.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminTokenWithSecret)]
struct TokenWithSecret<'a> {
    token: TokenBody,
    /// `null` in the answer to a repeat, which has no text to show.
    #[schema(required)]
    secret: Option<&'a str>,
}

/// Makes an admin token, and shows its text: this once.
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
    let once = key.once(fields.digest());
    let principal = principal.once(once);
    let make = async {
        let now = api.clock.now();
        let (made, secret) = make(&api, &principal, fields).await?;
        let body = TokenWithSecret { token: TokenBody::new(made.value, now), secret: Some(secret.expose()) };
        changed(StatusCode::CREATED, &body, made.revision)
    };
    idempotency::answer(&api, once, make, |made| again(&api, &principal, made)).await
}

/// The answer to a repeated request: the token as it is now.
async fn again(api: &Api, principal: &Principal, made: Made) -> Result<Response, Problem> {
    let id = made.ids.first().and_then(|id| id.parse().ok()).ok_or_else(Problem::unknown_token)?;
    let token = api.store.admin_token(id, principal.reach()).await.map_err(of_token)?;
    let revision = token.revision;
    let body = TokenWithSecret { token: TokenBody::new(token, api.clock.now()), secret: None };
    changed(StatusCode::CREATED, &body, revision)
}

/// Creates the token that the fields describe. Returns its text, which is shown once.
pub(crate) async fn make(
    api: &Api,
    principal: &Principal,
    mut fields: Fields,
) -> Result<(Changed<AdminToken>, Secret), Problem> {
    let acting = principal.acting(&api.clock);
    let name = fields.required("name", values::name);
    let word = fields.required("role", role_word);
    let is_given = fields.has("workspace");
    let workspace = match fields.optional("workspace", values::optional_string) {
        None if is_given => None,
        named => workspace_for(api, principal, word, named.flatten(), &mut fields).await?,
    };
    let expires_at = expiration(&mut fields, principal, acting.at);
    let role = word.and_then(|word| granted(word, workspace));
    let (name, role, expires_at) = fields.finish(|| Some((name?, role?, expires_at?)))?;

    let secret = api.entropy.secret(&Kind::AdminToken)?;
    let new = NewAdminToken {
        id: api.entropy.id(&api.clock)?,
        name,
        role: within(principal, role)?,
        expires_at,
        secret: NewSecret::from(&secret),
    };
    Ok((api.store.create_admin_token(new, acting).await?, secret))
}

/// Lists the admin tokens within reach, oldest first.
#[utoipa::path(
    get,
    path = "/admin-tokens",
    operation_id = "list_admin_tokens",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page; 50 by default", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = PageBody<TokenBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    AnyAdmin(principal): AnyAdmin,
    QueryFields(mut fields): QueryFields,
) -> Result<Response, Problem> {
    let limit = fields.optional("limit", values::limit).unwrap_or(values::DEFAULT_LIMIT);
    let after = fields.optional("cursor", |value| cursor::read::<AdminTokenId>(&values::string(value)?));
    let query = fields.finish(|| Some(TokenQuery { limit, after }))?;
    let now = api.clock.now();
    let page = api.store.list_admin_tokens(query, principal.reach()).await?;
    let next_cursor = page.items.last().filter(|_| page.more).map(|last| cursor::write(&last.id));
    let items: Vec<_> = page.items.into_iter().map(|token| TokenBody::new(token, now)).collect();
    listed(&PageBody { items, next_cursor })
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
    let token = api.store.admin_token(id, principal.reach()).await.map_err(of_token)?;
    let revision = token.revision;
    shown(&TokenBody::new(token, api.clock.now()), revision)
}

/// Revokes an admin token, for good and at once.
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
    let acting = principal.acting(&api.clock);
    let revoked = api.store.revoke_admin_token(id, principal.reach(), precondition, acting).await;
    Ok(gone(revoked.map_err(of_token)?.revision))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RoleWord {
    PlatformAdmin,
    WorkspaceAdmin,
    WorkspaceMember,
}

fn role_word(value: Value) -> Result<RoleWord, Refused> {
    match values::string(value)?.as_str() {
        "platform_admin" => Ok(RoleWord::PlatformAdmin),
        "workspace_admin" => Ok(RoleWord::WorkspaceAdmin),
        "workspace_member" => Ok(RoleWord::WorkspaceMember),
        _ => Err(Refused::new("unknown-role", "must be one of platform_admin, workspace_admin, workspace_member")),
    }
}

/// The workspace that a role is bound to: the named one, else the principal's own. One outside the principal's reach is
/// refused like one that doesn't exist.
async fn workspace_for(
    api: &Api,
    principal: &Principal,
    word: Option<RoleWord>,
    named: Option<String>,
    fields: &mut Fields,
) -> Result<Option<WorkspaceId>, Problem> {
    let refusal = match (word, named) {
        (None, _) | (Some(RoleWord::PlatformAdmin), None) => return Ok(None),
        (Some(RoleWord::PlatformAdmin), Some(_)) => {
            Refused::new("ambiguous", "goes with the roles of a workspace; leave it out for a platform_admin")
        }
        (Some(_), None) => match principal.reach() {
            Some(own) => return Ok(Some(own)),
            None => Refused::new("required", "is required for this role: a workspace's id or slug"),
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
                None => Refused::new("unknown-workspace", "names no workspace that you may see"),
            }
        }
    };
    fields.refuse("workspace", refusal);
    Ok(None)
}

fn granted(word: RoleWord, workspace: Option<WorkspaceId>) -> Option<Role> {
    match word {
        RoleWord::PlatformAdmin => Some(Role::PlatformAdmin),
        RoleWord::WorkspaceAdmin => workspace.map(Role::WorkspaceAdmin),
        RoleWord::WorkspaceMember => workspace.map(Role::WorkspaceMember),
    }
}

/// The role, if the principal's own role includes it.
fn within(principal: &Principal, role: Role) -> Result<Role, Problem> {
    let has = match (principal.role(), role) {
        (Role::PlatformAdmin, _) => true,
        (Role::WorkspaceAdmin(own), Role::WorkspaceAdmin(asked) | Role::WorkspaceMember(asked)) => own == asked,
        (Role::WorkspaceMember(own), Role::WorkspaceMember(asked)) => own == asked,
        (Role::WorkspaceAdmin(_) | Role::WorkspaceMember(_), _) => false,
    };
    if has { Ok(role) } else { Err(Problem::forbidden("one that has this role itself")) }
}

/// When the token ends: as requested, by default with the token that creates it.
fn expiration(fields: &mut Fields, principal: &Principal, now: UnixSeconds) -> Option<Option<UnixSeconds>> {
    let own = principal.expires_at();
    let Some(field) = ["expires_in", "expires_at"].into_iter().find(|name| fields.has(name)) else {
        return Some(own);
    };
    let asked = values::expiration(fields, now)?;
    match own {
        Some(own) if asked.is_none_or(|asked| asked > own) => {
            let message = format!("would outlive your own token, which ends {}", instant::text(own));
            fields.refuse(field, Refused::new("beyond-own", message));
            None
        }
        _ => Some(asked),
    }
}

pub(crate) fn of_token(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound => Problem::unknown_token(),
        other => other.into(),
    }
}
