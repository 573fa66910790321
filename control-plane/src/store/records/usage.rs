//! Usage of keys: the last use in a key's row, and its counts by hour, day and outcome.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::protocol::usage::{HOUR_SECS, SecretMark};
use policy::{Digest, KeyId, UnixSeconds, WorkspaceId};

use super::keys;
use crate::store::db::domain;
use crate::store::db::sql::{NONE, Optional as _, Row, Sql, SqlError, params, values};
use crate::store::history::retention::{BATCH_ROWS, Progress, Removal, progress};
use crate::store::records::usage_delta::{DAY_SECS, Denial};
use crate::store::{Store, StoreError};

/// For how many days, today included, usage is counted by hour.
const HOURLY_DAYS: i64 = 8;

/// For how many days, today included, usage is kept. Before the [`HOURLY_DAYS`] it is counted by day.
const DAYS_KEPT: i64 = 365;

/// How long after its last batch a worker's sequence is kept.
const WORKER_KEPT_SECS: i64 = 30 * DAY_SECS;

/// When and from where a key was used. A use is a request that was allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    pub last_at: Option<UnixSeconds>,
    pub last_address: Option<IpAddr>,
    /// Of the current secret.
    pub secret_at: Option<UnixSeconds>,
    /// Of the previous one, while there is one.
    pub previous_secret_at: Option<UnixSeconds>,
}

impl KeyUse {
    /// Reads these columns of a row.
    pub(crate) fn read(row: &Row<'_>, [last, address, secret, previous]: [usize; 4]) -> Result<Self, SqlError> {
        Ok(Self {
            last_at: row.get(last)?,
            last_address: domain::address(row, address)?,
            secret_at: row.get(secret)?,
            previous_secret_at: row.get(previous)?,
        })
    }
}

/// The usage of a key.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// The hours of the last week with a count, oldest first.
    pub hours: Vec<Period>,
    /// The days before, for a year, with a count.
    pub days: Vec<Period>,
    /// The latest, newest first.
    pub(crate) denials: Vec<Denial>,
}

/// The counts of a key in an hour or on a day.
#[derive(Clone, Debug)]
pub struct Period {
    /// Its start.
    pub at: UnixSeconds,
    /// By outcome: `allowed`, or a denial's code.
    pub counts: Vec<(String, u64)>,
}

impl Store {
    /// The usage of a key. Costs a look-up for each hour of a week and each day of a year: a millisecond or two.
    pub async fn usage(&self, workspace: WorkspaceId, id: KeyId, now: UnixSeconds) -> Result<Usage, StoreError> {
        self.engine
            .read(move |sql| {
                keys::find(sql, workspace, id)?;
                Ok(Usage {
                    hours: periods(sql, id, HOURS, now)?,
                    days: periods(sql, id, DAYS, now)?,
                    denials: denials(sql, id)?,
                })
            })
            .await
    }
}

impl Store {
    /// The number of usage rows, for tests and monitors that check that it is bounded. Costs a pass over all of them.
    pub async fn usage_rows(&self) -> Result<u64, StoreError> {
        let work = |sql: Sql<'_>| {
            let count = sql.query_row(
                "SELECT (SELECT count(*) FROM key_usage) + (SELECT count(*) FROM key_denials)
                     + (SELECT count(*) FROM usage_hours) + (SELECT count(*) FROM usage_days)
                     + (SELECT count(*) FROM usage_workers) + (SELECT count(*) FROM usage_rounds)",
                NONE,
                |row| row.get::<i64>(0),
            )?;
            Ok(u64::try_from(count).unwrap_or_default())
        };
        self.engine.read(work).await
    }
}

/// The highest count of a period, whatever the edges report: `2^62`, so that no sum overflows. The statements below
/// contain the number.
const MAX_COUNT: i64 = 1 << 62;

/// A table of counts.
#[derive(Clone, Copy)]
struct CountTable {
    secs: i64,
    oldest: &'static str,
    of_one: &'static str,
    add: &'static str,
}

