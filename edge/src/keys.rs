//! What a worker knows of keys, and how fresh it is.

use policy::decide::Knowledge;
use policy::{Holding, Position, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::metrics::Report;

/// Both clocks of the edge at one instant. All workers of an Envoy read the same two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Milliseconds since 1970; may be set back and forward.
    pub wall_ms: i64,
    /// Milliseconds since some instant; never set.
    pub monotonic_ms: u64,
}

/// The control plane's clock when an answer of it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Milliseconds since 1970, by the control plane.
    pub time_ms: i64,
    /// By our monotonic clock.
    pub at_ms: u64,
}

/// The keys, and the control plane's word on them.
#[derive(Default)]
pub struct Keys {
    pub holding: Holding,
    /// The last position that the control plane vouched for, and when it was asked.
    word: Option<(Position, Clocks)>,
    /// When it was asked for the word that the table stands on.
    vouched: Option<Clocks>,
    heard: Option<Heard>,
}

impl Keys {
    /// What may be decided with now, under a staleness bound in seconds. The table's age counts by either clock: a clock
    /// that was set back makes no table young.
    pub fn knowledge(&self, now: Clocks, max_staleness_secs: Option<u64>) -> Knowledge<'_> {
        let (Some(_), Some(age_ms)) = (self.holding.position(), self.age_ms(now)) else { return Knowledge::NotReady };
        let is_stale = max_staleness_secs.is_some_and(|bound| age_ms > bound.saturating_mul(1_000));
        if is_stale { Knowledge::Stale } else { Knowledge::Serving(&self.holding) }
    }

    /// The later of the wall clock and the control plane's clock as we know it, so that a wall clock that was set back
    /// revives no expired key. Ours of theirs is never ahead of it: each time is cut off to the millisecond.
    pub fn now(&self, clocks: Clocks) -> UnixSeconds {
        let theirs = self.heard.map(|Heard { time_ms, at_ms }| {
            let since = clocks.monotonic_ms.saturating_sub(at_ms);
            // Two cut-off times may be a millisecond further apart than the instants.
            time_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX)).saturating_sub(1)
        });
        UnixSeconds(theirs.map_or(clocks.wall_ms, |theirs| theirs.max(clocks.wall_ms)).div_euclid(1_000))
    }

    /// The control plane was asked at `asked`, and said that at `position` nothing was newer. Counts once the table is there.
    pub fn vouch(&mut self, position: Position, asked: Clocks) {
        self.word = Some((position, asked));
        self.settle();
    }

    /// What the control plane said counts no more: nothing is decided before it has said something new.
    pub fn distrust(&mut self) {
        (self.word, self.vouched) = (None, None);
    }

    /// To be called when the table may have reached the position that was vouched for.
    pub fn settle(&mut self) {
        if let Some((position, asked)) = self.word
            && self.holding.position() == Some(position)
        {
            self.vouched = Some(asked);
        }
    }

    /// An answer told the control plane's time.
    pub fn hear(&mut self, heard: Heard) {
        self.heard = Some(heard);
    }

    /// When the control plane was asked for the word that the table stands on.
    pub fn vouched(&self) -> Option<Clocks> {
        self.vouched
    }

    /// The control plane's clock, as it was heard last.
    pub fn heard(&self) -> Option<Heard> {
        self.heard
    }

    /// What this worker knows, for the gauges.
    pub fn report(&self, now: Clocks, max_staleness_secs: Option<u64>) -> Report {
        let Some(position) = self.holding.position() else { return Report::default() };
        Report {
            revision: position.revision.0,
            keys: self.holding.len(),
            age_secs: self.age_ms(now).unwrap_or_default() / 1_000,
            is_ready: matches!(self.knowledge(now, max_staleness_secs), Knowledge::Serving(_)),
        }
    }

    /// How long ago the control plane was asked for the word that the table stands on, by the clock that says more.
    fn age_ms(&self, now: Clocks) -> Option<u64> {
        let vouched = self.vouched?;
        let by_wall = u64::try_from(now.wall_ms.saturating_sub(vouched.wall_ms)).unwrap_or(0);
        Some(by_wall.max(now.monotonic_ms.saturating_sub(vouched.monotonic_ms)))
    }
}
