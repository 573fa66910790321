//! Removal by age: the horizon, and the type that every removal uses.
//!
//! The wall clock alone never decides: one that is wrong for an hour could remove a year of data. The horizon follows
//! it, is on disk, and never moves faster than time passes while a control plane runs. If the clock is far from all
//! times in the database, nothing is removed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use policy::wire::Op;
use policy::{Revision, UnixSeconds};
use tracing::error;

use super::audit::Event;
use super::changes::Change;
use crate::base::clock::Clock;
use crate::base::instant;
use crate::store::StoreError;
use crate::store::db::sql::{NONE, Optional as _, Sql, params};
use crate::store::engine::Engine;

/// How far the clock may be from both the newest change and the horizon at the start. A control plane is rarely stopped
/// for longer. A clock that is off by less removes nothing too early: the horizon doesn't follow it that fast.
const MAX_OFFSET_SECS: i64 = 7 * 86_400;

const DAY_SECS: i64 = 86_400;

/// Rows per change (batch), so that other changes run in between.
pub(crate) const BATCH_ROWS: i64 = 500;

/// What the database shows about the time, apart from the clock.
pub(crate) struct Retention {
    /// As of the start.
    known_times: KnownTimes,
    progress: Mutex<HorizonProgress>,
}

#[derive(Clone, Copy)]
struct KnownTimes {
    /// When the newest change was made; `None` in a new database.
    newest: Option<UnixSeconds>,
    horizon: UnixSeconds,
}

/// How far the horizon has moved.
#[derive(Clone, Copy)]
struct HorizonProgress {
    horizon: UnixSeconds,
    /// By the monotonic clock, which starts with the process.
    at: Duration,
}

/// A change that removes old data. Its only instant is the horizon.
pub(crate) struct Removal<'a> {
    change: &'a Change<'a>,
    horizon: UnixSeconds,
}

impl Retention {
    /// For a database that is opened at `now`, by the wall clock. From here on it has a horizon, which a write by a
    /// wrong clock doesn't move.
    pub(crate) fn begin(sql: Sql<'_>, now: UnixSeconds) -> Result<Self, StoreError> {
        let newest = "SELECT changed_at FROM changes ORDER BY revision DESC LIMIT 1";
        let newest = sql.query_row(newest, NONE, |row| row.get(0)).optional()?;
        let horizon = match horizon(sql)? {
            Some(horizon) => horizon,
            None => advance(sql, newest.unwrap_or(now), UnixSeconds(i64::MAX))?,
        };
        let progress = HorizonProgress { horizon, at: Duration::ZERO };
        Ok(Self { known_times: KnownTimes { newest, horizon }, progress: Mutex::new(progress) })
    }

    /// Moves the horizon, which is on disk when this returns. `None`: the clock is implausible, and nothing may be
    /// removed.
    pub(crate) async fn horizon(&self, engine: &Engine, clock: &Clock) -> Result<Option<UnixSeconds>, StoreError> {
        let (wall, since) = (clock.now(), clock.monotonic());
        if let Some(off_secs) = self.known_times.implausible_offset_secs(wall, since) {
            error!(
                clock = instant::text(wall),
                newest_change = self.known_times.newest.map(instant::text),
                off_days = off_secs / DAY_SECS,
                "the clock is far from the newest change in the database, so nothing is removed by age: deleted keys' digests, \
                 usage and sessions stay. Set this machine's clock right, and it goes on within the hour. If the clock is right, \
                 because no control plane ran for so long, make a change and restart this control plane"
            );
            return Ok(None);
        }
        let progress = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let next = progress.advanced_to(since);
        let horizon = engine.write(move |write| advance(write.sql(), next.horizon, wall)).await?;
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = HorizonProgress { horizon, ..next };
        Ok(Some(horizon))
    }
}

impl KnownTimes {
    /// By how many seconds the clock is off, if that is implausible. `None` again once the clock is corrected.
    fn implausible_offset_secs(self, wall: UnixSeconds, since: Duration) -> Option<i64> {
        let passed = secs(since);
        let off = |known: UnixSeconds| wall.0.saturating_sub(known.0.saturating_add(passed)).saturating_abs();
        let nearest = self.newest.map(off).into_iter().chain([off(self.horizon)]).min()?;
        (nearest > MAX_OFFSET_SECS).then_some(nearest)
    }
}

impl HorizonProgress {
    /// Where the horizon may be at an instant of the monotonic clock. A part of a second is left for the next call.
    fn advanced_to(self, since: Duration) -> Self {
        let passed = Duration::from_secs(since.saturating_sub(self.at).as_secs());
        Self { horizon: self.horizon.saturating_add_secs(secs(passed)), at: self.at.saturating_add(passed) }
    }
}

