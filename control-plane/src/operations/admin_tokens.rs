//! Admin tokens: create, show and revoke. A new one never exceeds its creator's role or lifetime.

use policy::key_text::Kind;
use policy::{AdminTokenId, Allowlist};
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema};

use super::choice::{Choice as _, choice};
use super::cursor::{CursorPage, page_fields};
use super::expiration::TokenExpiration;
use super::field_types::Name;
use super::fields::{Fields, InvalidValue};
use super::permissions::includes;
use super::principal::Principal;
use super::request::{
    BodyField, BodyValue, NamedSchemas, OrNull, RequestContext, WorkspaceOfRequest, or_null, reference, request_body,
};
use super::{OperationError, Operations, Resource, WithSecret};
use crate::store::{
    AdminToken, AtRevision, MayMake, NewAdminToken, NewSecret, Precondition, Role, RoleName, TokenQuery,
};

choice!("What a token may do.", RoleName as "RoleName", "unknown-role", RoleName::NAMES);

request_body! {
    /// An admin token to create.
    pub(crate) struct CreateAdminToken {
        pub(crate) name: Name,
        /// Id or slug, for the roles of a workspace. A workspace admin may leave it out.
        pub(crate) role: RequestedRole,
        /// By default a token expires with the one that created it. At most one of this and `expires_at`.
        pub(crate) expiration: TokenExpiration,
        /// Addresses and CIDR ranges that the token may be used from, within those of its creator's, the default.
        pub(crate) ip_allowlist: TokenAllowlist,
        /// The roles that it may give to tokens that it creates; `null`, the default unless its creator's are limited:
        /// all that its role includes.
        pub(crate) may_make: RequestedRoles,
    }
}

/// The addresses of a new token, within its creator's.
pub(crate) struct TokenAllowlist(Allowlist);

/// The roles that a new token may give, among those that its creator may.
pub(crate) struct RequestedRoles(MayMake);

impl BodyField for TokenAllowlist {
    fn take(fields: &mut Fields, name: &str, context: &RequestContext<'_>) -> Option<Self> {
        let own = context.principal.allowlist();
        let requested = <Option<Allowlist> as BodyField>::take(fields, name, context)?;
        let requested = requested.unwrap_or_else(|| own.clone());
        if requested.is_within(own) {
            return Some(Self(requested));
        }
        let message = "allows addresses that your own token doesn't; list only some of its networks";
        fields.refuse(name, InvalidValue::new("beyond-own", message));
        None
    }

    fn describe(name: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        <Option<Allowlist> as BodyField>::describe(name, description, body)
    }

    fn schemas(_: &mut NamedSchemas) {}
}

impl BodyField for RequestedRoles {
    fn take(fields: &mut Fields, name: &str, context: &RequestContext<'_>) -> Option<Self> {
        let own = context.principal.may_make();
        let requested = <Option<MayMake> as BodyField>::take(fields, name, context)?;
        let requested = requested.unwrap_or_else(|| own.clone());
        if requested.is_within(own) {
            return Some(Self(requested));
        }
        fields.refuse(name, InvalidValue::new("beyond-own", "has roles that your own token may not give"));
        None
    }

    fn describe(name: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        <Option<MayMake> as BodyField>::describe(name, description, body)
    }

    fn schemas(schemas: &mut NamedSchemas) {
        <Option<MayMake> as BodyField>::schemas(schemas);
    }
}

/// `null`, or a list of roles.
impl BodyValue for MayMake {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        let names = match value {
            Value::Null => return Ok(Self::Any),
            Value::Array(names) => names,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                return Err(InvalidValue::new("wrong-type", "must be null, or a list of roles"));
            }
        };
        names.into_iter().map(RoleName::from_value).collect::<Result<_, _>>().map(Self::Only)
    }

    fn schema() -> RefOr<Schema> {
        let mut roles = ArrayBuilder::new().items(reference::<RoleName>()).build();
        roles.schema_type = or_null(roles.schema_type);
        Schema::Array(roles).into()
    }

    fn schemas(schemas: &mut NamedSchemas) {
        <RoleName as BodyValue>::schemas(schemas);
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
        let CreateAdminToken { name: Name(name), role: RequestedRole(role), expiration, ip_allowlist, may_make } =
            request;
        if !includes(principal.role(), role) || !principal.may_make().includes(role.name()) {
            return Err(OperationError::RoleNotIncluded);
        }
        let secret = self.entropy.secret(&Kind::AdminToken)?;
        let id = self.entropy.id(self.clock)?;
        let new = NewAdminToken {
            id,
            name,
            role,
            allowlist: ip_allowlist.0,
            may_make: may_make.0,
            expires_at: expiration.0,
            secret: NewSecret::from(&secret),
        };
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
