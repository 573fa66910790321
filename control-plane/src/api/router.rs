//! Every route there is, and what each request goes through before it.

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

/// The longest a request of REST may take, without the time in which its client sends the body. The feed waits by its own rules.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// How exact that is.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Routes that may take longer, because they wait or take much, and how long.
const LONGER: [(&str, Duration); 6] = [
    ("/v1/edges", Duration::from_secs(300)),
    ("/v1/enforcement", Duration::from_secs(90)),
    ("/v1/keys/import", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/import", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/deactivate-matching", Duration::from_secs(300)),
    ("/v1/workspaces/{workspace}/keys/delete-matching", Duration::from_secs(300)),
];

/// Every route under /v1, each with its place in the document of all routes.
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
        .routes(routes!(audit::of_workspace))
        .routes(routes!(audit::of_all))
        .routes(routes!(admin_tokens::create, admin_tokens::list))
        .routes(routes!(admin_tokens::show, admin_tokens::revoke))
        .routes(routes!(edge_tokens::create, edge_tokens::list))
        .routes(routes!(edge_tokens::show, edge_tokens::revoke))
        .routes(routes!(edges::list, edges::remove_dead))
        .routes(routes!(edges::remove))
        .routes(routes!(enforcement::show))
}

/// The same, to be served: put together once in a process, for the document takes its time.
static V1: LazyLock<Router<Api>> = LazyLock::new(|| v1().split_for_parts().0);

/// Routes outside of /v1 that need a token.
fn guarded() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(metrics::show))
}

/// Routes that need no token.
fn open() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(health::alive)).routes(routes!(health::ready)).routes(routes!(openapi::show))
}

/// All routes but the feed's, as their handlers describe them.
pub(super) fn documented() -> utoipa::openapi::OpenApi {
    open().nest("/v1", v1()).merge(guarded()).into_openapi()
}

/// The whole service at one address.
pub fn router(api: Api, feed: Feed) -> Router {
    surviving(admins(&api).nest(PREFIX, edge(feed)), &api)
}

/// What admins need, for an address of their own.
pub fn rest(api: &Api) -> Router {
    surviving(admins(api), api)
}

/// What edges need, for an address of their own.
pub fn edge_router(api: &Api, feed: Feed) -> Router {
    let health = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready_for_edges))
        .layer(from_fn(in_time))
        .with_state(feed.clone());
    let router = Router::new().merge(health).nest(PREFIX, edge(feed));
    surviving(router.fallback(unknown_path).method_not_allowed_fallback(method_not_allowed), api)
}

/// Whatever panics in here: a request is answered.
fn surviving(router: Router, api: &Api) -> Router {
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
        .layer(map_response_with_state(feed.clone(), feed::timed))
        .with_state(feed)
}

fn admins(api: &Api) -> Router {
    let v1 = V1.clone().fallback(unknown_path).method_not_allowed_fallback(method_not_allowed);
    let (guarded, _) = guarded().split_for_parts();
    // `nest` leaves this one path out.
    let guarded = guarded.route("/v1/", any(unknown_path));
    let (open, _) = open().split_for_parts();
    Router::new()
        .nest("/v1", behind_a_token(v1, api))
        .merge(behind_a_token(guarded, api))
        .merge(open.layer(from_fn(in_time)))
        .merge(console::router(api))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api.clone())
}

/// What each request of an admin goes through, from the last to the first.
fn behind_a_token(routes: Router<Api>, api: &Api) -> Router<Api> {
    routes
        // Outermost of those that refuse: who isn't known learns neither which paths there are nor what is wrong with a body.
        .layer(from_fn_with_state(api.clone(), principal::authenticate))
        .layer(from_fn(keep_to_yourself))
        .layer(from_fn(in_time))
        // Here as well, so that the numbers and the log have the answer.
        .layer(from_fn_with_state(api.clone(), panics::catch))
        .layer(from_fn_with_state(api.clone(), observe::observe))
        // Outside of both: neither the limit nor the numbers are about how long edges take.
        .layer(from_fn_with_state(api.clone(), prefer::wait))
        .layer(from_fn_with_state(api.clone(), request_id::assign))
}

async fn unknown_path() -> Problem {
    Problem::unknown_path()
}

async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}

/// Answers 503 where a request takes too long. How long its client takes to send the body is not counted: that has deadlines of
/// its own.
pub(crate) async fn in_time(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let longer = LONGER.iter().find(|(own, _)| route == Some(own)).map(|(_, limit)| *limit);
    let limit = longer.unwrap_or(REQUEST_TIME);
    let (pace, began) = (request.extensions().get::<Pace>().cloned(), Instant::now());
    let mut answer = pin!(next.run(request));
    loop {
        let now = Instant::now();
        let waited = pace.as_ref().map_or(Duration::ZERO, |pace| pace.waited(now));
        let until = began + limit + waited;
        if until <= now {
            return Problem::timeout().into_response();
        }
        // While a body is waited for, `until` goes on with the clock.
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep_until(until.max(now + LOOK_AGAIN)) => {}
        }
    }
}

/// Answers may hold a secret that is shown once: no cache may keep them.
async fn keep_to_yourself(request: Request, next: Next) -> Response {
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
    use crate::pace::Slowest;

    const LONG: Duration = Duration::from_secs(600);

    /// The status of an answer for which the client is waited for so long, and the handler then works for so long.
    async fn status(waits: Duration, works: Duration) -> u16 {
        let pace = Pace::new(Slowest { still: LONG, behind: LONG });
        let handler = move |Extension(pace): Extension<Pace>| async move {
            pace.waits(Instant::now());
            tokio::time::sleep(waits).await;
            pace.received(Instant::now(), 1);
            tokio::time::sleep(works).await;
        };
        let router = Router::new().route("/", get(handler)).layer(from_fn(in_time));
        let request = Request::get("/").extension(pace).body(Body::empty()).unwrap();
        router.oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_request_is_without_the_client_s() {
        let (short, almost) = (Duration::from_secs(1), REQUEST_TIME - Duration::from_secs(1));
        for (waits, works, expected) in
            [(short, almost, 200), (LONG, almost, 200), (short, LONG, 503), (LONG, REQUEST_TIME + short, 503)]
        {
            assert_eq!(status(waits, works).await, expected, "{waits:?} for the client, then {works:?}");
        }
    }
}
