//! Reads for the feed: the changes since a position, and a snapshot of all records at one.

use policy::wire::{Snapshot, SnapshotBuilder};
use policy::{Position, Revision, UnixSeconds};

use super::id_catalogue::IdCatalogue;
use super::{changes, key_records};
use crate::store::db::sql::{Sql, params};
use crate::store::{Store, StoreError};

/// The most bytes of bodies in one delta; an edge that is further behind polls again. A worker applies a delta in one
/// turn of its event loop: this much takes it about half a millisecond.
const DELTA_BYTES: usize = 64 << 10;

/// Changes per query. Few, because a change may be an import's step of many keys.
const CHANGES_AT_ONCE: i64 = 256;

/// How far ahead of the database a revision that an edge reports may be: nobody with an edge token may use up all
/// revisions.
const MAX_AHEAD: i64 = 1_000_000_000;

/// What an edge lacks, from its position to the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangesSince {
    /// The edge has the head.
    Nothing,
    /// These changes lead to `to`, which is the head or a revision before it.
    Changes { to: Position, bodies: Vec<Vec<u8>> },
    /// The edge has another history, or the log no longer has its position: it needs a snapshot.
    Unknown,
    /// The edge has a revision of this history that the database lost: it is an older copy of the one that served
    /// before. Its history ends at `head`, made at `changed_at` (`None` if the log is empty). The edge needs a
    /// snapshot.
    WentBack { head: Revision, changed_at: Option<UnixSeconds> },
}

impl Store {
    /// The changes since `from`.
    pub async fn changes_since(&self, from: Position) -> Result<ChangesSince, StoreError> {
        self.engine.read(move |sql| since(sql, from)).await
    }

    /// The newest revision, and the bytes of the changes after `from` up to it.
    pub async fn bytes_since(&self, from: Revision) -> Result<(Revision, u64), StoreError> {
        self.engine.read(move |sql| bytes_since(sql, from)).await
    }

    /// Records that an edge has a revision that this database never had: a restore has to begin above it. This is not
    /// a change: it has no revision and no audit event.
    pub async fn record_reported_revision(&self, revision: Revision) -> Result<(), StoreError> {
        self.engine.write(move |write| record_reported_revision(write.sql(), revision)).await
    }

    /// All records at one position. Costs a pass over all secrets, away from the async threads.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let catalogue = self.catalogue.clone();
        self.engine.read(move |sql| snapshot(sql, &catalogue)).await
    }
}

fn since(sql: Sql<'_>, from: Position) -> Result<ChangesSince, StoreError> {
    let head = changes::position(sql)?;
    if from.epoch != head.epoch {
        return Ok(ChangesSince::Unknown);
    }
    let is_ahead = from.revision > head.revision;
    let ours = if is_ahead { None } else { changes::chain_hash(sql, from.revision)? };
    match ours {
        Some(ours) if ours == from.head => {}
        None if !is_ahead => return Ok(ChangesSince::Unknown),
        _ => {
            return Ok(ChangesSince::WentBack {
                head: head.revision,
                changed_at: changes::changed_at(sql, head.revision)?,
            });
        }
    }
    let mut statement =
        sql.prepare("SELECT revision, chain_hash, body FROM changes WHERE revision > ?1 ORDER BY revision LIMIT ?2")?;
    let (mut to, mut bodies, mut bytes) = (from, Vec::new(), 0_usize);
    'full: loop {
        let some = statement.query_map(params![to.revision, CHANGES_AT_ONCE], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<Vec<u8>>(2)?))
        })?;
        if some.is_empty() {
            break;
        }
        for (revision, head, body) in some {
            bytes = bytes.saturating_add(body.len());
            // One change always fits, however large.
            if bytes > DELTA_BYTES && !bodies.is_empty() {
                break 'full;
            }
            (to.revision, to.head) = (revision, head);
            bodies.push(body);
        }
    }
    if bodies.is_empty() { Ok(ChangesSince::Nothing) } else { Ok(ChangesSince::Changes { to, bodies }) }
}

fn bytes_since(sql: Sql<'_>, from: Revision) -> Result<(Revision, u64), StoreError> {
    let bytes = sql
        .prepare("SELECT coalesce(sum(length(body)), 0) FROM changes WHERE revision > ?1")?
        .query_row(params![from], |row| row.get::<i64>(0))?;
    Ok((changes::position(sql)?.revision, u64::try_from(bytes).unwrap_or(0)))
}

fn record_reported_revision(sql: Sql<'_>, revision: Revision) -> Result<(), StoreError> {
    sql.prepare(
        "UPDATE position SET reported_revision = ?1
         WHERE one = 1 AND reported_revision < ?1 AND ?1 <= revision + ?2",
    )?
    .execute(params![revision, MAX_AHEAD])?;
    Ok(())
}

fn snapshot(sql: Sql<'_>, catalogue: &IdCatalogue) -> Result<Snapshot, StoreError> {
    let failed = |error: policy::wire::EncodeError| StoreError::Fault(error.to_string());
    // In the reader's transaction, so position and records are of one instant.
    let mut builder = SnapshotBuilder::new(changes::position(sql)?, catalogue.scopes(), catalogue.environments());
    key_records::each(sql, catalogue, |record| builder.push(record).map_err(failed))?;
    builder.finish().map_err(failed)
}
