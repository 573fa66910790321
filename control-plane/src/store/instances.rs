//! Instances that were seen, as they outlive a restart of the control plane.

use std::net::IpAddr;

use policy::{UnixSeconds, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::audit::{Audited, Event, Target};
use super::changes::Change;
use super::sql::{NONE, Row, Sql, SqlError, params};
use super::{Acting, Changed, Store, StoreError};
use crate::edges::Bound;

/// One Envoy process, as far as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    /// The edge name it first used.
    pub edge: String,
    /// The token it first used: an edge token's id, or `token-file`.
    pub token: String,
    /// The other end of its first connection.
    pub address: Option<IpAddr>,
    /// Of the filter, in its own words.
    pub version: Option<String>,
    /// Of the feed.
    pub format: u16,
    /// Whether it ever did.
    pub acknowledged: bool,
    /// The largest that it named since it started.
    pub bound: Bound,
    /// Those that are known and not ended, by id.
    pub workers: Vec<Worker>,
    pub first_seen_at: UnixSeconds,
    /// On disk: when it was last written.
    pub last_seen_at: UnixSeconds,
    /// When it retired, or an operator said that it is gone.
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
    /// All instances, those that ended included.
    pub async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        self.engine.read(all).await
    }

    /// Writes an instance as `current` says it is when its turn comes, so that what is written last is the newest. Answers with
    /// what `current` said besides; nothing is written where it says nothing. No change of what edges enforce: it has no
    /// revision and no event.
    pub(crate) async fn save_instance<T: Send + 'static>(
        &self,
        current: impl FnOnce() -> Option<(Instance, T)> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let work = move |change: &Change<'_>| match current() {
            Some((instance, told)) => save(change.sql(), &instance).map(|()| Some(told)),
            None => Ok(None),
        };
        self.engine.change(work).await
    }

    /// Notes an operator's word that an instance is gone.
    pub(crate) async fn end_instance(&self, instance: Instance, acting: Acting) -> Result<Changed<()>, StoreError> {
        let work = move |change: &Change<'_>| {
            save(change.sql(), &instance)?;
            let revision = change.record(&acting, &Event::ended("instance.remove", &instance), &[])?;
            Ok(Changed { value: (), revision })
        };
        self.engine.change(work).await
    }

    /// Forgets instances.
    pub(crate) async fn forget_instances(&self, ids: Vec<String>) -> Result<(), StoreError> {
        let work = move |change: &Change<'_>| {
            for id in &ids {
                change.sql().prepare("DELETE FROM instances WHERE id = ?1")?.execute(params![id])?;
            }
            Ok(())
        };
        self.engine.change(work).await
    }
}

pub(super) fn save(sql: Sql<'_>, instance: &Instance) -> Result<(), StoreError> {
    let workers = serde_json::to_string(&instance.workers).map_err(|error| StoreError::Fault(error.to_string()))?;
    let bound = match instance.bound {
        // Longer than any clock counts: 292 billion years.
        Bound::Secs(secs) => Some(i64::try_from(secs).unwrap_or(i64::MAX)),
        Bound::Never => None,
    };
    sql.prepare(
        "INSERT INTO instances (id, edge, token, address, version, format, acknowledged, max_staleness_secs, workers,
             first_seen_at, last_seen_at, ended_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (id) DO UPDATE SET version = ?5, format = ?6, acknowledged = ?7, max_staleness_secs = ?8,
             workers = ?9, last_seen_at = ?11, ended_at = ?12",
    )?
    .execute(params![
        instance.id,
        instance.edge,
        instance.token,
        instance.address.map(|address| address.to_string()),
        instance.version,
        instance.format,
        instance.acknowledged,
        bound,
        workers,
        instance.first_seen_at.0,
        instance.last_seen_at.0,
        instance.ended_at.map(|at| at.0)
    ])?;
    Ok(())
}

pub(super) fn all(sql: Sql<'_>) -> Result<Vec<Instance>, StoreError> {
    let mut statement = sql.prepare(&format!("SELECT {COLUMNS} FROM instances i"))?;
    Ok(statement.query_map(NONE, instance)?)
}

/// A row of [`COLUMNS`].
fn instance(row: &Row<'_>) -> Result<Instance, SqlError> {
    let workers: String = row.get(8)?;
    let workers = serde_json::from_str(&workers).map_err(|error| SqlError::unfit(8, error))?;
    let bound: Option<i64> = row.get(7)?;
    Ok(Instance {
        id: row.get(0)?,
        edge: row.get(1)?,
        token: row.get(2)?,
        address: row.get::<Option<String>>(3)?.and_then(|address| address.parse().ok()),
        version: row.get(4)?,
        format: row.get(5)?,
        acknowledged: row.get(6)?,
        bound: bound.and_then(|secs| u64::try_from(secs).ok()).map_or(Bound::Never, Bound::Secs),
        workers,
        first_seen_at: UnixSeconds(row.get(9)?),
        last_seen_at: UnixSeconds(row.get(10)?),
        ended_at: row.get::<Option<i64>>(11)?.map(UnixSeconds),
    })
}

impl Audited for Instance {
    fn target(&self) -> Target {
        Target { kind: "instance", id: self.id.clone(), name: self.edge.clone() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn fields(&self) -> Map<String, Value> {
        let max_staleness_secs = match self.bound {
            Bound::Secs(secs) => json!(secs),
            Bound::Never => Value::Null,
        };
        let fields = [("edge", json!(self.edge)), ("max_staleness_secs", max_staleness_secs)];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
