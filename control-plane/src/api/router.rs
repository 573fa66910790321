//! All routes, and the middleware that requests pass through.

use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, delete, get, post};
use policy::protocol::{ACKNOWLEDGEMENTS_PATH, FEED_PATH, INSTANCE_PATH, PAGE_PATH, PREFIX, USAGE_PATH};
use tokio::time::{Instant, sleep_until};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{
    Api, admin_tokens, audit, edge_tokens, edges, enforcement, health, identify, keys, metrics, observe, openapi,
    panics, prefer, principal, request_id, workspaces,
};
use crate::console;
use crate::feed::{self, Feed};
use crate::pace::Pace;
use crate::problem::Problem;

/// The timeout of a REST request, without the time in which its client sends the body. The feed has its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the timeout is checked while a body arrives.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Longer timeouts, for routes that wait or process many keys.
const LONGER_TIMEOUTS: [(&str, Duration); 6] = [
    ("/v1/edges", Duration::from_secs(300)),
    ("/v1/enforcement", Duration::from_secs(90)),
    ("/v1/keys/import", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/import", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/deactivate-matching", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/delete-matching", Duration::from_secs(300)),
];

/// All routes under /v1, with their OpenAPI descriptions.
fn v1() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(workspaces::create, workspaces::list))
        .routes(routes!(workspaces::show, workspaces::update))
        .routes(routes!(keys::create::create, keys::list::list))
        .routes(routes!(keys::show::show, keys::update::update, keys::delete::delete))
        .routes(routes!(keys::rotate::rotate))
        .routes(routes!(keys::import::into_workspace))
        .routes(routes!(keys::import::into_each))
        .routes(routes!(keys::clean_up::deactivate))
        .routes(routes!(keys::clean_up::delete))
        .routes(routes!(keys::actions::activate))
        .routes(routes!(keys::actions::deactivate))
        .routes(routes!(keys::actions::end_overlap))
        .routes(routes!(keys::usage::usage))
        .routes(routes!(identify::identify))
        .routes(routes!(audit::list_workspace))
        .routes(routes!(audit::list_all))
        .routes(routes!(admin_tokens::create, admin_tokens::list))
        .routes(routes!(admin_tokens::show, admin_tokens::revoke))
        .routes(routes!(edge_tokens::create, edge_tokens::list))
        .routes(routes!(edge_tokens::show, edge_tokens::revoke))
        .routes(routes!(edges::list, edges::remove_dead))
        .routes(routes!(edges::remove))
        .routes(routes!(enforcement::show))
}

/// The same without the descriptions. Built once per process, because the descriptions take milliseconds.
static V1: LazyLock<Router<Api>> = LazyLock::new(|| v1().split_for_parts().0);

/// Routes outside of /v1 that need a token.
fn guarded() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(metrics::show))
}

/// Routes that need no token.
fn open() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(health::alive)).routes(routes!(health::ready)).routes(routes!(openapi::show))
}

/// The OpenAPI document of all routes except the feed's, as their handlers describe them.
pub(super) fn openapi_document() -> utoipa::openapi::OpenApi {
    open().nest("/v1", v1()).merge(guarded()).into_openapi()
}

/// REST, the console and the feed at one address.
pub fn router(api: Api, feed: Feed) -> Router {
    catching_panics(admins(&api).nest(PREFIX, edge(feed)), &api)
}

/// REST and the console, for an address without the feed.
pub fn rest(api: &Api) -> Router {
    catching_panics(admins(api), api)
}

/// The feed and health probes, for an address that serves only edges.
pub fn edge_router(api: &Api, feed: Feed) -> Router {
    let health = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready_for_edges))
        .layer(from_fn(with_timeout))
        .with_state(feed.clone());
    let router = Router::new().merge(health).nest(PREFIX, edge(feed));
    catching_panics(router.fallback(unknown_path).method_not_allowed_fallback(method_not_allowed), api)
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

fn admins(api: &Api) -> Router {
    let v1 = V1.clone().fallback(unknown_path).method_not_allowed_fallback(method_not_allowed);
    let (guarded, _) = guarded().split_for_parts();
    // `nest` leaves this one path out.
    let guarded = guarded.route("/v1/", any(unknown_path));
    let (open, _) = open().split_for_parts();
    Router::new()
        .nest("/v1", with_authentication(v1, api))
        .merge(with_authentication(guarded, api))
        .merge(open.layer(from_fn(with_timeout)))
        .merge(console::router(api))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api.clone())
}

/// The middleware of REST requests that need a token. The last layer runs first.
fn with_authentication(routes: Router<Api>, api: &Api) -> Router<Api> {
    routes
        // Before the others that refuse: a client without a token learns neither which paths exist nor what is wrong
        // with a body.
        .layer(from_fn_with_state(api.clone(), principal::authenticate))
        .layer(from_fn(forbid_caching))
        .layer(from_fn(with_timeout))
        // Here as well, so that metrics and the log record the response.
        .layer(from_fn_with_state(api.clone(), panics::catch))
        .layer(from_fn_with_state(api.clone(), observe::observe))
        // Outside of both: the timeout and the metrics exclude the time that edges take.
        .layer(from_fn_with_state(api.clone(), prefer::wait))
        .layer(from_fn_with_state(api.clone(), request_id::assign))
}

async fn unknown_path() -> Problem {
    Problem::unknown_path()
}

async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}

/// Answers 503 if a request takes too long. The time in which its client sends the body isn't counted: it has its own
/// deadlines.
pub(crate) async fn with_timeout(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let longer = LONGER_TIMEOUTS.iter().find(|(own, _)| route == Some(own)).map(|(_, limit)| *limit);
    let limit = longer.unwrap_or(REQUEST_TIMEOUT);
    let (pace, began) = (request.extensions().get::<Pace>().cloned(), Instant::now());
    let mut answer = pin!(next.run(request));
    loop {
        let now = Instant::now();
        let waited = pace.as_ref().map_or(Duration::ZERO, |pace| pace.waited(now));
        let until = began + limit + waited;
        if until <= now {
            return Problem::timeout().into_response();
        }
        // `until` moves with the clock while the request waits for its body.
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep_until(until.max(now + CHECK_INTERVAL)) => {}
        }
    }
}

/// Responses may contain a secret that is shown once, so no cache may store them.
async fn forbid_caching(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Extension;
    use tower::ServiceExt as _;

    use super::*;
    use crate::pace::PaceLimits;

    const LONG: Duration = Duration::from_secs(600);

    /// The status of a response if the client takes `waits` to send its body, and the handler then takes `works`.
    async fn status(waits: Duration, works: Duration) -> u16 {
        let pace = Pace::new(PaceLimits { max_idle: LONG, max_lag: LONG });
        let handler = move |Extension(pace): Extension<Pace>| async move {
            pace.start_wait(Instant::now());
            tokio::time::sleep(waits).await;
            pace.received(Instant::now(), 1);
            tokio::time::sleep(works).await;
        };
        let router = Router::new().route("/", get(handler)).layer(from_fn(with_timeout));
        let request = Request::get("/").extension(pace).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_excludes_the_time_in_which_the_client_sends_its_body() {
        let (short, almost) = (Duration::from_secs(1), REQUEST_TIMEOUT - Duration::from_secs(1));
        for (waits, works, expected) in
            [(short, almost, 200), (LONG, almost, 200), (short, LONG, 503), (LONG, REQUEST_TIMEOUT + short, 503)]
        {
            assert_eq!(status(waits, works).await, expected, "{waits:?} for the client, then {works:?}");
        }
    }
}
