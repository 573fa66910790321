//! Access log and metrics of each request.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::Api;
use super::principal::ActorId;
use super::request_id::RequestId;

/// Logs the route as the router has it, the actor and the request id; never the path, query, other headers or a body.
pub(crate) async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let request_id = request.extensions().get().map(|RequestId(id)| id.clone()).unwrap_or_default();
    let response = next.run(request).await;
    let actor = response.extensions().get().map_or("none", |ActorId(id)| id.as_str());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let (status, elapsed) = (response.status().as_u16(), began.elapsed());
    api.metrics.record_request(&method, route, status, elapsed);
    let elapsed_ms = elapsed.as_millis();
    tracing::info!(%method, route, status, elapsed_ms, actor, request_id, "request");
    response
}
