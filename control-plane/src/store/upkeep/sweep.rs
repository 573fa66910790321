//! Removal of old data in small batches: the hourly sweep, and the compaction of the change log.

use policy::wire::Op;
use policy::{KeyId, Revision, WorkspaceId};
use serde_json::{Map, Value};

use crate::base::clock::Clock;
use crate::store::db::sql::params;
use crate::store::history::audit::Event;
use crate::store::history::changes::{Change, Write};
use crate::store::history::once;
use crate::store::history::retention::{BATCH_ROWS, Progress, Removal, progress};
use crate::store::records::{import, names, sessions, usage};
use crate::store::{ChangeContext, DELETED_KEPT_SECS, ROTATED_AT_EDGE_SECS, Store, StoreError};

/// Removes one batch of what is due, in one change. All removal by age uses the instant of [`Removal`], never the
/// clock's.
type SweepTask = fn(&Removal<'_>) -> Result<Progress, StoreError>;

impl Store {
    /// Removes what is due, in as many changes as it takes. While the clock is implausible it removes nothing, which is
    /// logged. `clock` must be the same one each time, because its monotonic time moves the horizon.
    pub async fn sweep(&self, clock: &Clock) -> Result<(), StoreError> {
        // In case the disk was full when imports were carried out.
        self.finish_imports(import::ImportSpeed::Paced).await?;
        let Some(horizon) = self.retention.horizon(&self.engine, clock).await? else { return Ok(()) };
        let context = ChangeContext::system(clock.now());
        let tasks: [SweepTask; 10] = [
            remove_from_edges,
            purge_deleted_keys,
            purge_revoked_tokens,
            usage::hours_to_days,
            usage::delete_old_days,
            usage::delete_silent_workers,
            sessions::delete_expired,
            once::delete_expired,
            import::delete_old_drafts,
            names::fold_old_names,
        ];
        for task in tasks {
            loop {
                let batch = move |change: &Change<'_>| task(&Removal::new(change, horizon));
                if self.change(context.clone(), batch).await? == Progress::Done {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Drops the log before `keep_from`. An edge below that revision needs a snapshot; one at it still gets deltas.
    pub async fn compact(&self, keep_from: Revision) -> Result<(), StoreError> {
        while self.engine.write(move |write| compact(write, keep_from)).await? == Progress::More {}
        Ok(())
    }
}

/// Removes old rotated-out digests from the edges, with a revision. They stay in the database, so that none is reused.
fn remove_from_edges(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let due = removal.older_than_secs(ROTATED_AT_EDGE_SECS);
    let mut statement = removal.sql().prepare(
        "UPDATE secrets SET at_edge = 0 WHERE digest IN (
             SELECT digest FROM secrets
             WHERE superseded_at IS NOT NULL AND at_edge = 1 AND superseded_at <= ?1
                 AND coalesce(previous_until, superseded_at) <= ?1
             LIMIT ?2)
         RETURNING digest",
    )?;
    let digests = statement.query_map(params![due, BATCH_ROWS], |row| row.get(0))?;
    let ops: Vec<Op> = digests.into_iter().map(Op::Remove).collect();
    if !ops.is_empty() {
        removal.record(&Event::of_all("secrets.leave-edges", count_fields("digests", ops.len())), &ops)?;
    }
    Ok(progress(ops.len()))
}

/// Removes the rows of keys that were deleted long ago, with their digests. Edges no longer have them.
fn purge_deleted_keys(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let due = removal.older_than_secs(DELETED_KEPT_SECS);
    let mut statement = removal.sql().prepare("SELECT workspace_id, id FROM keys WHERE deleted_at <= ?1 LIMIT ?2")?;
    let keys: Vec<(WorkspaceId, KeyId)> =
        statement.query_map(params![due, BATCH_ROWS], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (workspace, id) in &keys {
        removal
            .sql()
            .prepare("DELETE FROM secrets WHERE workspace_id = ?1 AND key_id = ?2")?
            .execute(params![workspace, id])?;
        removal
            .sql()
            .prepare("DELETE FROM keys WHERE workspace_id = ?1 AND id = ?2")?
            .execute(params![workspace, id])?;
    }
    if !keys.is_empty() {
        removal.record(&Event::of_all("keys.forget", count_fields("keys", keys.len())), &[])?;
    }
    Ok(progress(keys.len()))
}

/// Removes the rows of tokens that were revoked long ago.
fn purge_revoked_tokens(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let due = removal.older_than_secs(DELETED_KEPT_SECS);
    let mut deleted_rows = 0;
    for statement in [
        "DELETE FROM admin_tokens WHERE id IN (SELECT id FROM admin_tokens WHERE revoked_at <= ?1 LIMIT ?2)",
        "DELETE FROM edge_tokens WHERE id IN (SELECT id FROM edge_tokens WHERE revoked_at <= ?1 LIMIT ?2)",
    ] {
        let deleted = removal.sql().prepare(statement)?.execute(params![due, BATCH_ROWS])?;
        deleted_rows = deleted.saturating_add(deleted_rows);
    }
    if deleted_rows > 0 {
        removal.record(&Event::of_all("tokens.forget", count_fields("tokens", deleted_rows)), &[])?;
    }
    Ok(progress(deleted_rows))
}

fn count_fields(of: &str, number: usize) -> Map<String, Value> {
    Map::from_iter([(of.to_owned(), Value::from(number))])
}

fn compact(write: &Write<'_>, keep_from: Revision) -> Result<Progress, StoreError> {
    let deleted = write
        .sql()
        .prepare(
            "DELETE FROM changes WHERE revision IN (
                 SELECT revision FROM changes WHERE revision < ?1 ORDER BY revision LIMIT ?2)",
        )?
        .execute(params![keep_from, BATCH_ROWS])?;
    Ok(progress(deleted))
}
