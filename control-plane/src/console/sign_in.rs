//! Signing in with an admin token, and signing out.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use policy::Digest;

use super::form::{Posted, PostedByAnyone};
use super::page::{Frame, html, see_other};
use super::query::Asked;
use super::session::{self, Visit};
use crate::api::Api;
use crate::api::principal::{Refusal, of_session, of_token};
use crate::guesses::address;
use crate::places::{self, Bearer};
use crate::problem::Problem;

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
    dropped_at: Option<String>,
}

/// Redirects to the sign-in page, and from there to `back`.
pub(super) fn ask(back: Option<String>) -> Response {
    let back = back.filter(|back| is_own(back) && back != HOME);
    let pair = |back: String| form_urlencoded::Serializer::new(String::new()).append_pair("next", &back).finish();
    let query = back.map(|back| format!("?{}", pair(back)));
    see_other(&format!("/console/sign-in{}", query.unwrap_or_default()))
        .unwrap_or_else(|problem| problem.into_response())
}

pub(super) async fn show(State(api): State<Api>, mut asked: Asked) -> Result<Response, Problem> {
    let notice = match asked.take("out").as_deref() {
        Some("here") => Some("You are signed out."),
        Some("everywhere") => Some("You are signed out everywhere."),
        _ => None,
    };
    html(StatusCode::OK, &page(&api, asked.take("next"), None, notice))
}

/// Opens a session for a valid token. The next page checks that the browser kept its cookie.
pub(super) async fn sign_in(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let (from, old) = (address(request.extensions()), session::presented(request.headers()));
    let extensions = request.extensions().clone();
    let form = <PostedByAnyone as axum::extract::FromRequest<Api>>::from_request(request, &api).await?;
    let (token, next) = (form.text("token").trim(), form.text("next"));
    let refused = |status, error: String| html(status, &page(&api, Some(next.to_owned()), Some(error), None));
    let principal = match of_token(&api, token).await {
        Ok(principal) => {
            places::shown(&extensions, Bearer::Admin)?;
            principal
        }
        Err(Refusal::Wrong(problem)) => {
            let why = why(token, problem.code());
            let problem = api.guesses.wrong(from, problem);
            return match problem.status() {
                StatusCode::TOO_MANY_REQUESTS => {
                    let page = refused(problem.status(), super::problems::sentence(problem.detail()))?;
                    Ok((AppendHeaders(problem.header()), page).into_response())
                }
                _ => refused(StatusCode::FORBIDDEN, why),
            };
        }
        Err(Refusal::Other(problem)) => return Err(problem),
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
    session::keep(&mut response, &text)?;
    Ok(response)
}

/// Continues if the browser kept the cookie; else explains why it may not have, instead of asking for the token again.
pub(super) async fn check(State(api): State<Api>, mut asked: Asked, request: Request) -> Result<Response, Problem> {
    let now = api.clock.now();
    let kept = match session::presented(request.headers()) {
        Some(text) => api.store.session(text.digest(), now).await?.and_then(|session| of_session(&api, session, now)),
        None => None,
    };
    if kept.is_some() {
        return see_other(&asked.take("next").filter(|next| is_own(next)).unwrap_or_else(|| HOME.to_owned()));
    }
    #[derive(Template)]
    #[template(path = "no_cookie.html")]
    struct NoCookie {
        frame: Frame,
        public_url: String,
        is_public_url_safe: bool,
    }
    let page = NoCookie {
        frame: Frame::outside(),
        public_url: api.public_url.to_string(),
        is_public_url_safe: api.public_url.is_trusted_by_browsers(),
    };
    html(StatusCode::BAD_REQUEST, &page)
}

pub(super) async fn sign_out(State(api): State<Api>, visit: Visit, _: Posted) -> Result<Response, Problem> {
    api.store.close_session(visit.session).await?;
    out("here")
}

/// Ends every session that was opened with the same token.
pub(super) async fn sign_out_everywhere(State(api): State<Api>, visit: Visit, _: Posted) -> Result<Response, Problem> {
    api.store.close_sessions_of(visit.token).await?;
    out("everywhere")
}

fn out(of: &str) -> Result<Response, Problem> {
    let mut response = see_other(&format!("/console/sign-in?out={of}"))?;
    session::drop_cookie(&mut response);
    Ok(response)
}

fn page(api: &Api, next: Option<String>, error: Option<String>, notice: Option<&'static str>) -> Page {
    let is_kept = api.public_url.is_trusted_by_browsers();
    Page {
        frame: Frame::outside(),
        next: next.filter(|next| is_own(next)).unwrap_or_default(),
        error,
        notice,
        dropped_at: (!is_kept).then(|| api.public_url.to_string()),
    }
}

/// What is wrong with a token. The holder of one that has ended may learn that.
fn why(token: &str, code: &str) -> String {
    let text = match code {
        _ if token.is_empty() => "Paste your admin token. It begins with lkadm_.",
        "revoked-token" => "This token was revoked. Ask an admin for another one.",
        "expired-token" => "This token has expired. Ask an admin for another one.",
        _ if token.starts_with("lkedge_") => "This is the token of an edge. The console takes an admin token, lkadm_…",
        _ if token.starts_with("lk_") => "This is a key for your API. The console takes an admin token, lkadm_…",
        _ => "This token isn't known here. Check that it is whole, and that it belongs to this control plane.",
    };
    text.to_owned()
}

/// Whether a text is the path of a page of this console, and nothing that a browser could take for another host.
fn is_own(path: &str) -> bool {
    let is_under = path.strip_prefix(HOME).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    is_under && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') && !path.starts_with("/console/sign-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_out_of_the_console() {
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
            assert_eq!(is_own(path), expected, "{path:?}");
        }
    }
}
