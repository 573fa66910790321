//! Health probes: liveness and readiness.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::query::QueryFields;
use crate::feed::Feed;
use crate::operations::fields::InvalidValue;
use crate::operations::values;
use crate::store::Store;
use crate::web::problem::Problem;

/// The health of the control plane.
#[derive(Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// What a readiness probe checks.
#[derive(Clone, Copy)]
enum ReadyFor {
    Changes,
    Edges,
}

/// Answers as long as the process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "get_healthz",
    responses((status = 200, description = "The process runs", body = Health))
)]
pub(crate) async fn alive() -> impl IntoResponse {
    json(&Health { status: "ok" })
}

/// Answers when changes are accepted, or when edges are served.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readyz",
    params((
        "for" = Option<String>,
        Query,
        description = "`changes`: whether changes are accepted, the default at `--listen`. `edges`: whether the feed is \
                       served, which continues while changes are refused: for a load balancer of edges, and the default at \
                       `--edge-listen`"
    )),
    responses((status = 200, description = "It is ready", body = Health))
)]
pub(super) async fn ready(State(api): State<Api>, query: QueryFields) -> Result<impl IntoResponse, Problem> {
    respond(&api.store, query, ReadyFor::Changes).await
}

/// Readiness at an address that serves only edges.
pub(crate) async fn ready_for_edges(
    State(feed): State<Feed>,
    query: QueryFields,
) -> Result<impl IntoResponse, Problem> {
    respond(feed.store(), query, ReadyFor::Edges).await
}

async fn respond(
    store: &Store,
    QueryFields(mut fields): QueryFields,
    default: ReadyFor,
) -> Result<impl IntoResponse + use<>, Problem> {
    let requested = fields.optional("for", |value| match values::string(value)?.as_str() {
        "changes" => Ok(ReadyFor::Changes),
        "edges" => Ok(ReadyFor::Edges),
        _ => Err(InvalidValue::new("unknown-value", "must be `changes` or `edges`")),
    });
    fields.finish(|| Some(()))?;
    match requested.unwrap_or(default) {
        ReadyFor::Changes => store.ready().await?,
        ReadyFor::Edges => store.feed_ready().await?,
    }
    Ok(json(&Health { status: "ready" }))
}

fn json(health: &Health) -> impl IntoResponse + use<> {
    let body = format!("{}\n", serde_json::to_string(health).unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
}
