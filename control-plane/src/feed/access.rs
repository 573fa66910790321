//! Access to the feed: by the token file's token for any edge, or by a token made over REST for its own edge.

use std::net::IpAddr;

use axum::http::request::Parts;
use policy::Digest;

use super::Feed;
use crate::bearer;
use crate::edges::{Refused, START_TOKEN};
use crate::guesses::address;
use crate::places::{self, Bearer};
use crate::problem::Problem;

/// The detail of a 401 for an edge.
const HOW: &str = "send `Authorization: Bearer <token>` with an edge token; the first stands in the file that \
                   --edge-token-file names";

/// A token that was valid when it was presented.
pub(super) struct Access {
    digest: Digest,
    /// `None`: any edge.
    edge: Option<String>,
    /// Its id, or [`START_TOKEN`].
    pub(super) id: String,
    address: Option<IpAddr>,
}

/// A known token.
pub(super) enum Shown {
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
        match self.shown(request)? {
            Shown::Live(access) => Ok(access),
            Shown::Revoked(revoked) => Err(self.wrong(revoked.address)),
        }
    }

    /// The token that a request presents; 401 for an unknown one.
    pub(super) fn shown(&self, request: &Parts) -> Result<Shown, Problem> {
        let presented =
            bearer::presented(&request.headers).ok_or_else(|| Problem::unauthenticated("missing-token", HOW))?;
        let digest = Digest::of(presented.as_bytes());
        let address = address(&request.extensions);
        if self.edge_token.has(&digest) {
            places::shown(&request.extensions, Bearer::Edge)?;
            return Ok(Shown::Live(Access { digest, edge: None, id: START_TOKEN.to_owned(), address }));
        }
        if let Some(token) = self.store.live_edge_token(&digest) {
            places::shown(&request.extensions, Bearer::Edge)?;
            self.store.note_edge_token_use(&token, self.clock.now());
            let (edge, id) = (Some(token.edge.clone()), token.id.to_string());
            return Ok(Shown::Live(Access { digest, edge, id, address }));
        }
        let revoked = self.store.revoked_edge_token(&digest).ok_or_else(|| self.wrong(address))?;
        Ok(Shown::Revoked(Revoked { id: revoked.id.to_string(), edge: revoked.edge.clone(), address }))
    }

    /// Checks that the token is still valid: the request may have waited since it was presented.
    pub(super) fn still(&self, access: &Access) -> Result<(), Revoked> {
        match &access.edge {
            Some(edge) if self.store.live_edge_token(&access.digest).is_none() => {
                Err(Revoked { id: access.id.clone(), edge: edge.clone(), address: access.address })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The answer to an instance whose token was revoked: 410 if it used no other valid token, and then it ends; else
    /// 401, as for any request with that token.
    pub(super) async fn disowned(&self, revoked: Revoked, edge: &str, instance: &str) -> Problem {
        if revoked.edge != edge {
            return self.wrong(revoked.address);
        }
        match self.edges.disown(instance, edge, &revoked.id).await {
            Ok(()) => Refused::Retired.into(),
            Err(Refused::Store(error)) => error.into(),
            Err(_) => self.wrong(revoked.address),
        }
    }

    /// 401, or 429 after too many wrong tokens from this address.
    pub(super) fn wrong(&self, address: Option<IpAddr>) -> Problem {
        self.guesses.wrong(address, Problem::unauthenticated("bad-token", HOW))
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
