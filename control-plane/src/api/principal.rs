//! Who is acting, proved by a token, before anything else of a request is looked at.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Api;
use crate::bearer;
use crate::clock::Clock;
use crate::problem::Problem;
use crate::store::Acting;

/// What a client without the right token is told.
const HOW: &str = "send `Authorization: Bearer <token>` with the admin token; it stands in the file that \
                   --admin-token-file names";

/// Who is acting. There is no way to one but through [`authenticate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Principal {
    name: &'static str,
}

impl Principal {
    /// Whoever holds the token in the file of --admin-token-file.
    const PLATFORM_ADMIN: Self = Self { name: "platform-admin" };

    /// This principal, now.
    pub(super) fn acting(&self, clock: &Clock) -> Acting {
        Acting { principal: self.name.to_owned(), at: clock.now() }
    }
}

/// Lets a request pass with its principal, or answers 401.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    match bearer::require(&api.admin_token, request.headers(), HOW) {
        Ok(()) => {
            request.extensions_mut().insert(Principal::PLATFORM_ADMIN);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Missing only where a route stands outside of `authenticate`.
        parts.extensions.get().cloned().ok_or_else(|| Problem::unauthenticated("missing-token", HOW))
    }
}
