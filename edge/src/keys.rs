//! A worker's keys and their freshness: the table, and the control plane's last confirmation of it.

use policy::decide::Knowledge;
use policy::{LiveTable, Position, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::metrics::Report;

/// Both clocks of the edge at one instant. All workers of an Envoy read the same two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Milliseconds since 1970; may be set back and forward.
    pub wall_ms: i64,
    /// Milliseconds since an arbitrary instant; never set.
    pub monotonic_ms: u64,
}

/// The control plane's clock, as of its last response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlaneTime {
    /// Milliseconds since 1970, by the control plane's clock.
    pub time_ms: i64,
    /// When the response arrived, by this edge's monotonic clock.
    pub at_ms: u64,
}

/// The keys, and how fresh they are.
#[derive(Default)]
pub struct Keys {
    /// The table. It serves only while its confirmation is fresh: requests are decided by [`Self::knowledge`].
    pub live_table: LiveTable,
    /// The last position that the control plane confirmed as the newest, and when the request for that was sent.
    confirmation: Option<(Position, Clocks)>,
    /// When the request was sent whose response confirmed the table's own position.
    confirmed_at: Option<Clocks>,
    control_plane_time: Option<ControlPlaneTime>,
}

impl Keys {
    /// What requests are decided by now, under a staleness bound in seconds. The table's age is the larger one of the
    /// two clocks': a clock that was set back makes no table fresh.
    pub fn knowledge(&self, now: Clocks, max_staleness_secs: Option<u64>) -> Knowledge<'_> {
        let (Some(_), Some(age_ms)) = (self.live_table.position(), self.age_ms(now)) else {
            return Knowledge::NotReady;
        };
        let is_stale = max_staleness_secs.is_some_and(|bound| age_ms > bound.saturating_mul(1_000));
        if is_stale { Knowledge::Stale } else { Knowledge::Serving(&self.live_table) }
    }

    /// The later of the wall clock and the estimate of the control plane's clock, so that a wall clock that was set
    /// back makes no expired key valid. The estimate is never ahead of the control plane's clock: times are truncated
    /// to milliseconds.
    pub fn now(&self, clocks: Clocks) -> UnixSeconds {
        let estimate_ms = self.control_plane_time.map(|ControlPlaneTime { time_ms, at_ms }| {
            let since = clocks.monotonic_ms.saturating_sub(at_ms);
            // Two truncated times may differ by a millisecond more than the instants do.
            time_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX)).saturating_sub(1)
        });
        UnixSeconds(estimate_ms.map_or(clocks.wall_ms, |estimate| estimate.max(clocks.wall_ms)).div_euclid(1_000))
    }

    /// The control plane confirmed `position` as the newest, in the response to a request sent at `requested_at`. Takes
    /// effect once the table has that position.
    pub fn confirm(&mut self, position: Position, requested_at: Clocks) {
        self.confirmation = Some((position, requested_at));
        self.apply_confirmation();
    }

    /// Discards the control plane's confirmation: nothing is decided before there is a new one.
    pub fn discard_confirmation(&mut self) {
        (self.confirmation, self.confirmed_at) = (None, None);
    }

    /// Call this when the table may have reached the confirmed position.
    pub fn apply_confirmation(&mut self) {
        if let Some((position, requested_at)) = self.confirmation
            && self.live_table.position() == Some(position)
        {
            self.confirmed_at = Some(requested_at);
        }
    }

    /// A response contained the control plane's time.
    pub fn set_control_plane_time(&mut self, time: ControlPlaneTime) {
        self.control_plane_time = Some(time);
    }

    /// When the request was sent whose response confirmed the table.
    pub fn confirmed_at(&self) -> Option<Clocks> {
        self.confirmed_at
    }

    /// The control plane's clock, as of its last response.
    pub fn control_plane_time(&self) -> Option<ControlPlaneTime> {
        self.control_plane_time
    }

    /// The state of this worker's keys, for the gauges.
    pub fn report(&self, now: Clocks, max_staleness_secs: Option<u64>) -> Report {
        let Some(position) = self.live_table.position() else { return Report::default() };
        Report {
            revision: position.revision.0,
            keys: self.live_table.len(),
            age_secs: self.age_ms(now).unwrap_or_default() / 1_000,
            is_ready: matches!(self.knowledge(now, max_staleness_secs), Knowledge::Serving(_)),
        }
    }

    /// How long ago the request was sent whose response confirmed the table, by the clock that shows more.
    fn age_ms(&self, now: Clocks) -> Option<u64> {
        let confirmed_at = self.confirmed_at?;
        let by_wall = u64::try_from(now.wall_ms.saturating_sub(confirmed_at.wall_ms)).unwrap_or(0);
        Some(by_wall.max(now.monotonic_ms.saturating_sub(confirmed_at.monotonic_ms)))
    }
}
