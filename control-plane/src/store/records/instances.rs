//! Storage of instances, so that they survive a restart of the control plane.

mod removal;
mod replicated;

use std::net::IpAddr;

use policy::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::base::staleness_bound::StalenessBound;
use crate::store::db::domain::{self, from_json, json_param};
use crate::store::db::sql::{Column, FromColumn, Kind, NONE, Param, Row, Sql, SqlError, ToParam, params};
use crate::store::history::changes::Write;
use crate::store::{Deployment, Store, StoreError};

pub(crate) use self::removal::InstanceRemoval;
pub(crate) use self::replicated::{AcknowledgedState, InstanceRow, RenewalResult, changed_since};

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

    /// Deletes the rows of instances. Each comes with the number of its row's last change: a row that another replica
    /// has changed since is kept.
    pub(crate) async fn delete_instances(&self, ids: Vec<(String, i64)>) -> Result<(), StoreError> {
        let delete: fn(Sql<'_>, &str, i64) -> Result<(), StoreError> = match self.deployment() {
            Deployment::Single => delete,
            Deployment::Replicated(_) => replicated::delete,
        };
        let work = move |write: &Write<'_>| ids.iter().try_for_each(|(id, known)| delete(write.sql(), id, *known));
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

/// Deletes an instance's row. No other process can have changed it.
fn delete(sql: Sql<'_>, id: &str, _known: i64) -> Result<(), StoreError> {
    sql.execute("DELETE FROM instances WHERE id = ?1", params![id])?;
    Ok(())
}

pub(crate) fn all(sql: Sql<'_>) -> Result<Vec<Instance>, StoreError> {
    let mut statement = sql.prepare(&format!("SELECT {COLUMNS} FROM instances i"))?;
    Ok(statement.query_map(NONE, instance)?)
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
