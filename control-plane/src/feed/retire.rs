//! DELETE /edge/v1/instances/{instance}: an instance says that it leaves.

use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::Feed;
use crate::problem::Problem;

pub(crate) async fn retire(
    State(feed): State<Feed>,
    path: RawPathParams,
    request: Parts,
) -> Result<StatusCode, Problem> {
    let access = feed.access(&request)?;
    let instance = path.iter().find(|(own, _)| *own == "instance").map(|(_, value)| value).unwrap_or_default();
    let edge = feed.edges.edge_of(instance).ok_or_else(Problem::unknown_instance)?;
    access.covers(&edge)?;
    feed.edges.retire(instance).await?;
    Ok(StatusCode::NO_CONTENT)
}
