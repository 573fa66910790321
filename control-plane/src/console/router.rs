//! The routes of all pages, with the layers around them.

use axum::Router;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use super::{
    admin_tokens, assets, audit, edge_tokens, edges, enforcement, headers, home, identify, keys, problems, session,
    sign_in, workspaces,
};
use crate::api::{Api, observe, panics, request_id};
use crate::web::layers::with_timeout;
use crate::web::problem::Problem;

/// Pages that need a session.
fn session_routes() -> Router<Api> {
    Router::new()
        .route("/console", get(home::show))
        .route("/console/sign-out", post(sign_in::sign_out))
        .route("/console/sign-out-everywhere", post(sign_in::sign_out_everywhere))
        .route("/console/workspaces", get(workspaces::list).post(workspaces::create))
        .route("/console/workspaces/new", get(workspaces::new))
        .route("/console/workspaces/{workspace}", get(workspaces::show).post(workspaces::rename))
        .route("/console/workspaces/{workspace}/keys", get(keys::list::show).post(keys::new::create))
        .route("/console/workspaces/{workspace}/keys/new", get(keys::new::show))
        .route("/console/workspaces/{workspace}/keys/{key}", get(keys::show::show))
        .route("/console/workspaces/{workspace}/keys/{key}/edit", get(keys::edit::show).post(keys::edit::save))
        .route("/console/workspaces/{workspace}/keys/{key}/rotate", get(keys::rotate::show).post(keys::rotate::rotate))
        .route("/console/workspaces/{workspace}/keys/{key}/rotation", get(keys::rotation::fragment))
        .route("/console/workspaces/{workspace}/keys/{key}/end-overlap", post(keys::state::end_overlap))
        .route("/console/workspaces/{workspace}/keys/{key}/activate", post(keys::state::activate))
        .route(
            "/console/workspaces/{workspace}/keys/{key}/deactivate",
            get(keys::state::confirm_deactivate).post(keys::state::deactivate),
        )
        .route("/console/workspaces/{workspace}/keys/{key}/delete", get(keys::delete::show).post(keys::delete::delete))
        .route("/console/workspaces/{workspace}/audit", get(audit::show_workspace))
        .route("/console/workspaces/{workspace}/audit/export", get(audit::export_workspace))
        .route("/console/audit", get(audit::show_all))
        .route("/console/audit/export", get(audit::export_all))
        .route("/console/identify", get(identify::show).post(identify::find))
        .route("/console/admin-tokens", get(admin_tokens::list).post(admin_tokens::create))
        .route("/console/admin-tokens/new", get(admin_tokens::new))
        .route("/console/admin-tokens/{token}/revoke", get(admin_tokens::confirm_revoke).post(admin_tokens::revoke))
        .route("/console/edge-tokens", get(edge_tokens::list).post(edge_tokens::create))
        .route("/console/edge-tokens/new", get(edge_tokens::new))
        .route("/console/edge-tokens/{token}/revoke", get(edge_tokens::confirm_revoke).post(edge_tokens::revoke))
        .route("/console/edges", get(edges::show))
        .route("/console/edges/{instance}/remove", get(edges::confirm_remove).post(edges::remove))
        .route("/console/enforcement", get(enforcement::fragment))
        .route("/console/{*rest}", get(unknown_path).post(unknown_path))
}

/// Pages that need no session.
fn public_routes() -> Router<Api> {
    Router::new()
        .route("/", get(redirect_to_console))
        .route("/console/", get(redirect_to_console))
        .route("/console/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/console/sign-in/check", get(sign_in::check))
        .route("/console/assets/{file}", get(assets::show))
}

/// The whole console.
pub(crate) fn router(api: &Api) -> Router<Api> {
    let with_session = session_routes()
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn(problems::render_problems))
        // Outside of the routes: clients without a session don't even learn which pages exist.
        .layer(from_fn_with_state(api.clone(), session::require_session));
    let without_session =
        public_routes().method_not_allowed_fallback(method_not_allowed).layer(from_fn(problems::render_problems));
    with_session
        .merge(without_session)
        .layer(from_fn(with_timeout))
        .layer(from_fn_with_state(api.clone(), panics::catch))
        // Again, for problems that the layers in between return.
        .layer(from_fn(problems::render_problems))
        .layer(from_fn(headers::add))
        .layer(from_fn_with_state(api.clone(), observe::observe))
        .layer(from_fn_with_state(api.clone(), request_id::assign))
}

async fn redirect_to_console() -> Response {
    let location = [(HeaderName::from_static("location"), HeaderValue::from_static("/console"))];
    (axum::http::StatusCode::SEE_OTHER, location).into_response()
}

async fn unknown_path() -> Problem {
    Problem::unknown_path()
}

async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}
