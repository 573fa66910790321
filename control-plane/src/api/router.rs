//! All routes of REST, and the middleware that its requests pass through.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::any;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{
    Api, admin_tokens, audit, edge_tokens, edges, enforcement, health, identify, keys, metrics, observe, openapi,
    panics, prefer, principal, request_id, workspaces,
};
use crate::web::layers::{method_not_allowed, unknown_path, with_timeout};

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

/// REST, with its health probes and metrics; without a fallback, so that other routes can be added.
pub(crate) fn rest(api: &Api) -> Router<Api> {
    let v1 = V1.clone().fallback(unknown_path).method_not_allowed_fallback(method_not_allowed);
    let (guarded, _) = guarded().split_for_parts();
    // `nest` leaves this one path out.
    let guarded = guarded.route("/v1/", any(unknown_path));
    let (open, _) = open().split_for_parts();
    Router::new()
        .nest("/v1", with_authentication(v1, api))
        .merge(with_authentication(guarded, api))
        .merge(open.layer(from_fn(with_timeout)))
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

/// Responses may contain a secret that is shown once, so no cache may store them.
async fn forbid_caching(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
