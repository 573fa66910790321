//! The history of changes: each gets, in its own transaction, a revision, a link in the chain and a body for the feed.

use std::cell::Cell;

use policy::wire::{Op, encode_change};
use policy::{ChainHash, Epoch, Position, Revision, UnixSeconds};

use super::audit::{self, Event};
use super::id_catalogue::IdCatalogue;
use super::{edge_bytes, once};
use crate::store::db::sql::{NONE, Optional as _, Sql, params};
use crate::store::{ChangeContext, Store, StoreError};

/// A write in progress, in its savepoint. What it writes is no change, unless a [`Change`] records it.
pub(crate) struct Write<'a> {
    sql: Sql<'a>,
    edge_tokens_differ: &'a Cell<bool>,
}

/// A change in progress: a write that gets a revision and an audit event, and may have operations for edges.
pub(crate) struct Change<'a> {
    write: &'a Write<'a>,
    catalogue: &'a IdCatalogue,
    context: &'a ChangeContext,
}

impl Store {
    /// Runs `work` as one change by `context`: all of it, or nothing if it fails. It is on disk when this returns `Ok`.
    /// If the caller stops waiting, the change may still be carried out.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        context: ChangeContext,
        work: impl FnOnce(&Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let catalogue = self.catalogue.clone();
        self.engine.write(move |write| work(&Change::new(write, &catalogue, &context))).await
    }
}

impl<'a> Write<'a> {
    pub(crate) fn new(sql: Sql<'a>, edge_tokens_differ: &'a Cell<bool>) -> Self {
        Self { sql, edge_tokens_differ }
    }

    /// Marks the edge tokens as changed, so that they are read into memory again.
    pub(crate) fn mark_edge_tokens_changed(&self) {
        self.edge_tokens_differ.set(true);
    }

    pub(crate) fn sql(&self) -> Sql<'a> {
        self.sql
    }

    /// The position of the history before this write.
    pub(crate) fn position(&self) -> Result<Position, StoreError> {
        position(self.sql)
    }

    /// Probes the disk: writes without changing anything. Twice, because SQLite skips a value that stays the same.
    pub(crate) fn touch(&self) -> Result<(), StoreError> {
        for step in [1, -1] {
            self.sql.prepare("UPDATE position SET revision = revision + ?1 WHERE one = 1")?.execute(params![step])?;
        }
        Ok(())
    }
}

impl<'a> Change<'a> {
    pub(crate) fn new(write: &'a Write<'a>, catalogue: &'a IdCatalogue, context: &'a ChangeContext) -> Self {
        Self { write, catalogue, context }
    }

    pub(crate) fn sql(&self) -> Sql<'a> {
        self.write.sql
    }

    /// The numbers of scopes and environments.
    pub(crate) fn catalogue(&self) -> &'a IdCatalogue {
        self.catalogue
    }

    /// Who makes this change, and when.
    pub(crate) fn context(&self) -> &'a ChangeContext {
        self.context
    }

    pub(crate) fn at(&self) -> UnixSeconds {
        self.context.at
    }

    /// See [`Write::mark_edge_tokens_changed`].
    pub(crate) fn mark_edge_tokens_changed(&self) {
        self.write.mark_edge_tokens_changed();
    }

    /// The position of the history before this change.
    pub(crate) fn position(&self) -> Result<Position, StoreError> {
        self.write.position()
    }

    /// The revision that [`Self::record`] will assign to this change.
    pub(crate) fn revision(&self) -> Result<Revision, StoreError> {
        self.position()?.revision.next().filter(is_storable).ok_or_else(exhausted)
    }

    /// Records this change as one revision with one audit event. No other function writes history. `ops`
    /// are the operations for edges, and may be empty.
    pub(crate) fn record(&self, event: &Event, ops: &[Op]) -> Result<Revision, StoreError> {
        let (sql, context) = (self.sql(), self.context);
        let body = encode_change(ops).map_err(|error| StoreError::Fault(error.to_string()))?;
        let position = self.position()?.then(&body).filter(|position| is_storable(&position.revision));
        let position = position.ok_or_else(exhausted)?;
        sql.prepare("INSERT INTO changes (revision, chain_hash, body, changed_at) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![position.revision, position.head, body, context.at])?;
        sql.prepare("UPDATE position SET revision = ?1, head = ?2 WHERE one = 1")?
            .execute(params![position.revision, position.head])?;
        if let Some(once) = context.once {
            once::claim(sql, once, position.revision, event.target_id(), context.at)?;
        }
        edge_bytes::count_bytes(sql, ops)?;
        audit::append(sql, position.revision, context, event)?;
        Ok(position.revision)
    }
}

fn exhausted() -> StoreError {
    StoreError::Fault("revisions have run out".to_owned())
}

/// The position of the history.
pub(crate) fn position(sql: Sql<'_>) -> Result<Position, StoreError> {
    let mut query = sql.prepare("SELECT epoch, revision, head FROM position WHERE one = 1")?;
    Ok(query.query_row(NONE, |row| Ok(Position { epoch: row.get(0)?, revision: row.get(1)?, head: row.get(2)? }))?)
}

/// The chain hash of a revision; `None` if the log no longer has it, or doesn't have it yet.
pub(crate) fn chain_hash(sql: Sql<'_>, at: Revision) -> Result<Option<ChainHash>, StoreError> {
    let (epoch, first): (Epoch, Revision) = sql
        .prepare("SELECT epoch, first_revision FROM position WHERE one = 1")?
        .query_row(NONE, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut query = sql.prepare("SELECT chain_hash FROM changes WHERE revision = ?1")?;
    match query.query_row(params![at], |row| row.get(0)).optional()? {
        Some(hash) => Ok(Some(hash)),
        // An epoch has a position before its first change, too; usable while no change after it was compacted away.
        None if at == first && !is_compacted(sql, first)? => Ok(Some(ChainHash::first(epoch, first))),
        None => Ok(None),
    }
}

/// When a revision was created; `None` if the log doesn't have it.
pub(crate) fn changed_at(sql: Sql<'_>, at: Revision) -> Result<Option<UnixSeconds>, StoreError> {
    let mut query = sql.prepare("SELECT changed_at FROM changes WHERE revision = ?1")?;
    Ok(query.query_row(params![at], |row| row.get(0)).optional()?)
}

fn is_compacted(sql: Sql<'_>, first: Revision) -> Result<bool, StoreError> {
    let oldest: Option<Revision> =
        sql.prepare("SELECT min(revision) FROM changes")?.query_row(NONE, |row| row.get(0))?;
    Ok(oldest.is_some_and(|oldest| Some(oldest) != first.next()))
}

/// Whether the database, whose integers have 64 bits with a sign, can have this revision.
fn is_storable(revision: &Revision) -> bool {
    i64::try_from(revision.0).is_ok()
}
