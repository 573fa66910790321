//! Sessions: the cookie that identifies one, and the layer that requires it.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use policy::Digest;

use super::form::Csrf;
use super::sign_in;
use crate::api::Api;
use crate::api::principal::{ActorId, Principal, of_session};
use crate::places::{self, Bearer};
use crate::problem::Problem;
use crate::secret::Secret;
use crate::store::{Workspace, WorkspaceName};

/// The prefix makes browsers refuse a cookie that another host, another path or plain HTTP has set.
const COOKIE: &str = "__Host-latchkey-session";

/// Lax: a link from a chat or a ticket opens the page it names. `form.rs` checks every change.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// A request with a session.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) principal: Principal,
    /// For forms of this session.
    pub(super) csrf: Csrf,
    /// The digest of the cookie's text.
    pub(super) session: Digest,
    /// The digest of the token that opened the session.
    pub(super) token: Digest,
    /// The workspace that the principal is bound to.
    pub(super) own: Option<Workspace>,
}

/// Passes a request on with its visit, or redirects to the sign-in page, and from there back.
pub(super) async fn enter(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let visit = match visit(&api, request.headers(), request.extensions()).await {
        Ok(Some(visit)) => visit,
        Ok(None) => return sign_in::ask(back(&request)),
        Err(problem) => return super::problems::page(None, "", &problem),
    };
    if let Err(problem) = places::shown(request.extensions(), Bearer::Admin) {
        return super::problems::page(Some(&visit), "", &problem);
    }
    let actor = ActorId(visit.principal.actor().id.clone());
    request.extensions_mut().insert(visit.principal.clone());
    request.extensions_mut().insert(visit);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(actor);
    response
}

async fn visit(api: &Api, headers: &HeaderMap, extensions: &Extensions) -> Result<Option<Visit>, Problem> {
    let Some(text) = presented(headers) else { return Ok(None) };
    let (digest, now) = (text.digest(), api.clock.now());
    let Some(session) = api.store.session(digest, now).await? else { return Ok(None) };
    let (token, is_due) = (session.token, session.is_use_due(now));
    let Some(principal) = of_session(api, session, now) else {
        // Its token has ended.
        api.store.close_session(digest).await?;
        return Ok(None);
    };
    if is_due {
        let store = api.store.clone();
        // The request doesn't wait for it; the store logs a failure.
        tokio::spawn(async move { store.note_session_use(digest, now).await });
    }
    let own = match principal.reach() {
        Some(id) => Some(api.store.workspace(WorkspaceName::Id(id)).await?),
        None => None,
    };
    let principal = principal.sent_with(extensions);
    Ok(Some(Visit { principal, csrf: Csrf::of(&text), session: digest, token, own }))
}

/// Where to continue after signing in: a page that was requested, never a form that was sent.
fn back(request: &Request) -> Option<String> {
    let is_page = request.method() == Method::GET;
    is_page.then(|| request.uri().path_and_query().map(|path| path.as_str().to_owned())).flatten()
}

/// The session's text in the cookie.
pub(super) fn presented(headers: &HeaderMap) -> Option<Secret> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, text)| Secret::new(text.to_owned()))
}

/// Sets the session's cookie. It has no expiration, because the control plane decides how long a session lasts.
pub(super) fn keep(response: &mut Response, session: &Secret) -> Result<(), Problem> {
    let mut value =
        HeaderValue::try_from(format!("{COOKIE}={}; {ATTRIBUTES}", session.expose())).map_err(|_| Problem::fault())?;
    value.set_sensitive(true);
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(())
}

/// Removes the session's cookie.
pub(super) fn drop_cookie(response: &mut Response) {
    if let Ok(value) = HeaderValue::try_from(format!("{COOKIE}=; {ATTRIBUTES}; Max-Age=0")) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        // Missing only if a route is outside the `enter` layer.
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
            assert_eq!(presented(&headers).map(|text| text.expose().to_owned()).as_deref(), expected, "{values:?}");
        }
    }
}
