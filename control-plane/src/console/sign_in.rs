//! Signing in with an admin token, and signing out.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use policy::Digest;

use super::form::{SameOriginForm, VerifiedForm};
use super::page::{Frame, html, see_other};
use super::query::PageQuery;
use super::session::{self, ConsoleSession};
use crate::api::Api;
use crate::api::principal::{TokenRefusal, authenticate_session, authenticate_token};
use crate::web::auth_failures::address;
use crate::web::connection_slots::{self, ClientKind};
use crate::web::problem::Problem;

/// The page after signing in, unless another was requested.
const HOME: &str = "/console";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct Page {
    frame: Frame,
    /// The page of this console to continue with.
    next: String,
    error: Option<String>,
    notice: Option<&'static str>,
    /// The public URL, if browsers would drop the session's cookie there.
    insecure_url: Option<String>,
}

/// Redirects to the sign-in page, which continues with `return_path`.
pub(super) fn redirect_to_sign_in(return_path: Option<String>) -> Response {
    let next = return_path.filter(|path| is_console_path(path) && path != HOME);
    let pair = |next: String| form_urlencoded::Serializer::new(String::new()).append_pair("next", &next).finish();
    let query = next.map(|next| format!("?{}", pair(next)));
    see_other(&format!("/console/sign-in{}", query.unwrap_or_default()))
        .unwrap_or_else(|problem| problem.into_response())
}

pub(super) async fn show(State(api): State<Api>, mut params: PageQuery) -> Result<Response, Problem> {
    let notice = match params.take("out").as_deref() {
        Some("here") => Some("You are signed out."),
        Some("everywhere") => Some("You are signed out everywhere."),
        _ => None,
    };
    html(StatusCode::OK, &page(&api, params.take("next"), None, notice))
}

/// Opens a session for a valid token. The next page checks that the browser kept its cookie.
pub(super) async fn sign_in(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (from, old) = (address(request.extensions()), session::session_text(request.headers()));
    let extensions = request.extensions().clone();
    let form = <SameOriginForm as axum::extract::FromRequest<Api>>::from_request(request, &api).await?;
    let (token, next) = (form.text("token").trim(), form.text("next"));
    let refused = |status, error: String| html(status, &page(&api, Some(next.to_owned()), Some(error), None));
    let principal = match authenticate_token(&api, token, from).await {
        Ok(principal) => {
            connection_slots::mark_authenticated(&extensions, ClientKind::Admin)?;
            principal
        }
        Err(TokenRefusal::Invalid(problem)) => {
            let message = refusal_message(token, problem.code());
            let problem = api.auth_failures.record_failure(from, problem);
            return match problem.status() {
                StatusCode::TOO_MANY_REQUESTS => {
                    let page = refused(problem.status(), super::problems::sentence(problem.detail()))?;
                    Ok((AppendHeaders(problem.header()), page).into_response())
                }
                _ => refused(StatusCode::FORBIDDEN, message),
            };
        }
        Err(TokenRefusal::Other(problem)) => return Err(problem),
    };
    if let Some(old) = old {
        api.store.close_session(old.digest()).await?;
    }
    let (text, now) = (api.entropy.text()?, api.clock.now());
    api.store.open_session(text.digest(), Digest::of(token.as_bytes()), now).await?;
    tracing::info!(
        actor = principal.actor().id,
        address = from.map(tracing::field::display),
        "signed in to the console"
    );
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
    let mut response = see_other(&format!("/console/sign-in/check?{query}"))?;
    session::set_cookie(&mut response, &text)?;
    Ok(response)
}

/// Continues if the browser kept the cookie; otherwise explains why it may not have, instead of asking for the token
/// again.
pub(super) async fn check(
    State(api): State<Api>,
    mut params: PageQuery,
    request: Request,
) -> Result<Response, Problem> {
    let now = api.clock.now();
    let session = match session::session_text(request.headers()) {
        Some(text) => match api.store.session(text.digest(), now).await? {
            Some(session) => authenticate_session(&api, session, now, address(request.extensions()))?,
            None => None,
        },
        None => None,
    };
    if session.is_some() {
        return see_other(&params.take("next").filter(|next| is_console_path(next)).unwrap_or_else(|| HOME.to_owned()));
    }
    #[derive(Template)]
    #[template(path = "no_cookie.html")]
    struct NoCookie {
        frame: Frame,
        public_url: String,
        is_public_url_safe: bool,
    }
    let page = NoCookie {
        frame: Frame::signed_out(),
        public_url: api.public_url.to_string(),
        is_public_url_safe: api.public_url.is_trusted_by_browsers(),
    };
    html(StatusCode::BAD_REQUEST, &page)
}

pub(super) async fn sign_out(
    State(api): State<Api>,
    session: ConsoleSession,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    api.store.close_session(session.digest).await?;
    redirect_signed_out("here")
}

/// Ends every session that was opened with the same token.
pub(super) async fn sign_out_everywhere(
    State(api): State<Api>,
    session: ConsoleSession,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    api.store.close_sessions_of(session.token_digest).await?;
    redirect_signed_out("everywhere")
}

/// Clears the cookie, and redirects to the sign-in page with a notice.
fn redirect_signed_out(notice: &str) -> Result<Response, Problem> {
    let mut response = see_other(&format!("/console/sign-in?out={notice}"))?;
    session::clear_cookie(&mut response);
    Ok(response)
}

fn page(api: &Api, next: Option<String>, error: Option<String>, notice: Option<&'static str>) -> Page {
    let is_cookie_kept = api.public_url.is_trusted_by_browsers();
    Page {
        frame: Frame::signed_out(),
        next: next.filter(|next| is_console_path(next)).unwrap_or_default(),
        error,
        notice,
        insecure_url: (!is_cookie_kept).then(|| api.public_url.to_string()),
    }
}

/// What is wrong with a token. The holder of a revoked or expired token may learn that.
fn refusal_message(token: &str, code: &str) -> String {
    let text = match code {
        _ if token.is_empty() => "Paste your admin token. It begins with lkadm_.",
        "revoked-token" => "This token was revoked. Ask an admin for another one.",
        "expired-token" => "This token has expired. Ask an admin for another one.",
        _ if token.starts_with("lkedge_") => "This is an edge token. Sign in with an admin token: lkadm_…",
        _ if token.starts_with("lk_") => "This is an API key. Sign in with an admin token: lkadm_…",
        _ => "Unknown token. Check that it is complete, and that it belongs to this control plane.",
    };
    text.to_owned()
}

/// Whether a text is the path of a page of this console, and nothing that a browser could take for another host.
fn is_console_path(path: &str) -> bool {
    let is_under = path.strip_prefix(HOME).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    is_under && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') && !path.starts_with("/console/sign-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_console_are_followed() {
        for (path, expected) in [
            ("/console", true),
            ("/console/workspaces/acme/keys?q=a%20b", true),
            ("/console?done=saved", true),
            ("/consoles", false),
            ("/console.evil.example", false),
            ("//evil.example/console", false),
            ("https://evil.example/console", false),
            ("/console/\\evil.example", false),
            ("/console/\r\nlocation: x", false),
            ("/console/a b", false),
            ("/v1/workspaces", false),
            ("/console/sign-out", false),
            ("console", false),
            ("", false),
        ] {
            assert_eq!(is_console_path(path), expected, "{path:?}");
        }
    }
}
