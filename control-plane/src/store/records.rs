//! What edges are told of a digest: a record for each secret that they know.

use policy::wire::{KeyRecord, Op};
use policy::{Digest, KeyId, UnixSeconds, WorkspaceId};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::definitions::Numbers;
use super::{StoreError, rows};

/// All of a record, in the order that [`record`] reads. CROSS JOIN keeps SQLite at this order of tables, so that a snapshot
/// reads digests as they lie on disk.
const SELECT: &str = "SELECT s.digest, s.key_id, s.workspace_id, w.slug, k.environment, k.active, k.expires_at,
           s.superseded_at, s.previous_until, k.scopes, k.ip_allowlist
    FROM secrets s
    CROSS JOIN keys k ON k.workspace_id = s.workspace_id AND k.id = s.key_id
    CROSS JOIN workspaces w ON w.id = s.workspace_id";

/// What to tell edges after a change of the key itself: its current secret and the previous one. Those that were rotated out
/// are refused whatever the key says.
pub(super) fn upsert_live(
    sql: &Connection,
    numbers: &Numbers,
    (workspace, id): (WorkspaceId, KeyId),
) -> Result<Vec<Op>, StoreError> {
    let mut statement = sql.prepare_cached(&format!(
        "{SELECT} WHERE s.workspace_id = ?1 AND s.key_id = ?2 AND s.at_edge = 1
             AND (s.superseded_at IS NULL OR s.previous_until IS NOT NULL)
         ORDER BY s.digest"
    ))?;
    let mut rows = statement.query([workspace.as_bytes(), id.as_bytes()])?;
    let mut ops = Vec::new();
    while let Some(row) = rows.next()? {
        ops.push(Op::Upsert(record(row, numbers)?));
    }
    Ok(ops)
}

/// What to tell edges after a change of one secret; nothing when they don't know it.
pub(super) fn upsert(sql: &Connection, numbers: &Numbers, digest: Digest) -> Result<Option<Op>, StoreError> {
    let mut statement = sql.prepare_cached(&format!("{SELECT} WHERE s.digest = ?1 AND s.at_edge = 1"))?;
    let found = statement.query_row([digest.0], |row| Ok(record(row, numbers))).optional()?;
    found.transpose().map(|record| record.map(Op::Upsert))
}

/// All that edges know, in ascending order of digests.
pub(super) fn each(
    sql: &Connection,
    numbers: &Numbers,
    mut take: impl FnMut(&KeyRecord) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = sql.prepare(&format!("{SELECT} WHERE s.at_edge = 1 ORDER BY s.digest"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(&record(row, numbers)?)?;
    }
    Ok(())
}

fn record(row: &Row<'_>, numbers: &Numbers) -> Result<KeyRecord, StoreError> {
    let expires_at: Option<i64> = row.get(6)?;
    let superseded_at: Option<i64> = row.get(7)?;
    let previous_until: Option<i64> = row.get(8)?;
    Ok(KeyRecord {
        digest: Digest(row.get(0)?),
        key: KeyId::from_bytes(row.get(1)?),
        workspace: WorkspaceId::from_bytes(row.get(2)?),
        slug: row.get(3)?,
        environment: numbers.environment(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)?,
        active: row.get(5)?,
        expires_at: expires_at.map_or(UnixSeconds::DISTANT_FUTURE, UnixSeconds),
        superseded_at: match (superseded_at, previous_until) {
            (None, _) => UnixSeconds::DISTANT_FUTURE,
            (Some(_), Some(until)) => UnixSeconds(until),
            // Not the instant at which it ended: an edge whose clock is behind must refuse it too.
            (Some(_), None) => UnixSeconds::DISTANT_PAST,
        },
        grants: numbers.grants(&rows::json(row, 9)?)?,
        allowlist: rows::allowlist(row, 10)?,
    })
}
