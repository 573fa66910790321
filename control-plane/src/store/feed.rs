//! What the feed reads: the changes since a position, and all records at one.

use policy::Position;
use policy::wire::{Snapshot, SnapshotBuilder};
use rusqlite::{Connection, params};

use super::definitions::Numbers;
use super::{Store, StoreError, changes, records};

/// The most bytes of bodies in one delta; an edge that has more to catch up asks again.
const DELTA_BYTES: usize = 1 << 20;

/// What lies between an edge's position and ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Nothing,
    /// These changes lead to `to`, which is the head or on the way to it.
    Changes { to: Position, bodies: Vec<Vec<u8>> },
    /// The edge's history isn't ours, or the log doesn't reach back to it: it needs a snapshot.
    Unknown,
}

impl Store {
    /// The changes since `from`.
    pub async fn changes_since(&self, from: Position) -> Result<Since, StoreError> {
        self.engine.read(move |sql| since(sql, from)).await
    }

    /// All records at the position of one instant. Costs a pass over all secrets, away from the async threads.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let numbers = self.numbers.clone();
        self.engine.read(move |sql| snapshot(sql, &numbers)).await
    }
}

fn since(sql: &Connection, from: Position) -> Result<Since, StoreError> {
    let head = changes::position(sql)?;
    let is_ours = from.epoch == head.epoch
        && from.revision <= head.revision
        && changes::chain_hash(sql, from.revision)? == Some(from.head);
    if !is_ours {
        return Ok(Since::Unknown);
    }
    let mut statement =
        sql.prepare_cached("SELECT revision, chain_hash, body FROM changes WHERE revision > ?1 ORDER BY revision")?;
    let mut rows = statement.query(params![changes::number(from.revision)?])?;
    let (mut to, mut bodies, mut bytes) = (from, Vec::new(), 0_usize);
    while let Some(row) = rows.next()? {
        let body: Vec<u8> = row.get(2)?;
        bytes = bytes.saturating_add(body.len());
        // One change always fits, however large.
        if bytes > DELTA_BYTES && !bodies.is_empty() {
            break;
        }
        to.revision = changes::revision(row.get(0)?);
        to.head = policy::ChainHash(row.get(1)?);
        bodies.push(body);
    }
    if bodies.is_empty() { Ok(Since::Nothing) } else { Ok(Since::Changes { to, bodies }) }
}

fn snapshot(sql: &Connection, numbers: &Numbers) -> Result<Snapshot, StoreError> {
    let failed = |error: policy::wire::EncodeError| StoreError::Fault(error.to_string());
    // In the transaction of the reader, so position and records are of one instant.
    let mut builder = SnapshotBuilder::new(changes::position(sql)?, numbers.scopes(), numbers.environments());
    records::each(sql, numbers, |record| builder.push(record).map_err(failed))?;
    builder.finish().map_err(failed)
}
