//! Probes: whether the process runs, and whether it can serve.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Api;
use super::requests::Health;
use crate::problem::Problem;

/// Answers while the process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "get_healthz",
    responses((status = 200, description = "It runs", body = Health))
)]
pub(super) async fn alive() -> impl IntoResponse {
    told("{\"status\":\"ok\"}\n")
}

/// Answers when the store reads and writes.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readyz",
    responses((status = 200, description = "It can serve", body = Health))
)]
pub(super) async fn ready(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    api.store.ready().await?;
    Ok(told("{\"status\":\"ready\"}\n"))
}

fn told(body: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
}
