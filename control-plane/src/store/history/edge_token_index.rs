//! All edge tokens by digest, in memory, because the feed checks one with each request.
//!
//! A new index is published with the commit that changed the tokens.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use policy::{Digest, EdgeTokenId, UnixSeconds};

use crate::store::StoreError;
use crate::store::db::sql::{NONE, Sql};

/// An index of all tokens by digest. A digest is a SHA-256 of random text, so the time of a look-up reveals nothing.
#[derive(Debug, Default)]
pub(crate) struct EdgeTokenIndex {
    pub(crate) live: HashMap<Digest, Arc<LiveToken>>,
    /// The ids of the live tokens, as text.
    pub(crate) live_ids: HashSet<String>,
    /// Revoked tokens, until their rows are removed.
    pub(crate) revoked: HashMap<Digest, Arc<RevokedToken>>,
}

/// A token that was valid once.
#[derive(Debug)]
pub struct RevokedToken {
    pub id: EdgeTokenId,
    /// The edge that it acted for.
    pub edge: String,
}

/// What the feed knows about a valid token.
#[derive(Debug)]
pub struct LiveToken {
    pub id: EdgeTokenId,
    /// The edge that it may act for.
    pub edge: String,
    /// When its use was last recorded, in seconds; the earliest instant for never.
    pub(crate) use_recorded_at: AtomicI64,
}

/// Loads all tokens, including revoked ones.
pub(crate) fn load_index(sql: Sql<'_>) -> Result<EdgeTokenIndex, StoreError> {
    let mut statement =
        sql.prepare("SELECT t.digest, t.id, t.edge, t.last_used_at, t.revoked_at FROM edge_tokens t")?;
    let mut index = EdgeTokenIndex::default();
    let rows = statement.query_map(NONE, |row| {
        let digest = row.get(0)?;
        let (id, edge) = (row.get(1)?, row.get(2)?);
        if row.get::<Option<UnixSeconds>>(4)?.is_some() {
            return Ok((digest, Err(Arc::new(RevokedToken { id, edge }))));
        }
        let use_recorded_at = row.get::<Option<UnixSeconds>>(3)?.unwrap_or(UnixSeconds::DISTANT_PAST);
        let use_recorded_at = AtomicI64::new(use_recorded_at.0);
        Ok((digest, Ok(Arc::new(LiveToken { id, edge, use_recorded_at }))))
    })?;
    for (digest, token) in rows {
        match token {
            Ok(live) => {
                index.live_ids.insert(live.id.to_string());
                index.live.insert(digest, live);
            }
            Err(revoked) => drop(index.revoked.insert(digest, revoked)),
        }
    }
    Ok(index)
}
