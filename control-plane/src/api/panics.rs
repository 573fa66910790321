//! A panic in a handler becomes a response, a metric and a log line.

use std::panic::{AssertUnwindSafe, catch_unwind};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;

use super::{Api, request_id};
use crate::web::problem::Problem;

/// Answers a panic with 500 `internal` and the request id. No change is left half done: it is one transaction, and
/// locks ignore poisoning.
pub(crate) async fn catch(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = request_id::from_request(&request);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    if let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await {
        return response;
    }
    api.metrics.record_panic();
    // Generating an id may be what panics.
    let generated = || catch_unwind(AssertUnwindSafe(|| request_id::generate(&api))).unwrap_or_default();
    let request_id = id.unwrap_or_else(generated);
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    tracing::error!(%method, route, request_id, "a handler panicked; the line before has the place: please report it");
    let mut response = Problem::panicked().into_response();
    request_id::set_header(&mut response, request_id);
    response
}
