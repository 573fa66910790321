//! Admin tokens: create, show and revoke. A new one never exceeds its creator's role or lifetime.

use policy::AdminTokenId;
use policy::key_text::Kind;
use utoipa::openapi::schema::ObjectBuilder;

use super::choice::{Choice as _, choice};
use super::cursor::{CursorPage, page_fields};
use super::expiration::TokenExpiration;
use super::field_types::Name;
use super::fields::{Fields, InvalidValue};
use super::principal::Principal;
use super::request::{BodyField, NamedSchemas, OrNull, RequestContext, WorkspaceOfRequest, request_body};
use super::{OperationError, Operations, Resource, WithSecret};
use crate::store::{AdminToken, AtRevision, NewAdminToken, NewSecret, Precondition, Role, TokenQuery};

/// What a token may do, without the workspace that it is bound to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoleName {
    PlatformAdmin,
    WorkspaceAdmin,
    WorkspaceMember,
}

choice!(
    "What a token may do.",
    RoleName as "RoleName",
    "unknown-role",
    Self::PlatformAdmin => "platform_admin",
    Self::WorkspaceAdmin => "workspace_admin",
    Self::WorkspaceMember => "workspace_member",
);

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::PlatformAdmin => Self::PlatformAdmin,
            Role::WorkspaceAdmin(_) => Self::WorkspaceAdmin,
            Role::WorkspaceMember(_) => Self::WorkspaceMember,
        }
    }
}

request_body! {
    /// An admin token to create.
    pub(crate) struct CreateAdminToken {
        pub(crate) name: Name,
        /// Id or slug, for the roles of a workspace. A workspace admin may leave it out.
        pub(crate) role: RequestedRole,
        /// By default a token expires with the one that created it. At most one of this and `expires_at`.
        pub(crate) expiration: TokenExpiration,
    }
}

/// A role, bound to its workspace: the fields `role` and `workspace`.
pub(crate) struct RequestedRole(pub(crate) Role);

impl BodyField for RequestedRole {
    fn take(fields: &mut Fields, _: &str, context: &RequestContext<'_>) -> Option<Self> {
        let role = fields.required("role", RoleName::from_value);
        let named = <Option<OrNull<String>> as BodyField>::take(fields, "workspace", context)?;
        let named = named.and_then(|OrNull(text)| text);
        match bound_role(role?, named.is_some(), context) {
            Ok(role) => Some(Self(role)),
            Err(refused) => {
                fields.refuse("workspace", refused);
                None
            }
        }
    }

    /// The description is the workspace's.
    fn describe(_: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        let body = <RoleName as BodyField>::describe("role", None, body);
        <Option<OrNull<String>> as BodyField>::describe("workspace", description, body)
    }

    fn schemas(schemas: &mut NamedSchemas) {
        <RoleName as BodyField>::schemas(schemas);
    }
}

/// The role in the workspace that the request names, or by default in the principal's own. A workspace outside the
/// principal's reach is refused like one that doesn't exist.
fn bound_role(role: RoleName, names_workspace: bool, context: &RequestContext<'_>) -> Result<Role, InvalidValue> {
    let workspace = || match (context.workspace, names_workspace) {
        (WorkspaceOfRequest::Body(Some(found)), true) => Ok(found),
        (WorkspaceOfRequest::Body(_) | WorkspaceOfRequest::Path(_), true) => {
            Err(InvalidValue::new("unknown-workspace", "is not a workspace that you may see"))
        }
        (_, false) => context
            .principal
            .reach()
            .ok_or_else(|| InvalidValue::new("required", "is required for this role: a workspace's id or slug")),
    };
    match role {
        RoleName::PlatformAdmin if names_workspace => {
            let message = "belongs to the roles of a workspace; leave it out for a platform_admin";
            Err(InvalidValue::new("ambiguous", message))
        }
        RoleName::PlatformAdmin => Ok(Role::PlatformAdmin),
        RoleName::WorkspaceAdmin => workspace().map(Role::WorkspaceAdmin),
        RoleName::WorkspaceMember => workspace().map(Role::WorkspaceMember),
    }
}

/// Whether a principal with the first role may create a token with the second.
fn includes(own: Role, requested: Role) -> bool {
    match (own, requested) {
        (Role::PlatformAdmin, _) => true,
        (Role::WorkspaceAdmin(own), Role::WorkspaceAdmin(requested) | Role::WorkspaceMember(requested))
        | (Role::WorkspaceMember(own), Role::WorkspaceMember(requested)) => own == requested,
        (Role::WorkspaceAdmin(_) | Role::WorkspaceMember(_), _) => false,
    }
}

impl Operations<'_> {
    /// Creates a token for REST and the console.
    pub(crate) async fn create_admin_token(
        &self,
        principal: &Principal,
        request: CreateAdminToken,
    ) -> Result<WithSecret<AdminToken>, OperationError> {
        let CreateAdminToken { name: Name(name), role: RequestedRole(role), expiration } = request;
        if !includes(principal.role(), role) {
            return Err(OperationError::RoleNotIncluded);
        }
        let secret = self.entropy.secret(&Kind::AdminToken)?;
        let id = self.entropy.id(self.clock)?;
        let new = NewAdminToken { id, name, role, expires_at: expiration.0, secret: NewSecret::from(&secret) };
        let changed = self.store.create_admin_token(new, principal.change_context(self.clock)).await?;
        Ok(WithSecret { changed, secret })
    }

    /// Lists the tokens within the principal's reach, oldest first.
    pub(crate) async fn list_admin_tokens(
        &self,
        principal: &Principal,
        fields: Fields,
    ) -> Result<CursorPage<AdminToken>, OperationError> {
        let (limit, after) = page_fields(fields)?;
        let page = self.store.list_admin_tokens(TokenQuery { limit, after }, principal.reach()).await?;
        Ok(CursorPage::new(page, |token| token.id))
    }

    /// Shows a token within the principal's reach.
    pub(crate) async fn admin_token(
        &self,
        principal: &Principal,
        id: AdminTokenId,
    ) -> Result<AdminToken, OperationError> {
        self.store.admin_token(id, principal.reach()).await.map_err(OperationError::about(Resource::Token))
    }

    /// Revokes a token within the principal's reach permanently.
    pub(crate) async fn revoke_admin_token(
        &self,
        principal: &Principal,
        id: AdminTokenId,
        precondition: Precondition,
    ) -> Result<AtRevision<()>, OperationError> {
        let context = principal.change_context(self.clock);
        let revoked = self.store.revoke_admin_token(id, principal.reach(), precondition, context).await;
        revoked.map_err(OperationError::about(Resource::Token))
    }
}
