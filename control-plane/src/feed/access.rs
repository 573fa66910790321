//! Who may use the feed: the file's token for any edge, and tokens that were made over REST, each for its own.

use axum::http::request::Parts;
use policy::Digest;

use super::Feed;
use crate::bearer;
use crate::guesses::address;
use crate::problem::Problem;

/// What an edge without the right token is told.
const HOW: &str = "send `Authorization: Bearer <token>` with an edge token; the first stands in the file that \
                   --edge-token-file names";

/// A token that was right when it was shown.
pub(super) struct Access {
    digest: Digest,
    /// `None`: any edge.
    edge: Option<String>,
    /// Its id, or `token-file`.
    pub(super) id: String,
}

impl Feed {
    /// The access that a request's token gives, or 401.
    pub(super) fn access(&self, request: &Parts) -> Result<Access, Problem> {
        let presented =
            bearer::presented(&request.headers).ok_or_else(|| Problem::unauthenticated("missing-token", HOW))?;
        let digest = Digest::of(presented.as_bytes());
        if self.edge_token.has(&digest) {
            return Ok(Access { digest, edge: None, id: "token-file".to_owned() });
        }
        let token = self.store.live_edge_token(&digest);
        let wrong = || Problem::unauthenticated("bad-token", HOW);
        let token = token.ok_or_else(|| self.guesses.wrong(address(&request.extensions), wrong()))?;
        self.store.note_edge_token_use(&token, self.clock.now());
        Ok(Access { digest, edge: Some(token.edge.clone()), id: token.id.to_string() })
    }

    /// That the token still works: a request may have waited since it was shown.
    pub(super) fn still(&self, access: &Access) -> Result<(), Problem> {
        match &access.edge {
            Some(_) if self.store.live_edge_token(&access.digest).is_none() => {
                Err(Problem::unauthenticated("bad-token", HOW))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Access {
    /// That the token may speak for this edge.
    pub(super) fn covers(&self, edge: &str) -> Result<(), Problem> {
        match &self.edge {
            Some(own) if own != edge => Err(Problem::wrong_edge(own)),
            Some(_) | None => Ok(()),
        }
    }
}