fn secs(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn horizon(sql: Sql<'_>) -> Result<Option<UnixSeconds>, StoreError> {
    let horizon = "SELECT horizon FROM retention WHERE one = 1";
    Ok(sql.query_row(horizon, NONE, |row| row.get(0)).optional()?)
}

/// Moves the horizon to `next`, or to where another replica has moved it if later, but never beyond the wall clock.
fn advance(sql: Sql<'_>, next: UnixSeconds, wall: UnixSeconds) -> Result<UnixSeconds, StoreError> {
    let found = horizon(sql)?;
    let next = found.map_or(next, |found| found.max(next)).min(wall);
    if found != Some(next) {
        let statement = "INSERT INTO retention (one, horizon) VALUES (1, ?1)
                         ON CONFLICT (one) DO UPDATE SET horizon = excluded.horizon";
        sql.execute(statement, params![next])?;
    }
    Ok(next)
}

impl<'a> Removal<'a> {
    pub(crate) fn new(change: &'a Change<'a>, horizon: UnixSeconds) -> Self {
        Self { change, horizon }
    }

    pub(crate) fn sql(&self) -> Sql<'a> {
        self.change.sql()
    }

    /// The instant that has certainly passed.
    pub(crate) fn horizon(&self) -> UnixSeconds {
        self.horizon
    }

    /// This many seconds before the horizon: rows of that instant or earlier are certainly at least that old.
    pub(crate) fn older_than_secs(&self, secs: i64) -> UnixSeconds {
        self.horizon.saturating_add_secs(secs.saturating_neg())
    }

    /// Records the removal as a revision with an event. `ops` are the operations for edges.
    pub(crate) fn record(&self, event: &Event, ops: &[Op]) -> Result<Revision, StoreError> {
        self.change.record(event, ops)
    }
}

/// Whether there is more to remove.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    Done,
}

/// Whether a batch of this many rows may have left some.
pub(crate) fn progress(taken: usize) -> Progress {
    if i64::try_from(taken).is_ok_and(|taken| taken < BATCH_ROWS) { Progress::Done } else { Progress::More }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const NOW: i64 = 1_795_420_800;

    #[test]
    fn a_clock_is_far_off_when_neither_newest_change_nor_horizon_is_near() {
        let start = |newest: Option<i64>, horizon| KnownTimes {
            newest: newest.map(UnixSeconds),
            horizon: UnixSeconds(horizon),
        };
        for (name, known_times, wall, since, far) in [
            ("a new database", start(None, NOW), NOW, 0, None),
            ("after a week", start(Some(NOW), NOW), NOW + 7 * DAY, 0, None),
            ("after more", start(Some(NOW), NOW), NOW + 7 * DAY + 1, 0, Some(7 * DAY + 1)),
            ("400 days ahead", start(Some(NOW), NOW), NOW + 400 * DAY, 0, Some(400 * DAY)),
            ("a clock that forgot the time", start(Some(NOW), NOW), 0, 0, Some(NOW)),
            ("nobody changed anything for a year", start(Some(NOW - 365 * DAY), NOW), NOW, 0, None),
            ("a long stop, and a change after it", start(Some(NOW), NOW - 90 * DAY), NOW, 0, None),
            ("it runs for a year", start(Some(NOW), NOW), NOW + 365 * DAY, 365 * DAY, None),
            ("set right after an hour", start(Some(NOW), NOW), NOW + 3_600, 3_600, None),
            ("wrong after an hour still", start(Some(NOW), NOW), NOW + 400 * DAY, 3_600, Some(400 * DAY - 3_600)),
            ("beyond all clocks", start(Some(i64::MIN), i64::MIN), i64::MAX, i64::MAX, Some(i64::MAX)),
        ] {
            let since = Duration::from_secs(u64::try_from(since).unwrap());
            assert_eq!(known_times.implausible_offset_secs(UnixSeconds(wall), since), far, "{name}");
        }
    }

    #[test]
    fn the_horizon_moves_as_time_passes_and_loses_no_part_of_a_second() {
        let mut progress = HorizonProgress { horizon: UnixSeconds(NOW), at: Duration::ZERO };
        for millis in [700, 1_400, 1_900, 2_100, 2_100] {
            progress = progress.advanced_to(Duration::from_millis(millis));
        }
        assert_eq!((progress.horizon, progress.at), (UnixSeconds(NOW + 2), Duration::from_secs(2)));
        // A monotonic clock never goes back. If it did, the horizon would stay.
        assert_eq!(progress.advanced_to(Duration::ZERO).horizon, UnixSeconds(NOW + 2));
    }
}
