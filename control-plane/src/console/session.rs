//! Sessions: the cookie that identifies one, and the layer that requires it.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use policy::Digest;

use super::form::CsrfToken;
use super::sign_in;
use crate::api::Api;
use crate::api::principal::{ActorId, authenticate_session, with_request};
use crate::base::secret::Secret;
use crate::operations::principal::Principal;
use crate::store::{Workspace, WorkspaceName};
use crate::web::auth_failures::address;
use crate::web::connection_slots::{self, ClientKind};
use crate::web::problem::Problem;

/// The prefix makes browsers refuse a cookie that another host, another path or plain HTTP has set.
const COOKIE: &str = "__Host-latchkey-session";

/// Lax: a link from a chat or a ticket opens the page it names. `form.rs` checks every change.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// The session of a request: who makes it, and what its forms need.
#[derive(Clone)]
pub(super) struct ConsoleSession {
    pub(super) principal: Principal,
    /// For forms of this session.
    pub(super) csrf: CsrfToken,
    /// The digest of the cookie's text.
    pub(super) digest: Digest,
    /// The digest of the token that opened the session.
    pub(super) token_digest: Digest,
    /// The workspace that the principal is bound to.
    pub(super) workspace: Option<Workspace>,
}

/// Adds the session to a request, or redirects to the sign-in page, which returns to the requested page afterwards.
pub(super) async fn require_session(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let session = match load_session(&api, request.headers(), request.extensions()).await {
        Ok(Some(session)) => session,
        Ok(None) => return sign_in::redirect_to_sign_in(return_path(&request)),
        Err(problem) => return super::problems::page(None, "", &problem),
    };
    if let Err(problem) = connection_slots::mark_authenticated(request.extensions(), ClientKind::Admin) {
        return super::problems::page(Some(&session), "", &problem);
    }
    let actor = ActorId(session.principal.actor().id.clone());
    request.extensions_mut().insert(session.principal.clone());
    request.extensions_mut().insert(session);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(actor);
    response
}

/// The session of the request's cookie; `None` if there is none or if it has ended.
async fn load_session(
    api: &Api,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Option<ConsoleSession>, Problem> {
    let Some(text) = session_text(headers) else { return Ok(None) };
    let (digest, now) = (text.digest(), api.clock.now());
    let Some(stored) = api.store.session(digest, now).await? else { return Ok(None) };
    let (token_digest, is_due) = (stored.token, stored.is_use_due(now));
    let Some(principal) = authenticate_session(api, stored, now, address(extensions))? else {
        // Its token was revoked, has expired, or was replaced.
        api.store.close_session(digest).await?;
        return Ok(None);
    };
    if is_due {
        let store = api.store.clone();
        // The request doesn't wait for it; the store logs a failure.
        tokio::spawn(async move { store.record_session_use(digest, now).await });
    }
    let workspace = match principal.reach() {
        Some(id) => Some(api.store.workspace(WorkspaceName::Id(id)).await?),
        None => None,
    };
    let principal = with_request(principal, extensions);
    Ok(Some(ConsoleSession { principal, csrf: CsrfToken::of(&text), digest, token_digest, workspace }))
}

/// Where to continue after signing in: a page requested by GET, never a submitted form.
fn return_path(request: &Request) -> Option<String> {
    let is_page = request.method() == Method::GET;
    is_page.then(|| request.uri().path_and_query().map(|path| path.as_str().to_owned())).flatten()
}

/// The session's text, from the cookie.
pub(super) fn session_text(headers: &HeaderMap) -> Option<Secret> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, text)| Secret::new(text.to_owned()))
}

/// Sets the session's cookie. It has no expiration, because the control plane decides how long a session lasts.
pub(super) fn set_cookie(response: &mut Response, session: &Secret) -> Result<(), Problem> {
    let mut value =
        HeaderValue::try_from(format!("{COOKIE}={}; {ATTRIBUTES}", session.expose())).map_err(|_| Problem::fault())?;
    value.set_sensitive(true);
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(())
}

/// Removes the session's cookie.
pub(super) fn clear_cookie(response: &mut Response) {
    if let Ok(value) = HeaderValue::try_from(format!("{COOKIE}=; {ATTRIBUTES}; Max-Age=0")) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

impl<S: Sync> FromRequestParts<S> for ConsoleSession {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        // Missing only if a route is outside the `require_session` layer.
        parts.extensions.get().cloned().ok_or_else(|| Problem::fault().into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_other_cookies() {
        for (values, expected) in [
            (&["__Host-latchkey-session=abc"][..], Some("abc")),
            (&["a=b; __Host-latchkey-session=abc; c=d"], Some("abc")),
            (&["a=b", "__Host-latchkey-session=abc"], Some("abc")),
            (&["latchkey-session=abc"], None),
            (&["a=__Host-latchkey-session=abc"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::COOKIE, value.parse().unwrap());
            }
            assert_eq!(session_text(&headers).map(|text| text.expose().to_owned()).as_deref(), expected, "{values:?}");
        }
    }
}
