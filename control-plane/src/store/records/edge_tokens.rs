//! Edge tokens: which edge a token authenticates. Indexed in memory, because the feed checks one with each request.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use policy::{Digest, EdgeTokenId, Revision, UnixSeconds, WorkspaceId};
use serde_json::{Map, Value, json};

use super::tokens::{self, Token, TokenQuery};
use crate::base::secret::LastCharacters;
use crate::store::db::sql::{Row, SqlError, params};
use crate::store::history::audit::{Audited, EventTarget};
use crate::store::history::changes::Change;
use crate::store::{
    AtRevision, ChangeContext, LiveToken, NewSecret, Page, Precondition, RevokedToken, Store, StoreError,
};

/// How often a token's last use is recorded.
const USE_RECORD_INTERVAL_SECS: i64 = 60;

/// A token for the feed. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeToken {
    pub id: EdgeTokenId,
    pub last_characters: LastCharacters,
    pub name: String,
    /// The edge that it may act for.
    pub edge: String,
    pub created_at: UnixSeconds,
    pub created_by: String,
    /// To within a minute.
    pub last_used_at: Option<UnixSeconds>,
    pub revoked_at: Option<UnixSeconds>,
    /// Of its last change.
    pub revision: Revision,
}

/// A token to create.
#[derive(Clone, Debug)]
pub struct NewEdgeToken {
    pub id: EdgeTokenId,
    pub name: String,
    pub edge: String,
    pub secret: NewSecret,
}

impl Store {
    /// Creates a token. The feed accepts it once this returns.
    pub async fn create_edge_token(
        &self,
        new: NewEdgeToken,
        context: ChangeContext,
    ) -> Result<AtRevision<EdgeToken>, StoreError> {
        self.change(context, move |change| create(change, &new)).await
    }

    /// The token with this id; `NotFound` if it was revoked.
    pub async fn edge_token(&self, id: EdgeTokenId) -> Result<EdgeToken, StoreError> {
        self.engine.read(move |sql| tokens::find(sql, id, None)).await
    }

    /// A page of the tokens that aren't revoked, oldest first.
    pub async fn list_edge_tokens(&self, query: TokenQuery<EdgeTokenId>) -> Result<Page<EdgeToken>, StoreError> {
        self.engine.read(move |sql| tokens::list(sql, &query, None)).await
    }

    /// Revokes a token for good. The feed refuses it once this returns.
    pub async fn revoke_edge_token(
        &self,
        id: EdgeTokenId,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<()>, StoreError> {
        self.change(context, move |change| revoke(change, id, &precondition)).await
    }

    /// The token with this digest, if it is valid now. Costs a look-up in memory.
    pub fn live_edge_token(&self, digest: &Digest) -> Option<Arc<LiveToken>> {
        self.engine.edge_tokens().borrow().live.get(digest).cloned()
    }

    /// The token with this digest, if it was revoked. Costs a look-up in memory.
    pub fn revoked_edge_token(&self, digest: &Digest) -> Option<Arc<RevokedToken>> {
        self.engine.edge_tokens().borrow().revoked.get(digest).cloned()
    }

    /// Whether the token with this id is valid now. Costs a look-up in memory.
    pub fn is_live_edge_token(&self, id: &str) -> bool {
        self.engine.edge_tokens().borrow().live_ids.contains(id)
    }

    /// Records in the background that a token was used, at most once a minute.
    pub fn record_edge_token_use(&self, token: &LiveToken, now: UnixSeconds) {
        let recorded_at = token.use_recorded_at.load(Ordering::Relaxed);
        let is_due = UnixSeconds(recorded_at).saturating_add_secs(USE_RECORD_INTERVAL_SECS).is_reached(now);
        let order = Ordering::Relaxed;
        // Only one request of that minute writes.
        if is_due && token.use_recorded_at.compare_exchange(recorded_at, now.0, order, order).is_ok() {
            let (engine, id) = (Arc::clone(&self.engine), token.id);
            // If this fails, the store logs why.
            tokio::spawn(
                async move { engine.write(move |write| tokens::record_use::<EdgeToken>(write, id, now)).await },
            );
        }
    }
}

fn create(change: &Change<'_>, new: &NewEdgeToken) -> Result<AtRevision<EdgeToken>, StoreError> {
    let inserted = change
        .sql()
        .prepare(
            "INSERT INTO edge_tokens (id, digest, last_characters, name, edge, created_at, created_by, revision)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (digest) DO NOTHING",
        )?
        .execute(params![
            new.id,
            new.secret.digest,
            new.secret.last_characters,
            new.name,
            new.edge,
            change.at(),
            change.context().actor.id,
            change.revision()?
        ])?;
    let created = tokens::record_created(change, new.id, inserted)?;
    change.mark_edge_tokens_changed();
    Ok(created)
}

pub(crate) fn revoke(
    change: &Change<'_>,
    id: EdgeTokenId,
    precondition: &Precondition,
) -> Result<AtRevision<()>, StoreError> {
    let revoked = tokens::revoke::<EdgeToken>(change, id, None, precondition)?;
    change.mark_edge_tokens_changed();
    Ok(revoked)
}

impl Token for EdgeToken {
    type Id = EdgeTokenId;

    const TABLE: &'static str = "edge_tokens";
    const COLUMNS: &'static str =
        "id, last_characters, name, edge, created_at, created_by, last_used_at, revoked_at, revision";
    const CREATED: &'static str = "edge-token.create";
    const REVOKED: &'static str = "edge-token.revoke";

    fn read(row: &Row<'_>) -> Result<Self, SqlError> {
        Ok(Self {
            id: row.get(0)?,
            last_characters: row.get(1)?,
            name: row.get(2)?,
            edge: row.get(3)?,
            created_at: row.get(4)?,
            created_by: row.get(5)?,
            last_used_at: row.get(6)?,
            revoked_at: row.get(7)?,
            revision: row.get(8)?,
        })
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}

impl Audited for EdgeToken {
    fn target(&self) -> EventTarget {
        EventTarget { kind: "edge_token", id: self.id.to_string(), name: self.name.clone() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn fields(&self) -> Map<String, Value> {
        let fields = [
            ("name", json!(self.name)),
            ("edge", json!(self.edge)),
            ("last_characters", json!(self.last_characters.0)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
