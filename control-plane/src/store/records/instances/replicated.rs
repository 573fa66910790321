//! Instances that several replicas write: each row has the number of its last change, and who made it.
//!
//! Only a server's database has these columns.

use super::{COLUMNS, Instance, Worker, instance, save};
use crate::store::db::postgres::notify_change;
use crate::store::db::sql::{Optional as _, Row, Sql, SqlError, params};
use crate::store::history::changes::Write;
use crate::store::{Deployment, Replication, Store, StoreError};

/// An instance's row as replicas share it.
#[derive(Clone, Debug)]
pub(crate) struct InstanceRow {
    pub(crate) instance: Instance,
    /// The number of the row's last change.
    pub(crate) changed: i64,
    /// The replica that made that change; empty if no replica may answer the instance because of it.
    pub(crate) changed_by: String,
    /// Whether an instance that has ended was notified of that.
    pub(crate) is_notified: bool,
}

impl InstanceRow {
    /// Whether another replica may answer the instance because of its write.
    pub(crate) fn is_by_another(&self, me: &str) -> bool {
        !self.changed_by.is_empty() && self.changed_by != me
    }
}

/// What an acknowledgement reports about an instance.
#[derive(Clone, Debug)]
pub(crate) struct AcknowledgedState {
    pub(crate) workers: Vec<Worker>,
    /// Ids of workers that ended.
    pub(crate) ended: Vec<String>,
    pub(crate) version: Option<String>,
}

/// The result of writing an instance that other replicas may write, too.
#[derive(Clone, Debug)]
pub(crate) struct RenewalResult {
    pub(crate) row: InstanceRow,
    /// Whether another replica had written it since this one last read it.
    pub(crate) others_wrote: bool,
    /// A worker that the acknowledgement left out; then nothing of the acknowledgement was written.
    pub(crate) missing: Option<String>,
}

/// The columns that only replicas need.
const SHARED_COLUMNS: &str = "i.changed, i.changed_by, i.told";

impl Store {
    /// Like [`Self::save_instance`] where other replicas write, too: what they wrote stays, and `current` and
    /// `acknowledged` are merged into it. `current` also returns the number of the row's last change that it knows.
    /// When this returns, the newest revision as of this write is known. An instance that has ended stays as it is.
    pub(crate) async fn renew_instance<T: Send + 'static>(
        &self,
        replication: &Replication,
        acknowledged: Option<AcknowledgedState>,
        current: impl FnOnce() -> Option<(Instance, i64, T)> + Send + 'static,
    ) -> Result<Option<(RenewalResult, T)>, StoreError> {
        let me = replication.id().to_owned();
        let work = move |write: &Write<'_>| match current() {
            Some((instance, known, result)) => {
                renew(write.sql(), instance, acknowledged, known, &me).map(|renewed| Some((renewed, result)))
            }
            None => Ok(None),
        };
        self.engine.write(work).await
    }

    /// Records in the rows that this replica wrote last that it no longer answers these instances.
    pub(crate) async fn release_instances(
        &self,
        replication: &Replication,
        ids: Vec<String>,
    ) -> Result<(), StoreError> {
        let me = replication.id().to_owned();
        let json_ids = serde_json::to_string(&ids).map_err(|error| StoreError::Fault(error.to_string()))?;
        let work = move |write: &Write<'_>| {
            let release = "UPDATE instances SET changed_by = '', changed = nextval('instance_changes')
                WHERE changed_by = ?1 AND id IN (SELECT json_array_elements_text(CAST(?2 AS json)))";
            write.sql().prepare(release)?.execute(params![me, json_ids])?;
            Ok(())
        };
        self.engine.write(work).await
    }

    /// Records that an instance was notified that it has ended. Does nothing where there are no other replicas.
    pub(crate) async fn record_end_notice(&self, id: String) -> Result<(), StoreError> {
        let Deployment::Replicated(replication) = self.deployment() else { return Ok(()) };
        let me = replication.id().to_owned();
        let work = move |write: &Write<'_>| {
            let update = "UPDATE instances SET told = 1 WHERE id = ?1 AND ended_at IS NOT NULL AND told = 0";
            let is_first_notice = write.sql().prepare(update)?.execute(params![id])? > 0;
            if is_first_notice {
                record_row_change(write.sql(), &id, &me)?;
                notify_change(write.sql())?;
            }
            Ok(())
        };
        self.engine.write(work).await
    }
}

