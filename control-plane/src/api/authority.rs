//! Authorization: an extractor names the permission that a handler needs, so that handlers need no checks.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Api;
use super::path::parameter;
use crate::operations::permissions::{Needed, Permission};
use crate::operations::principal::{InWorkspace, Principal};
use crate::operations::values::workspace_name;
use crate::store::StoreError;
use crate::web::problem::Problem;

/// A principal with the permission `P` for the whole platform.
pub(crate) struct Platform<P>(pub(crate) Principal, pub(crate) PhantomData<P>);

/// A principal with the permission `P`, for the whole platform or in its own workspace.
pub(crate) struct Anywhere<P>(pub(crate) Principal, pub(crate) PhantomData<P>);

/// A principal with the permission `P` in the workspace of the path.
pub(crate) struct Within<P>(pub(crate) InWorkspace, pub(crate) PhantomData<P>);

fn require(principal: &Principal, permission: Permission) -> Result<(), Problem> {
    if principal.may(permission) { Ok(()) } else { Err(Problem::forbidden(permission.may())) }
}

impl<P: Needed> FromRequestParts<Api> for Platform<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Anywhere(principal, permission) = Anywhere::from_request_parts(parts, api).await?;
        match principal.reach() {
            None => Ok(Self(principal, permission)),
            Some(_) => Err(Problem::forbidden_in_workspace(P::PERMISSION.may())),
        }
    }
}

impl<P: Needed> FromRequestParts<Api> for Anywhere<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, api).await?;
        require(&principal, P::PERMISSION)?;
        Ok(Self(principal, PhantomData))
    }
}

impl<P: Needed> FromRequestParts<Api> for Within<P> {
    type Rejection = Problem;

    /// The response is the same for a workspace that doesn't exist and one that is out of the principal's reach.
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, api).await?;
        if principal.reach().is_none() {
            // Before the look-up: without the permission, a principal doesn't learn which workspaces exist.
            require(&principal, P::PERMISSION)?;
        }
        let text = parameter(parts, api, "workspace").await.ok_or_else(Problem::unknown_workspace)?;
        let workspace = match api.store.workspace(workspace_name(&text)).await {
            Ok(workspace) => workspace,
            Err(StoreError::NotFound) => return Err(Problem::unknown_workspace()),
            Err(error) => return Err(error.into()),
        };
        if principal.reach().is_some_and(|own| own != workspace.id) {
            return Err(Problem::unknown_workspace());
        }
        require(&principal, P::PERMISSION)?;
        Ok(Self(InWorkspace { principal, workspace }, PhantomData))
    }
}
