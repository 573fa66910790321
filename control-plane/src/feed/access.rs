//! Access to the feed: by the token file's token for any edge, or by a token made over REST for its own edge.

use std::net::IpAddr;

use axum::http::request::Parts;
use policy::Digest;

use super::Feed;
use crate::edges::{InstanceError, TOKEN_FILE_ID};
use crate::web::auth_failures::address;
use crate::web::bearer;
use crate::web::connection_slots::{self, ClientKind};
use crate::web::problem::Problem;

/// The detail of a 401 for an edge.
const TOKEN_HINT: &str = "send `Authorization: Bearer <token>` with an edge token; the first one is in the file that \
                          --edge-token-file names";

/// A token that was valid when it was presented.
pub(super) struct Access {
    digest: Digest,
    /// `None`: any edge.
    edge: Option<String>,
    /// Its id, or [`TOKEN_FILE_ID`].
    pub(super) id: String,
    address: Option<IpAddr>,
}

/// A known token that a request presents.
pub(super) enum PresentedToken {
    Live(Access),
    Revoked(Revoked),
}

/// A token that was revoked. It gives no access. An instance that used no other token is answered that it has ended.
pub(super) struct Revoked {
    id: String,
    edge: String,
    pub(super) address: Option<IpAddr>,
}

impl Feed {
    /// The access that a request's token gives, or 401.
    pub(super) fn access(&self, request: &Parts) -> Result<Access, Problem> {
        match self.presented_token(request)? {
            PresentedToken::Live(access) => Ok(access),
            PresentedToken::Revoked(revoked) => Err(self.bad_token(revoked.address)),
        }
    }

    /// The token that a request presents; 401 for an unknown one.
    pub(super) fn presented_token(&self, request: &Parts) -> Result<PresentedToken, Problem> {
        let presented =
            bearer::token(&request.headers).ok_or_else(|| Problem::unauthenticated("missing-token", TOKEN_HINT))?;
        let digest = Digest::of(presented.as_bytes());
        let address = address(&request.extensions);
        if self.edge_token.has(&digest) {
            connection_slots::mark_authenticated(&request.extensions, ClientKind::Edge)?;
            return Ok(PresentedToken::Live(Access { digest, edge: None, id: TOKEN_FILE_ID.to_owned(), address }));
        }
        if let Some(token) = self.store.live_edge_token(&digest) {
            connection_slots::mark_authenticated(&request.extensions, ClientKind::Edge)?;
            self.store.record_edge_token_use(&token, self.clock.now());
            let (edge, id) = (Some(token.edge.clone()), token.id.to_string());
            return Ok(PresentedToken::Live(Access { digest, edge, id, address }));
        }
        let revoked = self.store.revoked_edge_token(&digest).ok_or_else(|| self.bad_token(address))?;
        Ok(PresentedToken::Revoked(Revoked { id: revoked.id.to_string(), edge: revoked.edge.clone(), address }))
    }

    /// The access that a token gives. One that was revoked gives none: how it is refused depends on the edge and the
    /// instance that the request names, if both could be read.
    pub(super) async fn admit(
        &self,
        presented: PresentedToken,
        named: Option<(&str, &str)>,
    ) -> Result<Access, Problem> {
        match (presented, named) {
            (PresentedToken::Live(access), _) => Ok(access),
            (PresentedToken::Revoked(revoked), Some((edge, instance))) => {
                Err(self.refuse_revoked(revoked, edge, instance).await)
            }
            (PresentedToken::Revoked(revoked), None) => Err(self.bad_token(revoked.address)),
        }
    }

    /// Checks that the token is still valid: it may have been revoked while the request waited.
    pub(super) fn check_not_revoked(&self, access: &Access) -> Result<(), Revoked> {
        match &access.edge {
            Some(edge) if self.store.live_edge_token(&access.digest).is_none() => {
                Err(Revoked { id: access.id.clone(), edge: edge.clone(), address: access.address })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses an instance whose token was revoked: 410 if it has used no other valid token, and then it ends; else
    /// 401, as for any request with that token.
    pub(super) async fn refuse_revoked(&self, revoked: Revoked, edge: &str, instance: &str) -> Problem {
        if revoked.edge != edge {
            return self.bad_token(revoked.address);
        }
        match self.edges.end_revoked(instance, edge, &revoked.id).await {
            Ok(()) => InstanceError::Retired.into(),
            Err(InstanceError::Store(error)) => error.into(),
            Err(_) => self.bad_token(revoked.address),
        }
    }

    /// 401, or 429 after too many wrong tokens from this address.
    pub(super) fn bad_token(&self, address: Option<IpAddr>) -> Problem {
        self.auth_failures.record_failure(address, Problem::unauthenticated("bad-token", TOKEN_HINT))
    }
}

impl Access {
    /// Checks that the token is valid for this edge.
    pub(super) fn covers(&self, edge: &str) -> Result<(), Problem> {
        match &self.edge {
            Some(own) if own != edge => Err(Problem::wrong_edge(own)),
            Some(_) | None => Ok(()),
        }
    }
}
