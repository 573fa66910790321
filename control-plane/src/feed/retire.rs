//! DELETE /edge/v1/instances/{instance}: an instance retires.

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::Feed;
use super::access::PresentedToken;
use crate::web::auth_failures::address;
use crate::web::problem::Problem;

pub(crate) async fn retire(
    State(feed): State<Feed>,
    path: RawPathParams,
    request: Parts,
) -> Result<StatusCode, Problem> {
    let presented = feed.presented_token(&request)?;
    let instance = path.iter().find(|(own, _)| *own == "instance").map(|(_, value)| value).unwrap_or_default();
    let edge = feed.edges.edge_of(instance);
    let access = match (presented, &edge) {
        (PresentedToken::Live(access), _) => access,
        (PresentedToken::Revoked(revoked), Some(edge)) => {
            return Err(feed.refuse_revoked(revoked, edge, instance).await);
        }
        (PresentedToken::Revoked(_), None) => return Err(feed.bad_token(address(&request.extensions))),
    };
    let edge = edge.ok_or_else(Problem::unknown_instance)?;
    access.covers(&edge)?;
    feed.edges.retire(instance).await?;
    Ok(StatusCode::NO_CONTENT)
}
