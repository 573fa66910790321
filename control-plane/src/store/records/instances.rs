//! Storage of instances, so that they survive a restart of the control plane.

mod removal;

use std::net::IpAddr;

use policy::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::base::staleness_bound::StalenessBound;
use crate::store::db::domain::{self, from_json, json_param};
use crate::store::db::sql::{
    Column, FromColumn, Kind, NONE, Optional as _, Param, Row, Sql, SqlError, ToParam, params,
};
use crate::store::history::changes::Write;
use crate::store::{Store, StoreError};

pub(crate) use self::removal::InstanceRemoval;

/// One Envoy process, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    /// The first edge name that it used.
    pub edge: String,
    /// The tokens that acted for it, in order of first use: ids of edge tokens, or `token-file`. Stored as one text,
    /// with a space between them.
    pub tokens: Vec<String>,
    /// The remote address of its first connection.
    pub address: Option<IpAddr>,
    /// The filter's version, as it reports it.
    pub version: Option<String>,
    /// The feed's format.
    pub format: u16,
    /// Whether it has ever acknowledged.
    pub acknowledged: bool,
    /// The largest staleness bound that it reported since it started.
    pub bound: StalenessBound,
    /// Its known workers that haven't ended, by id.
    pub workers: Vec<Worker>,
    pub first_seen_at: UnixSeconds,
    /// On disk: when the row was last written.
    pub last_seen_at: UnixSeconds,
    /// When it left, or an operator removed it.
    pub ended_at: Option<UnixSeconds>,
}

/// One wasm VM of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    pub id: String,
    /// By its own clock, seconds since 1970.
    pub started_at: i64,
}

const COLUMNS: &str = "i.id, i.edge, i.token, i.address, i.version, i.format, i.acknowledged, i.max_staleness_secs,
    i.workers, i.first_seen_at, i.last_seen_at, i.ended_at";

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

/// Additional columns that replicas need, in PostgreSQL only.
const SHARED_COLUMNS: &str = "i.changed, i.changed_by, i.told";

impl Store {
    /// All instances, including ended ones.
    pub async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        self.engine.read(all).await
    }

    /// Writes an instance as `current` returns it when the write's turn comes, so that the last write is the newest.
    /// Returns the other value of `current`; if that returns `None`, nothing is written. This is not a change: it
    /// has no revision and no audit event.
    pub(crate) async fn save_instance<T: Send + 'static>(
        &self,
        current: impl FnOnce() -> Option<(Instance, T)> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let work = move |write: &Write<'_>| match current() {
            Some((instance, result)) => save(write.sql(), &instance).map(|()| Some(result)),
            None => Ok(None),
        };
        self.engine.write(work).await
    }

    /// Like [`Self::save_instance`] where other replicas write, too: what they wrote stays, and `current` and
    /// `acknowledged` are merged into it. `current` also returns the number of the row's last change that it knows.
    /// When this returns, the newest revision as of this write is known. An instance that has ended stays as it is.
    pub(crate) async fn renew_instance<T: Send + 'static>(
        &self,
        acknowledged: Option<AcknowledgedState>,
        current: impl FnOnce() -> Option<(Instance, i64, T)> + Send + 'static,
    ) -> Result<Option<(RenewalResult, T)>, StoreError> {
        let Some(me) = self.replica().map(str::to_owned) else { return Ok(None) };
        let work = move |write: &Write<'_>| match current() {
            Some((instance, known, result)) => {
                renew(write.sql(), instance, acknowledged, known, &me).map(|renewed| Some((renewed, result)))
            }
            None => Ok(None),
        };
        self.engine.write(work).await
    }

    /// Records in the rows that this replica wrote last that it no longer answers these instances.
    pub(crate) async fn release_instances(&self, ids: Vec<String>) -> Result<(), StoreError> {
        let Some(me) = self.replica().map(str::to_owned) else { return Ok(()) };
        let ids = serde_json::to_string(&ids).map_err(|error| StoreError::Fault(error.to_string()))?;
        let work = move |write: &Write<'_>| {
            let release = "UPDATE instances SET changed_by = '', changed = nextval('instance_changes')
                WHERE changed_by = ?1 AND id IN (SELECT json_array_elements_text(CAST(?2 AS json)))";
            write.sql().prepare(release)?.execute(params![me, ids])?;
            Ok(())
        };
        self.engine.write(work).await
    }

    /// Records that an instance was notified that it has ended.
    pub(crate) async fn record_end_notice(&self, id: String) -> Result<(), StoreError> {
        let Some(me) = self.replica().map(str::to_owned) else { return Ok(()) };
        let work = move |write: &Write<'_>| {
            let update = "UPDATE instances SET told = 1 WHERE id = ?1 AND ended_at IS NOT NULL AND told = 0";
            let is_first_notice = write.sql().prepare(update)?.execute(params![id])? > 0;
            if is_first_notice {
                record_row_change(write.sql(), &id, &me)?;
                notify_replicas(write.sql())?;
            }
            Ok(())
        };
        self.engine.write(work).await
    }

    /// Deletes the rows of instances. Each comes with the number of its row's last change: a row that another replica
    /// has changed since is kept.
    pub(crate) async fn delete_instances(&self, ids: Vec<(String, i64)>) -> Result<(), StoreError> {
        let is_shared = self.is_shared();
        let work = move |write: &Write<'_>| {
            for (id, known) in &ids {
                if is_shared {
                    let delete = "DELETE FROM instances WHERE id = ?1 AND changed = ?2";
                    write.sql().prepare(delete)?.execute(params![id, *known])?;
                } else {
                    write.sql().prepare("DELETE FROM instances WHERE id = ?1")?.execute(params![id])?;
                }
            }
            Ok(())
        };
        self.engine.write(work).await
    }
}

