//! DELETE /edge/v1/instances/{instance}: an instance retires.

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::Feed;
use crate::web::problem::Problem;

pub(crate) async fn retire(
    State(feed): State<Feed>,
    path: RawPathParams,
    request: Parts,
) -> Result<StatusCode, Problem> {
    let presented = feed.presented_token(&request)?;
    let instance = path.iter().find(|(own, _)| *own == "instance").map(|(_, value)| value).unwrap_or_default();
    let edge = feed.edges.edge_of(instance);
    let access = feed.admit(presented, edge.as_deref().map(|edge| (edge, instance))).await?;
    let edge = edge.ok_or_else(Problem::unknown_instance)?;
    access.covers(&edge)?;
    feed.edges.retire(instance).await?;
    Ok(StatusCode::NO_CONTENT)
}
