//! Authentication: the principal of a request, proven by a token or a session before anything else is read.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use policy::key_text::{Kind, is_token};
use policy::{Allowlist, Digest, UnixSeconds};

use super::Api;
use super::request_id::RequestId;
use crate::operations::principal::Principal;
use crate::store::{AdminToken, Session};
use crate::web::auth_failures::address;
use crate::web::bearer;
use crate::web::connection_slots::{self, ClientKind};
use crate::web::problem::Problem;

/// The hint for a client without a valid token.
const TOKEN_HINT: &str = "a valid admin token is required; send it as `Authorization: Bearer <token>`; the first one \
                          is in the file that --admin-token-file names";

/// How often a token's last use is recorded at most, so that reads don't cost a write each.
const USE_RECORD_INTERVAL_SECS: i64 = 60;

/// The actor's id for the log, in the extensions of each response to an authenticated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActorId(pub(crate) String);

/// Passes a request on with its principal, or answers 401.
pub(crate) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match authenticate_headers(&api, request.headers(), request.extensions()).await {
        Ok(principal) => {
            if let Err(problem) = connection_slots::mark_authenticated(request.extensions(), ClientKind::Admin) {
                return problem.into_response();
            }
            let principal = with_request(principal, request.extensions());
            let actor = ActorId(principal.actor().id.clone());
            request.extensions_mut().insert(principal);
            let mut response = next.run(request).await;
            response.extensions_mut().insert(actor);
            response
        }
        Err(TokenRefusal::Invalid(problem)) => {
            api.auth_failures.record_failure(address(request.extensions()), problem).into_response()
        }
        Err(TokenRefusal::Other(problem)) => problem.into_response(),
    }
}

/// The principal, with the client's address and the id of its request.
pub(crate) fn with_request(principal: Principal, request: &Extensions) -> Principal {
    principal.with_request(address(request), request.get().map(|RequestId(id)| id.clone()))
}

/// Why a request has no principal.
pub(crate) enum TokenRefusal {
    /// The presented token is invalid. It counts for the auth-failure limiter.
    Invalid(Problem),
    Other(Problem),
}

async fn authenticate_headers(
    api: &Api,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Principal, TokenRefusal> {
    let missing = || TokenRefusal::Other(Problem::unauthenticated("missing-token", TOKEN_HINT));
    authenticate_token(api, bearer::token(headers).ok_or_else(missing)?, address(extensions)).await
}

/// Checks the request's token again: it may have been revoked since the request began.
pub(super) async fn reauthenticate(api: &Api, headers: &HeaderMap, extensions: &Extensions) -> Result<(), Problem> {
    match authenticate_headers(api, headers, extensions).await {
        Ok(_) => Ok(()),
        Err(TokenRefusal::Invalid(problem) | TokenRefusal::Other(problem)) => Err(problem),
    }
}

/// The principal that a token belongs to, if it may be used from this address. Without an address (a Unix socket), no
/// allowlist has the client.
pub(crate) async fn authenticate_token(
    api: &Api,
    presented: &str,
    from: Option<IpAddr>,
) -> Result<Principal, TokenRefusal> {
    let refused = |code| TokenRefusal::Invalid(Problem::unauthenticated(code, TOKEN_HINT));
    // The file's token always works, whatever is in the database.
    if api.admin_token.is(presented) {
        return Ok(Principal::token_file());
    }
    if !is_token(presented, &Kind::AdminToken) {
        return Err(refused("bad-token"));
    }
    let found = api.store.admin_token_of(Digest::of(presented.as_bytes())).await;
    let found = found.map_err(|error| TokenRefusal::Other(error.into()))?;
    let token = found.ok_or_else(|| refused("bad-token"))?;
    let now = api.clock.now();
    // The client has the token's text, so it may learn why the token doesn't work.
    if token.revoked_at.is_some() {
        return Err(refused("revoked-token"));
    }
    if token.is_expired(now) {
        return Err(refused("expired-token"));
    }
    check_address(&token, from).map_err(TokenRefusal::Other)?;
    record_use(api, &token, now);
    Ok(token.into())
}

/// The principal of a session, as long as the token that opened it works. A new token in the token file ends it.
/// `None`: it has ended.
pub(crate) fn authenticate_session(
    api: &Api,
    session: Session,
    now: UnixSeconds,
    from: Option<IpAddr>,
) -> Result<Option<Principal>, Problem> {
    if api.admin_token.has(&session.token) {
        return Ok(Some(Principal::token_file()));
    }
    let Some(token) = session.admin_token.filter(|token| token.revoked_at.is_none() && !token.is_expired(now)) else {
        return Ok(None);
    };
    check_address(&token, from)?;
    record_use(api, &token, now);
    Ok(Some(token.into()))
}

/// Refuses a token that may not be used from this address.
fn check_address(token: &AdminToken, from: Option<IpAddr>) -> Result<(), Problem> {
    let is_allowed = match &token.allowlist {
        Allowlist::Any => true,
        Allowlist::Only(networks) => {
            from.is_some_and(|from| networks.as_slice().iter().any(|network| network.contains(&from)))
        }
    };
    if is_allowed { Ok(()) } else { Err(Problem::token_address_not_allowed(from)) }
}

/// Records the use in a separate task, so that the request doesn't wait for it.
fn record_use(api: &Api, token: &AdminToken, now: UnixSeconds) {
    let is_due = token.last_used_at.is_none_or(|at| at.saturating_add_secs(USE_RECORD_INTERVAL_SECS).is_reached(now));
    if is_due {
        let (store, id) = (api.store.clone(), token.id);
        // The store logs a failure.
        tokio::spawn(async move { store.record_admin_token_use(id, now).await });
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Missing only if a route is outside the `authenticate` layer.
        parts.extensions.get().cloned().ok_or_else(|| Problem::unauthenticated("missing-token", TOKEN_HINT))
    }
}
