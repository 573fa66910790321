//! Health probes: liveness and readiness.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Api;
use super::fields::{QueryFields, Refused};
use super::requests::Health;
use super::values;
use crate::feed::Feed;
use crate::problem::Problem;
use crate::store::Store;

/// What a readiness probe is about.
#[derive(Clone, Copy)]
enum For {
    Changes,
    Edges,
}

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

/// Answers when changes are taken, or when edges are served.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readyz",
    params((
        "for" = Option<String>,
        Query,
        description = "`changes`: whether changes are taken, the default at `--listen`. `edges`: whether the feed is served, which \
                       goes on while changes are refused: for a load balancer in front of edges, and the default at `--edge-listen`"
    )),
    responses((status = 200, description = "It can serve", body = Health))
)]
pub(super) async fn ready(State(api): State<Api>, query: QueryFields) -> Result<impl IntoResponse, Problem> {
    answer(&api.store, query, For::Changes).await
}

/// Readiness at an address that serves only edges.
pub(super) async fn ready_for_edges(
    State(feed): State<Feed>,
    query: QueryFields,
) -> Result<impl IntoResponse, Problem> {
    answer(feed.store(), query, For::Edges).await
}

async fn answer(
    store: &Store,
    QueryFields(mut fields): QueryFields,
    default: For,
) -> Result<impl IntoResponse + use<>, Problem> {
    let asked = fields.optional("for", |value| match values::string(value)?.as_str() {
        "changes" => Ok(For::Changes),
        "edges" => Ok(For::Edges),
        _ => Err(Refused::new("unknown-value", "must be `changes` or `edges`")),
    });
    fields.finish(|| Some(()))?;
    match asked.unwrap_or(default) {
        For::Changes => store.ready().await?,
        For::Edges => store.feed_ready().await?,
    }
    Ok(told("{\"status\":\"ready\"}\n"))
}

fn told(body: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
}
