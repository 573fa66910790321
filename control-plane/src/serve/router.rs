//! All that one address serves: REST, the console and the feed, or some of them.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_response_with_state};
use axum::routing::{delete, get, post};
use policy::protocol::{ACKNOWLEDGEMENTS_PATH, FEED_PATH, INSTANCE_PATH, PAGE_PATH, PREFIX, USAGE_PATH};

use crate::api::{self, Api, health, panics};
use crate::console;
use crate::feed::{self, Feed};
use crate::web::layers::{method_not_allowed, unknown_path, with_timeout};

/// REST, the console and the feed at one address.
pub(super) fn router(api: Api, feed: Feed) -> Router {
    catching_panics(admins(&api).nest(PREFIX, edge(feed)), &api)
}

/// REST and the console, for an address without the feed.
pub(super) fn rest(api: &Api) -> Router {
    catching_panics(admins(api), api)
}

/// The feed and health probes, for an address that serves only edges.
pub(super) fn edge_router(api: &Api, feed: Feed) -> Router {
    let health = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready_for_edges))
        .layer(from_fn(with_timeout))
        .with_state(feed.clone());
    let router = Router::new().merge(health).nest(PREFIX, edge(feed));
    catching_panics(router.fallback(unknown_path).method_not_allowed_fallback(method_not_allowed), api)
}

fn admins(api: &Api) -> Router {
    let router = api::router::rest(api).merge(console::router(api));
    router.fallback(unknown_path).method_not_allowed_fallback(method_not_allowed).with_state(api.clone())
}

/// Answers each request, even if its handler panics.
fn catching_panics(router: Router, api: &Api) -> Router {
    router.layer(from_fn_with_state(api.clone(), panics::catch))
}

/// The protocol's routes, to be nested under its [`PREFIX`].
fn edge(feed: Feed) -> Router {
    let nested = |path: &'static str| path.strip_prefix(PREFIX).unwrap_or(path);
    Router::new()
        .route(nested(FEED_PATH), get(feed::poll))
        .route(nested(ACKNOWLEDGEMENTS_PATH), post(feed::acknowledge))
        .route(nested(USAGE_PATH), post(feed::usage))
        .route(nested(INSTANCE_PATH), delete(feed::retire))
        .route(nested(PAGE_PATH), get(feed::page))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(map_response_with_state(feed.clone(), feed::add_time_header))
        .with_state(feed)
}