const HOURS: CountTable = CountTable {
    secs: HOUR_SECS,
    oldest: "SELECT min(hour) FROM usage_hours",
    of_one: "SELECT outcome, count FROM usage_hours WHERE hour = ?1 AND key_id = ?2",
    add: "INSERT INTO usage_hours (hour, key_id, outcome, count) VALUES (?1, ?2, ?3, ?4)
          ON CONFLICT (hour, key_id, outcome) DO UPDATE SET count = CASE
              WHEN usage_hours.count > 4611686018427387904 - excluded.count THEN 4611686018427387904
              ELSE usage_hours.count + excluded.count END",
};

const DAYS: CountTable = CountTable {
    secs: DAY_SECS,
    oldest: "SELECT min(day) FROM usage_days",
    of_one: "SELECT outcome, count FROM usage_days WHERE day = ?1 AND key_id = ?2",
    add: "INSERT INTO usage_days (day, key_id, outcome, count) VALUES (?1, ?2, ?3, ?4)
          ON CONFLICT (day, key_id, outcome) DO UPDATE SET count = CASE
              WHEN usage_days.count > 4611686018427387904 - excluded.count THEN 4611686018427387904
              ELSE usage_days.count + excluded.count END",
};

/// Adds counts of keys by hour and outcome. A count of an hour that is too old for the hourly table goes to its day.
pub(crate) fn add<'a>(
    sql: Sql<'_>,
    counts: impl Iterator<Item = (KeyId, UnixSeconds, &'a str, u64)>,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let (mut hours, mut days) = (Periods::new(), Periods::new());
    for (key, hour, outcome, more) in counts {
        let hour = hour.0.clamp(first_day(now, DAYS_KEPT), now.0);
        let more = i64::try_from(more).unwrap_or(i64::MAX);
        let is_day = hour < first_day(now, HOURLY_DAYS);
        let (table, secs) = if is_day { (&mut days, DAYS.secs) } else { (&mut hours, HOURS.secs) };
        let count = table.entry((start(hour, secs), key, outcome.to_owned())).or_default();
        *count = count.saturating_add(more);
    }
    for (counts, table) in [(hours, HOURS), (days, DAYS)] {
        table.add(sql, counts)?;
    }
    Ok(())
}

/// Counts by the start of their period, key and outcome.
type Periods = BTreeMap<(i64, KeyId, String), i64>;

impl CountTable {
    fn add(self, sql: Sql<'_>, counts: Periods) -> Result<(), StoreError> {
        let row =
            |((at, key, outcome), count): ((i64, KeyId, String), i64)| values![at, key, outcome, count.min(MAX_COUNT)];
        sql.execute_each(self.add, counts.into_iter().map(row))?;
        Ok(())
    }
}

/// The start of the hour or day of an instant.
fn start(at: i64, secs: i64) -> i64 {
    at.div_euclid(secs).saturating_mul(secs)
}

/// The start of the first of so many days, of which today is the last.
fn first_day(now: UnixSeconds, days: i64) -> i64 {
    start(now.0, DAY_SECS).saturating_sub(days.saturating_sub(1).saturating_mul(DAY_SECS))
}

fn periods(sql: Sql<'_>, key: KeyId, table: CountTable, now: UnixSeconds) -> Result<Vec<Period>, StoreError> {
    let oldest: Option<i64> = sql.prepare(table.oldest)?.query_row(NONE, |row| row.get(0))?;
    let (mut periods, mut of_one) = (Vec::new(), sql.prepare(table.of_one)?);
    let mut at = start(oldest.unwrap_or(i64::MAX), table.secs);
    while at <= now.0 {
        let counts = of_one.query_map(params![at, key], |row| {
            Ok((row.get(0)?, row.get::<i64>(1).map(|count| u64::try_from(count).unwrap_or_default())?))
        })?;
        if !counts.is_empty() {
            periods.push(Period { at: UnixSeconds(at), counts });
        }
        at = at.saturating_add(table.secs);
    }
    Ok(periods)
}

/// The latest denials, newest first.
pub(crate) fn denials(sql: Sql<'_>, key: KeyId) -> Result<Vec<Denial>, StoreError> {
    let mut latest = sql.prepare("SELECT latest FROM key_denials WHERE key_id = ?1")?;
    let latest = latest.query_row(params![key], |row| row.get::<Vec<Denial>>(0)).optional()?;
    Ok(latest.unwrap_or_default())
}

