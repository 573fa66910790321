//! The workspace and the key that a path names.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use policy::KeyId;

use super::Api;
use super::principal::Principal;
use crate::problem::Problem;
use crate::store::{StoreError, Workspace, WorkspaceName};

/// A principal in a workspace where it may act: `{workspace}`, by id or slug.
pub(super) struct InWorkspace {
    pub(super) principal: Principal,
    pub(super) workspace: Workspace,
}

/// `{key}`. Whether there is such a key is for the store to say.
pub(super) struct KeyInPath(pub(super) KeyId);

impl FromRequestParts<Api> for InWorkspace {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, api).await?;
        let text = parameter(parts, api, "workspace").await.ok_or_else(Problem::unknown_workspace)?;
        // No slug has an underscore, so an id is never taken for one.
        let name = text.parse().map_or(WorkspaceName::Slug(text), WorkspaceName::Id);
        match api.store.workspace(name).await {
            Ok(workspace) => Ok(Self { principal, workspace }),
            Err(StoreError::NotFound) => Err(Problem::unknown_workspace()),
            Err(error) => Err(error.into()),
        }
    }
}

impl FromRequestParts<Api> for KeyInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let text = parameter(parts, api, "key").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or_else(Problem::unknown_key)
    }
}

async fn parameter(parts: &mut Parts, api: &Api, name: &str) -> Option<String> {
    let parameters = RawPathParams::from_request_parts(parts, api).await.ok()?;
    parameters.iter().find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}
