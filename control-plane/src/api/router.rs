//! Every route there is, and what each request goes through before it.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::principal::ActorId;
use super::request_id::{self, RequestId};
use super::{Api, admin_tokens, audit, edge_tokens, health, identify, keys, principal, workspaces};
use crate::feed::{self, Feed};
use crate::problem::Problem;

/// The longest a request of REST may take, its body included. The feed waits by its own rules.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Every route of REST, each with its place in the document of all routes.
fn v1() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(workspaces::create, workspaces::list))
        .routes(routes!(workspaces::show, workspaces::update))
        .routes(routes!(keys::create::create, keys::list::list))
        .routes(routes!(keys::show::show, keys::update::update, keys::delete::delete))
        .routes(routes!(keys::rotate::rotate))
        .routes(routes!(keys::actions::activate))
        .routes(routes!(keys::actions::deactivate))
        .routes(routes!(keys::actions::end_overlap))
        .routes(routes!(identify::identify))
        .routes(routes!(audit::of_workspace))
        .routes(routes!(audit::of_all))
        .routes(routes!(admin_tokens::create, admin_tokens::list))
        .routes(routes!(admin_tokens::show, admin_tokens::revoke))
        .routes(routes!(edge_tokens::create, edge_tokens::list))
        .routes(routes!(edge_tokens::show, edge_tokens::revoke))
}

/// Method and path of every route of REST, as `GET /v1/workspaces/{workspace}`. For tests that must leave none out.
pub fn rest_routes() -> Vec<String> {
    let document = v1().into_openapi();
    let mut routes = Vec::new();
    for (path, item) in document.paths.paths {
        let operations =
            [("GET", item.get), ("POST", item.post), ("PUT", item.put), ("PATCH", item.patch), ("DELETE", item.delete)];
        routes.extend(operations.into_iter().filter_map(|(method, it)| it.map(|_| format!("{method} /v1{path}"))));
    }
    routes
}

/// The whole service.
pub fn router(api: Api, feed: Feed) -> Router {
    let (v1, _) = v1().split_for_parts();
    let v1 = v1
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        // Outermost: who isn't known learns neither which paths there are nor what is wrong with a body.
        .layer(from_fn_with_state(api.clone(), principal::authenticate))
        .layer(from_fn(keep_to_yourself))
        .layer(from_fn(in_time))
        .layer(from_fn(log))
        .layer(from_fn_with_state(api.clone(), request_id::assign));
    let health = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .layer(from_fn(in_time));
    let edge = Router::new()
        .route("/feed", get(feed::poll))
        .route("/snapshots/{epoch}/{revision}/{page}", get(feed::page))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(feed);
    Router::new()
        .nest("/v1", v1)
        // `nest` leaves this one path out.
        .route("/v1/", any(unknown_path).layer(from_fn_with_state(api.clone(), principal::authenticate)))
        .merge(health)
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
        .nest("/edge/v1", edge)
}

async fn unknown_path() -> Problem {
    Problem::unknown_path()
}

async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}

async fn in_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(REQUEST_TIME, next.run(request)).await.unwrap_or_else(|_| Problem::timeout().into_response())
}

/// Answers may hold a secret that is shown once: no cache may keep them.
async fn keep_to_yourself(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// One line a request: the route as it stands above, who, and the request's name; never the path, the query, another header
/// or a body.
async fn log(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let request_id = request.extensions().get().map(|RequestId(id)| id.clone()).unwrap_or_default();
    let response = next.run(request).await;
    let actor = response.extensions().get().map_or("none", |ActorId(id)| id.as_str());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let elapsed_ms = began.elapsed().as_millis();
    let status = response.status().as_u16();
    tracing::info!(%method, route, status, elapsed_ms, actor, request_id, "request");
    response
}
