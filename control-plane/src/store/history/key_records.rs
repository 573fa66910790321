//! The record that edges get for each secret that they know.

use policy::wire::{KeyRecord, Op};
use policy::{Allowlist, Digest, KeyId, UnixSeconds, WorkspaceId};

use super::id_catalogue::IdCatalogue;
use crate::store::StoreError;
use crate::store::db::sql::{NONE, Optional as _, Row, Sql, params};

/// All columns of a record, in the order that [`record`] reads them. The tables are joined in this order, so that a
/// snapshot reads digests as they lie on disk.
const SELECT: &str = "SELECT s.digest, s.key_id, s.workspace_id, w.slug, k.environment, k.active, k.expires_at,
           s.superseded_at, s.previous_until, k.scopes, k.ip_allowlist
    FROM secrets s
    JOIN keys k ON k.workspace_id = s.workspace_id AND k.id = s.key_id
    JOIN workspaces w ON w.id = s.workspace_id";

/// The operations for edges after a change of the key itself: its current secret and the previous one. Rotated-out
/// secrets are refused whatever the key's state.
pub(crate) fn upsert_live(
    sql: Sql<'_>,
    catalogue: &IdCatalogue,
    (workspace, id): (WorkspaceId, KeyId),
) -> Result<Vec<Op>, StoreError> {
    let statement = format!(
        "{} WHERE s.workspace_id = ?1 AND s.key_id = ?2 AND s.at_edge = 1
             AND (s.superseded_at IS NULL OR s.previous_until IS NOT NULL)
         ORDER BY s.digest",
        sql.in_join_order(SELECT)
    );
    let mut ops = Vec::new();
    sql.prepare(&statement)?.each(params![workspace, id], |row| {
        ops.push(Op::Upsert(record(row, catalogue)?));
        Ok::<(), StoreError>(())
    })?;
    Ok(ops)
}

/// The operation for edges after a change of one secret; `None` if they don't have it.
pub(crate) fn upsert(sql: Sql<'_>, catalogue: &IdCatalogue, digest: Digest) -> Result<Option<Op>, StoreError> {
    let statement = format!("{} WHERE s.digest = ?1 AND s.at_edge = 1", sql.in_join_order(SELECT));
    let found = sql.query_row(&statement, params![digest], |row| Ok(record(row, catalogue))).optional()?;
    found.transpose().map(|record| record.map(Op::Upsert))
}

/// Passes all records that edges have to `take`, in ascending order of digests.
pub(crate) fn each(
    sql: Sql<'_>,
    catalogue: &IdCatalogue,
    mut take: impl FnMut(&KeyRecord) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let statement = format!("{} WHERE s.at_edge = 1 ORDER BY s.digest", sql.in_join_order(SELECT));
    sql.prepare(&statement)?.each(NONE, |row| take(&record(row, catalogue)?))
}

fn record(row: &Row<'_>, catalogue: &IdCatalogue) -> Result<KeyRecord, StoreError> {
    let expires_at: Option<UnixSeconds> = row.get(6)?;
    let superseded_at: Option<UnixSeconds> = row.get(7)?;
    let previous_until: Option<UnixSeconds> = row.get(8)?;
    let mut record = KeyRecord {
        digest: row.get(0)?,
        key: row.get(1)?,
        workspace: row.get(2)?,
        slug: row.get(3)?,
        environment: catalogue.environment(row.text(4)?)?,
        active: false,
        expires_at: expires_at.unwrap_or(UnixSeconds::DISTANT_FUTURE),
        superseded_at: match (superseded_at, previous_until) {
            (None, _) => UnixSeconds::DISTANT_FUTURE,
            (Some(_), Some(until)) => until,
            // Not the instant at which it ended: an edge whose clock is behind must refuse it too.
            (Some(_), None) => UnixSeconds::DISTANT_PAST,
        },
        grants: Vec::new(),
        allowlist: Allowlist::Any,
    };
    // The record of a rotated-out secret has nothing that can change: the key's later changes aren't sent for it, and a
    // snapshot must equal the deltas.
    if record.superseded_at != UnixSeconds::DISTANT_PAST {
        record.active = row.get(5)?;
        record.grants = catalogue.grants(&row.get(9)?)?;
        record.allowlist = row.get(10)?;
    }
    Ok(record)
}
