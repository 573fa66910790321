//! The principal of a request, proven by a token or a session before anything else is read.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use policy::key_text::{Kind, is_token};
use policy::{Digest, UnixSeconds};

use super::Api;
use super::request_id::RequestId;
use crate::bearer;
use crate::clock::Clock;
use crate::guesses::address;
use crate::places::{self, Bearer};
use crate::problem::Problem;
use crate::store::{Acting, Actor, ActorKind, AdminToken, Once, Role, Session, TOKEN_FILE_ID, TOKEN_FILE_NAME};

/// The hint for a client without a valid token.
const HOW: &str = "send `Authorization: Bearer <token>` with an admin token; the first stands in the file that \
                   --admin-token-file names";

/// How often a token's last use is recorded at most, so that reads don't cost a write each.
const USE_NOTED_EVERY_SECS: i64 = 60;

/// Who acts, with which role, and from where. Only [`of_token`] and [`of_session`] make one, both from a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    actor: Actor,
    role: Role,
    expires_at: Option<UnixSeconds>,
    address: Option<IpAddr>,
    request_id: Option<String>,
    once: Option<Once>,
}

/// The actor's id, in the extensions of each answer that has one, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActorId(pub(crate) String);

impl Principal {
    /// What it may do.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// When its token ends; `None`: never.
    pub(crate) fn expires_at(&self) -> Option<UnixSeconds> {
        self.expires_at
    }

    /// This principal as the actor of a change made now.
    pub(crate) fn acting(&self, clock: &Clock) -> Acting {
        let Self { actor, address, request_id, once, .. } = self.clone();
        Acting { actor, at: clock.now(), address, request_id, once }
    }

    /// This principal, for a change that is made only once.
    pub(crate) fn once(mut self, once: impl Into<Option<Once>>) -> Self {
        self.once = once.into();
        self
    }

    /// As the audit log names it.
    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The client's address; `None` for a Unix socket.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    pub(crate) fn sent_with(mut self, request: &Extensions) -> Self {
        self.address = address(request);
        self.request_id = request.get().map(|RequestId(id)| id.clone());
        self
    }

    /// The holder of the token in the file of --admin-token-file.
    fn token_file() -> Self {
        let (id, name) = (TOKEN_FILE_ID.to_owned(), TOKEN_FILE_NAME.to_owned());
        let actor = Actor { kind: ActorKind::TokenFile, id, name };
        Self { actor, role: Role::PlatformAdmin, expires_at: None, address: None, request_id: None, once: None }
    }
}

impl From<AdminToken> for Principal {
    fn from(token: AdminToken) -> Self {
        let actor = Actor { kind: ActorKind::AdminToken, id: token.id.to_string(), name: token.name };
        Self { actor, role: token.role, expires_at: token.expires_at, address: None, request_id: None, once: None }
    }
}

/// Passes a request on with its principal, or answers 401.
pub(crate) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match proved(&api, request.headers()).await {
        Ok(principal) => {
            if let Err(problem) = places::shown(request.extensions(), Bearer::Admin) {
                return problem.into_response();
            }
            let principal = principal.sent_with(request.extensions());
            let actor = ActorId(principal.actor.id.clone());
            request.extensions_mut().insert(principal);
            let mut response = next.run(request).await;
            response.extensions_mut().insert(actor);
            response
        }
        Err(Refusal::Wrong(problem)) => api.guesses.wrong(address(request.extensions()), problem).into_response(),
        Err(Refusal::Other(problem)) => problem.into_response(),
    }
}

/// Why there is no principal.
pub(crate) enum Refusal {
    /// A token was presented that doesn't work.
    Wrong(Problem),
    Other(Problem),
}

async fn proved(api: &Api, headers: &HeaderMap) -> Result<Principal, Refusal> {
    let missing = || Refusal::Other(Problem::unauthenticated("missing-token", HOW));
    of_token(api, bearer::presented(headers).ok_or_else(missing)?).await
}

/// Checks that the token that proved the principal when its request began still works.
pub(super) async fn prove_again(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    match proved(api, headers).await {
        Ok(_) => Ok(()),
        Err(Refusal::Wrong(problem) | Refusal::Other(problem)) => Err(problem),
    }
}

/// The principal that presents this token.
pub(crate) async fn of_token(api: &Api, presented: &str) -> Result<Principal, Refusal> {
    let refused = |code| Refusal::Wrong(Problem::unauthenticated(code, HOW));
    // The file's token always works, whatever is in the database.
    if api.admin_token.is(presented) {
        return Ok(Principal::token_file());
    }
    if !is_token(presented, &Kind::AdminToken) {
        return Err(refused("bad-token"));
    }
    let found = api.store.admin_token_of(Digest::of(presented.as_bytes())).await;
    let found = found.map_err(|error| Refusal::Other(error.into()))?;
    let token = found.ok_or_else(|| refused("bad-token"))?;
    let now = api.clock.now();
    // Only a holder of the token gets here, and may learn why it doesn't work.
    if token.revoked_at.is_some() {
        return Err(refused("revoked-token"));
    }
    if token.is_expired(now) {
        return Err(refused("expired-token"));
    }
    note_use(api, &token, now);
    Ok(token.into())
}

/// The principal of a session, while the token that opened it works. A new token in the token file ends the session.
pub(crate) fn of_session(api: &Api, session: Session, now: UnixSeconds) -> Option<Principal> {
    if api.admin_token.has(&session.token) {
        return Some(Principal::token_file());
    }
    let token = session.admin_token.filter(|token| token.revoked_at.is_none() && !token.is_expired(now))?;
    note_use(api, &token, now);
    Some(token.into())
}

/// Records the use in a task of its own, so that the request doesn't wait for it.
fn note_use(api: &Api, token: &AdminToken, now: UnixSeconds) {
    let is_due = token.last_used_at.is_none_or(|at| at.saturating_add_secs(USE_NOTED_EVERY_SECS).has_come(now));
    if is_due {
        let (store, id) = (api.store.clone(), token.id);
        // The store logs a failure.
        tokio::spawn(async move { store.note_admin_token_use(id, now).await });
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Missing only if a route is outside the `authenticate` layer.
        parts.extensions.get().cloned().ok_or_else(|| Problem::unauthenticated("missing-token", HOW))
    }
}
