//! Path parameters, except the workspace.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use policy::{AdminTokenId, EdgeTokenId, KeyId};

use super::Api;
use crate::web::problem::Problem;

/// `{key}`. The store checks that it exists.
pub(crate) struct KeyInPath(pub(crate) KeyId);

/// `{token}`, of an admin. The store checks that it exists.
pub(crate) struct AdminTokenInPath(pub(crate) AdminTokenId);

/// `{token}`, of an edge. The store checks that it exists.
pub(crate) struct EdgeTokenInPath(pub(crate) EdgeTokenId);

/// `{instance}`. `Edges` checks that it exists.
pub(crate) struct InstanceInPath(pub(crate) String);

impl FromRequestParts<Api> for InstanceInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        parameter(parts, api, "instance").await.map(Self).ok_or_else(Problem::unknown_instance)
    }
}

impl FromRequestParts<Api> for KeyInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let text = parameter(parts, api, "key").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or_else(Problem::unknown_key)
    }
}

impl FromRequestParts<Api> for AdminTokenInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let text = parameter(parts, api, "token").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or_else(Problem::unknown_token)
    }
}

impl FromRequestParts<Api> for EdgeTokenInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let text = parameter(parts, api, "token").await;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or_else(Problem::unknown_token)
    }
}

/// The text of a parameter of the path; `None` when it is not UTF-8.
pub(crate) async fn parameter(parts: &mut Parts, api: &Api, name: &str) -> Option<String> {
    let parameters = RawPathParams::from_request_parts(parts, api).await.ok()?;
    parameters.iter().find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}
