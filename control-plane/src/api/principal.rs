//! Who is acting, proved by a token, before anything else of a request is looked at.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::Extensions;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Api;
use super::request_id::RequestId;
use crate::bearer;
use crate::clock::Clock;
use crate::problem::Problem;
use crate::store::{Acting, Actor, ActorKind};

/// What a client without the right token is told.
const HOW: &str = "send `Authorization: Bearer <token>` with the admin token; it stands in the file that \
                   --admin-token-file names";

/// Who is acting, and from where. There is no way to one but through [`authenticate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Principal {
    actor: Actor,
    address: Option<IpAddr>,
    request_id: Option<String>,
}

/// The id of who acts, in the extensions of each answer that has one: for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ActorId(pub(super) String);

impl Principal {
    fn new(actor: Actor, request: &Extensions) -> Self {
        // Of the connection: behind a proxy it is the proxy's, for a header could say anything.
        let address = request.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical());
        Self { actor, address, request_id: request.get().map(|RequestId(id)| id.clone()) }
    }

    /// This principal, now.
    pub(super) fn acting(&self, clock: &Clock) -> Acting {
        let Self { actor, address, request_id } = self.clone();
        Acting { actor, at: clock.now(), address, request_id }
    }
}

/// Lets a request pass with its principal, or answers 401.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match bearer::require(&api.admin_token, request.headers(), HOW) {
        Ok(()) => {
            let principal = Principal::new(token_file(), request.extensions());
            let actor = ActorId(principal.actor.id.clone());
            request.extensions_mut().insert(principal);
            let mut response = next.run(request).await;
            response.extensions_mut().insert(actor);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

/// Whoever holds the token in the file of --admin-token-file.
fn token_file() -> Actor {
    let name = "token file".to_owned();
    Actor { kind: ActorKind::TokenFile, id: "platform-admin".to_owned(), name }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Missing only where a route stands outside of `authenticate`.
        parts.extensions.get().cloned().ok_or_else(|| Problem::unauthenticated("missing-token", HOW))
    }
}