fn renew(
    sql: Sql<'_>,
    mine: Instance,
    acknowledged: Option<AcknowledgedState>,
    known: i64,
    me: &str,
) -> Result<RenewalResult, StoreError> {
    let found = row_of(sql, &mine.id)?;
    let others_wrote = found.as_ref().is_some_and(|row| row.changed > known && row.is_by_another(me));
    if let Some(row) = found.as_ref().filter(|row| row.instance.ended_at.is_some()) {
        return Ok(RenewalResult { row: row.clone(), others_wrote, missing: None });
    }
    let is_new = found.is_none();
    let mut instance = match found {
        Some(InstanceRow { instance: theirs, .. }) => Instance {
            tokens: merge_tokens(theirs.tokens, mine.tokens),
            bound: theirs.bound.max(mine.bound),
            last_seen_at: theirs.last_seen_at.max(mine.last_seen_at),
            ended_at: mine.ended_at,
            ..theirs
        },
        None => mine,
    };
    let mut missing = None;
    if let Some(AcknowledgedState { workers, ended, version }) = acknowledged {
        let is_named = |id: &String| ended.contains(id) || workers.iter().any(|worker| worker.id == *id);
        missing = instance.workers.iter().find(|worker| !is_named(&worker.id)).map(|worker| worker.id.clone());
        if missing.is_none() {
            // An empty list states nothing about what requests are decided by.
            instance.acknowledged |= !workers.is_empty();
            (instance.workers, instance.version) = (workers, version);
        }
    }
    save(sql, &instance)?;
    let changed = record_row_change(sql, &instance.id, me)?;
    if is_new || instance.ended_at.is_some() {
        notify_change(sql)?;
    }
    let row = InstanceRow { instance, changed, changed_by: me.to_owned(), is_notified: false };
    Ok(RenewalResult { row, others_wrote, missing })
}

/// The tokens of both lists, each once.
fn merge_tokens(mut tokens: Vec<String>, more: Vec<String>) -> Vec<String> {
    for token in more {
        if !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    tokens
}

/// Gives an instance's row the next change number, and returns it.
fn record_row_change(sql: Sql<'_>, id: &str, me: &str) -> Result<i64, StoreError> {
    let update = "UPDATE instances SET changed = nextval('instance_changes'), changed_by = ?2 WHERE id = ?1
                RETURNING changed";
    Ok(sql.prepare(update)?.query_row(params![id, me], |row| row.get(0))?)
}

/// Deletes an instance's row, unless another replica has changed it since the change `known`.
pub(super) fn delete(sql: Sql<'_>, id: &str, known: i64) -> Result<(), StoreError> {
    sql.execute("DELETE FROM instances WHERE id = ?1 AND changed = ?2", params![id, known])?;
    Ok(())
}

/// Writes an instance that has ended, which counts as notified. Returns false, and writes nothing, if another replica
/// has changed its row since the change `known`.
pub(super) fn save_ended(sql: Sql<'_>, instance: &Instance, known: i64, me: &str) -> Result<bool, StoreError> {
    if row_of(sql, &instance.id)?.is_none_or(|row| row.changed != known) {
        return Ok(false);
    }
    save(sql, instance)?;
    sql.execute("UPDATE instances SET told = 1 WHERE id = ?1", params![instance.id])?;
    record_row_change(sql, &instance.id, me)?;
    Ok(true)
}

/// Instances whose rows were changed after the change with this number.
pub(crate) fn changed_since(sql: Sql<'_>, changed: i64) -> Result<Vec<InstanceRow>, StoreError> {
    let statement = format!("SELECT {COLUMNS}, {SHARED_COLUMNS} FROM instances i WHERE i.changed > ?1");
    Ok(sql.prepare(&statement)?.query_map(params![changed], instance_row)?)
}

fn row_of(sql: Sql<'_>, id: &str) -> Result<Option<InstanceRow>, StoreError> {
    let statement = format!("SELECT {COLUMNS}, {SHARED_COLUMNS} FROM instances i WHERE i.id = ?1");
    Ok(sql.prepare(&statement)?.query_row(params![id], instance_row).optional()?)
}

/// A row of [`COLUMNS`] and [`SHARED_COLUMNS`].
fn instance_row(row: &Row<'_>) -> Result<InstanceRow, SqlError> {
    Ok(InstanceRow {
        instance: instance(row)?,
        changed: row.get(12)?,
        changed_by: row.get(13)?,
        is_notified: row.get(14)?,
    })
}
