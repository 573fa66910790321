//! Authorization: one extractor for each required role, so that handlers need no checks.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Api;
use super::path::parameter;
use crate::operations::principal::{InWorkspace, Principal};
use crate::operations::values::workspace_name;
use crate::store::{Role, StoreError};
use crate::web::problem::Problem;

/// A platform admin.
pub(crate) struct PlatformAdmin(pub(crate) Principal);

/// An admin of the platform or of a workspace.
pub(crate) struct AnyAdmin(pub(crate) Principal);

/// A principal that may see the workspace of the path: its members and admins, and platform admins.
pub(crate) struct MemberOf(pub(crate) InWorkspace);

/// A principal that may change the workspace of the path: its admins, and platform admins.
pub(crate) struct AdminOf(pub(crate) InWorkspace);

impl FromRequestParts<Api> for PlatformAdmin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, api).await?;
        match principal.role() {
            Role::PlatformAdmin => Ok(Self(principal)),
            Role::WorkspaceAdmin(_) | Role::WorkspaceMember(_) => Err(Problem::forbidden("a platform admin's token")),
        }
    }
}

impl FromRequestParts<Api> for AnyAdmin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, api).await?;
        match principal.role() {
            Role::PlatformAdmin | Role::WorkspaceAdmin(_) => Ok(Self(principal)),
            Role::WorkspaceMember(_) => Err(Problem::forbidden("an admin's token")),
        }
    }
}

impl FromRequestParts<Api> for MemberOf {
    type Rejection = Problem;

    /// The response is the same for a workspace that doesn't exist and one that is out of the principal's reach.
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, api).await?;
        let text = parameter(parts, api, "workspace").await.ok_or_else(Problem::unknown_workspace)?;
        let workspace = match api.store.workspace(workspace_name(&text)).await {
            Ok(workspace) => workspace,
            Err(StoreError::NotFound) => return Err(Problem::unknown_workspace()),
            Err(error) => return Err(error.into()),
        };
        match principal.role() {
            Role::PlatformAdmin => {}
            Role::WorkspaceAdmin(own) | Role::WorkspaceMember(own) if own == workspace.id => {}
            Role::WorkspaceAdmin(_) | Role::WorkspaceMember(_) => return Err(Problem::unknown_workspace()),
        }
        Ok(Self(InWorkspace { principal, workspace }))
    }
}

impl FromRequestParts<Api> for AdminOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let MemberOf(at) = MemberOf::from_request_parts(parts, api).await?;
        match at.principal.role() {
            Role::PlatformAdmin | Role::WorkspaceAdmin(_) => Ok(Self(at)),
            Role::WorkspaceMember(_) => Err(Problem::forbidden("a token of an admin of this workspace")),
        }
    }
}
