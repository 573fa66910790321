//! Admin tokens: create, show and revoke. A new one never exceeds its creator's role or lifetime.

use policy::AdminTokenId;
use policy::key_text::Kind;
use utoipa::openapi::schema::ObjectBuilder;

use super::choice::{Choice as _, choice};
use super::cursor::{CursorPage, page_fields};
use super::expiration::TokenExpiration;
use super::field_types::Name;
use super::fields::{Fields, InvalidValue};
use super::permissions::includes;
use super::principal::Principal;
use super::request::{BodyField, NamedSchemas, OrNull, RequestContext, WorkspaceOfRequest, request_body};
use super::{OperationError, Operations, Resource, WithSecret};
use crate::store::{AdminToken, AtRevision, NewAdminToken, NewSecret, Precondition, Role, RoleName, TokenQuery};

choice!("What a token may do.", RoleName as "RoleName", "unknown-role", RoleName::NAMES);

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
    if !role.is_of_workspace() && names_workspace {
        let message = format!("belongs to the roles of a workspace; leave it out for a {}", role.as_str());
        return Err(InvalidValue::new("ambiguous", message));
    }
    let workspace = match (context.workspace, names_workspace) {
        _ if !role.is_of_workspace() => None,
        (WorkspaceOfRequest::Body(Some(found)), true) => Some(found),
        (WorkspaceOfRequest::Body(None) | WorkspaceOfRequest::Path(_), true) => {
            return Err(InvalidValue::new("unknown-workspace", "is not a workspace that you may see"));
        }
        (_, false) => context.principal.reach(),
    };
    let message = "is required for this role: a workspace's id or slug";
    Role::new(role, workspace).ok_or_else(|| InvalidValue::new("required", message))
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