pub(crate) fn save(sql: Sql<'_>, instance: &Instance) -> Result<(), StoreError> {
    sql.prepare(
        "INSERT INTO instances (id, edge, token, address, version, format, acknowledged, max_staleness_secs, workers,
             first_seen_at, last_seen_at, ended_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (id) DO UPDATE SET token = ?3, version = ?5, format = ?6, acknowledged = ?7, max_staleness_secs = ?8,
             workers = ?9, last_seen_at = ?11, ended_at = ?12",
    )?
    .execute(params![
        instance.id,
        instance.edge,
        instance.tokens.join(" "),
        instance.address,
        instance.version,
        instance.format,
        instance.acknowledged,
        instance.bound,
        instance.workers,
        instance.first_seen_at,
        instance.last_seen_at,
        instance.ended_at
    ])?;
    Ok(())
}

pub(crate) fn all(sql: Sql<'_>) -> Result<Vec<Instance>, StoreError> {
    let mut statement = sql.prepare(&format!("SELECT {COLUMNS} FROM instances i"))?;
    Ok(statement.query_map(NONE, instance)?)
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
        notify_replicas(sql)?;
    }
    let row = InstanceRow { instance, changed, changed_by: me.to_owned(), is_notified: false };
    Ok(RenewalResult { row, others_wrote, missing })
}

/// The tokens of both lists, each once.
pub(crate) fn merge_tokens(mut tokens: Vec<String>, more: Vec<String>) -> Vec<String> {
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

/// Notifies other replicas to read the database once this is committed.
fn notify_replicas(sql: Sql<'_>) -> Result<(), StoreError> {
    Ok(sql.execute_batch("NOTIFY latchkey")?)
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

/// A row of [`COLUMNS`].
fn instance(row: &Row<'_>) -> Result<Instance, SqlError> {
    Ok(Instance {
        id: row.get(0)?,
        edge: row.get(1)?,
        tokens: row.get::<String>(2)?.split_ascii_whitespace().map(str::to_owned).collect(),
        address: domain::address(row, 3)?,
        version: row.get(4)?,
        format: row.get(5)?,
        acknowledged: row.get(6)?,
        bound: row.get(7)?,
        workers: row.get(8)?,
        first_seen_at: row.get(9)?,
        last_seen_at: row.get(10)?,
        ended_at: row.get(11)?,
    })
}

/// The workers of an instance, as JSON.
impl ToParam for Vec<Worker> {
    const KIND: Kind = Kind::Text;

    fn to_param(&self) -> Param<'_> {
        json_param(self)
    }
}

impl FromColumn for Vec<Worker> {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        from_json(column)
    }
}

/// NULL means never.
impl ToParam for StalenessBound {
    const KIND: Kind = Kind::Integer;

    fn to_param(&self) -> Param<'_> {
        match self {
            // The maximum is 292 billion years, longer than any clock counts.
            Self::Secs(secs) => Param::Integer(i64::try_from(*secs).unwrap_or(i64::MAX)),
            Self::Never => Param::Null(Kind::Integer),
        }
    }
}

impl FromColumn for StalenessBound {
    fn from_column(column: Column<'_>) -> Result<Self, String> {
        let secs = Option::<i64>::from_column(column)?;
        Ok(secs.and_then(|secs| u64::try_from(secs).ok()).map_or(Self::Never, Self::Secs))
    }
}
