//! Probes: whether the process runs, and whether it can serve.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Api;
use crate::problem::Problem;

/// GET /healthz
pub(super) async fn alive() -> impl IntoResponse {
    told("{\"status\":\"ok\"}\n")
}

/// GET /readyz: the store reads and writes.
pub(super) async fn ready(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    api.store.ready().await?;
    Ok(told("{\"status\":\"ready\"}\n"))
}

fn told(body: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
}