/// Records the new current secret of each of these keys. A new key gets its row.
pub(crate) fn set_current_secrets(
    sql: Sql<'_>,
    workspace: WorkspaceId,
    secrets: impl Iterator<Item = (KeyId, Digest)>,
) -> Result<(), StoreError> {
    let row = |(id, digest): (KeyId, Digest)| values![id, workspace, SecretMark::of(&digest)];
    sql.execute_each(
        "INSERT INTO key_usage (key_id, workspace_id, secret) VALUES (?1, ?2, ?3)
         ON CONFLICT (key_id) DO UPDATE SET secret = excluded.secret, secret_last_used_at = NULL",
        secrets.map(row),
    )?;
    Ok(())
}

/// Records that the current secret becomes the previous one.
pub(crate) fn begin_overlap(sql: Sql<'_>, id: KeyId) -> Result<(), StoreError> {
    sql.prepare(
        "UPDATE key_usage SET previous_secret = secret, previous_secret_last_used_at = secret_last_used_at
         WHERE key_id = ?1",
    )?
    .execute(params![id])?;
    Ok(())
}

/// Records that there is no previous secret any more.
pub(crate) fn end_overlap(sql: Sql<'_>, id: KeyId) -> Result<(), StoreError> {
    sql.prepare("UPDATE key_usage SET previous_secret = NULL, previous_secret_last_used_at = NULL WHERE key_id = ?1")?
        .execute(params![id])?;
    Ok(())
}

/// Removes the usage of a deleted key. Its counts are removed by age.
pub(crate) fn delete_key_usage(sql: Sql<'_>, id: KeyId) -> Result<(), StoreError> {
    for statement in ["DELETE FROM key_usage WHERE key_id = ?1", "DELETE FROM key_denials WHERE key_id = ?1"] {
        sql.prepare(statement)?.execute(params![id])?;
    }
    Ok(())
}

/// Moves counts of old hours to their days.
pub(crate) fn hours_to_days(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let sql = removal.sql();
    let before = first_day(removal.horizon(), HOURLY_DAYS);
    let mut due = sql.prepare("SELECT hour, key_id, outcome, count FROM usage_hours WHERE hour < ?1 LIMIT ?2")?;
    let rows = due.query_map(params![before, BATCH_ROWS], |row| {
        Ok((row.get::<i64>(0)?, row.get::<KeyId>(1)?, row.get::<String>(2)?, row.get::<i64>(3)?))
    })?;
    let mut days = Periods::new();
    for (hour, key, outcome, more) in &rows {
        let count = days.entry((start(*hour, DAY_SECS), *key, outcome.clone())).or_default();
        *count = count.saturating_add(*more);
    }
    DAYS.add(sql, days)?;
    let moved = rows.iter().map(|(hour, key, outcome, _)| values![hour, key, outcome]);
    sql.execute_each("DELETE FROM usage_hours WHERE (hour, key_id, outcome) IN (VALUES (?1, ?2, ?3))", moved)?;
    Ok(progress(rows.len()))
}

/// Removes counts of days of more than a year ago.
pub(crate) fn delete_old_days(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let deleted = removal
        .sql()
        .prepare(
            "DELETE FROM usage_days WHERE (day, key_id, outcome) IN (
                 SELECT day, key_id, outcome FROM usage_days WHERE day < ?1 LIMIT ?2)",
        )?
        .execute(params![first_day(removal.horizon(), DAYS_KEPT), BATCH_ROWS])?;
    Ok(progress(deleted))
}

/// Removes workers that sent nothing for long, and rounds that belong to no worker: they were interrupted and won't be
/// finished.
pub(crate) fn delete_silent_workers(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let due = removal.older_than_secs(WORKER_KEPT_SECS);
    let deleted = removal
        .sql()
        .prepare(
            "DELETE FROM usage_workers WHERE (instance, worker) IN (
                 SELECT instance, worker FROM usage_workers WHERE noted_at <= ?1 LIMIT ?2)",
        )?
        .execute(params![due, BATCH_ROWS])?;
    removal
        .sql()
        .prepare("DELETE FROM usage_rounds WHERE id NOT IN (SELECT round FROM usage_workers)")?
        .execute(NONE)?;
    Ok(progress(deleted))
}
