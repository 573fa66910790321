//! GET /metrics: the control plane's metrics.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Api;
use super::authority::Platform;
use crate::operations::permissions::may;
use crate::web::problem::Problem;

/// The media type that Prometheus requests.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Shows the control plane's metrics in OpenMetrics format, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn show(State(api): State<Api>, _: Platform<may::ReadMetrics>) -> Result<impl IntoResponse, Problem> {
    let text = api.metrics.text().map_err(|cause| {
        tracing::error!(%cause, "the metrics can't be written");
        Problem::fault()
    })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text))
}
