//! Whether an instance has a revision, from what is known of it and two instants. No clock, no SQL.
//!
//! Instants are time since some fixed one, by the control plane's monotonic clock.

use std::time::Duration;

use policy::Revision;
use policy::protocol::timing::INSTANCE_LEASE_SECS;

/// How long after its last request an instance counts as connected.
pub const LEASE: Duration = Duration::from_secs(INSTANCE_LEASE_SECS);

/// What a bound is longer here by, as a part of it: two clocks that are slewed by NTP's 500 ppm, one each way, drift apart
/// by a thousandth.
const DRIFT_PART: u32 = 1_000;

/// How long an instance goes on deciding without a word from the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    Secs(u64),
    /// For ever. Larger than any other.
    Never,
}

impl Bound {
    /// The bound that a message states: none is for ever.
    pub fn of(max_staleness_secs: Option<u64>) -> Self {
        max_staleness_secs.map_or(Self::Never, Self::Secs)
    }
}

/// What is known of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Receipt of its last request; the start of the control plane when there was none since.
    pub heard_at: Duration,
    pub bound: Bound,
    /// What all of its workers have; `None` when it hasn't said since the control plane started.
    pub applied: Option<Revision>,
    pub workers: usize,
}

/// What an instance is, as to one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Connected, and each worker has it.
    Current,
    /// Connected, and some worker hasn't said that it has it.
    Behind,
    /// Silent for longer than the lease.
    Disconnected,
    /// Silent for longer than its bound: it denies by itself.
    Stale,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Current, Self::Behind, Self::Disconnected, Self::Stale];

    pub fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Disconnected => "disconnected",
            Self::Stale => "stale",
        }
    }
}

impl Facts {
    /// From when on it denies by itself if it hears nothing more; `None`: never.
    pub fn denies_at(&self) -> Option<Duration> {
        match self.bound {
            Bound::Secs(secs) => {
                let bound = Duration::from_secs(secs);
                self.heard_at.checked_add(bound)?.checked_add(bound / DRIFT_PART)
            }
            Bound::Never => None,
        }
    }

    pub fn state(&self, revision: Revision, now: Duration) -> State {
        if self.denies_at().is_some_and(|at| at < now) {
            State::Stale
        } else if !self.is_connected(now) {
            State::Disconnected
        } else if self.has(revision) {
            State::Current
        } else {
            State::Behind
        }
    }

    /// Whether its lease runs.
    pub fn is_connected(&self, now: Duration) -> bool {
        now <= self.heard_at.saturating_add(LEASE)
    }

    /// How many revisions up to `head` it lacks, or hasn't said that it has.
    pub fn lag(&self, head: Revision) -> u64 {
        head.0.saturating_sub(self.applied.map_or(0, |applied| applied.0))
    }

    /// Whether no request that starts from now on is decided without the revision. What a process has it doesn't lose.
    pub fn is_enforced(&self, revision: Revision, now: Duration) -> bool {
        self.has(revision) || self.state(revision, now) == State::Stale
    }

    fn has(&self, revision: Revision) -> bool {
        self.applied.is_some_and(|applied| applied >= revision)
    }
}

/// When a revision is enforced even if nothing more is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounded {
    /// It is.
    Already,
    At(Duration),
    Never,
}

/// Whether a revision is enforced everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforcement {
    pub bounded: Bounded,
    /// Known instances.
    pub edges: usize,
    /// Of all of them.
    pub workers: usize,
    /// Silent ones whose bound has not passed.
    pub disconnected: usize,
}

impl Enforcement {
    /// Of all known instances. With none it is not enforced: nobody has said so.
    pub fn of(known: impl Iterator<Item = Facts>, revision: Revision, now: Duration) -> Self {
        let mut found = Self { bounded: Bounded::Already, edges: 0, workers: 0, disconnected: 0 };
        for facts in known {
            found.edges = found.edges.saturating_add(1);
            found.workers = found.workers.saturating_add(facts.workers);
            let is_disconnected = facts.state(revision, now) == State::Disconnected;
            found.disconnected = found.disconnected.saturating_add(usize::from(is_disconnected));
            if !facts.is_enforced(revision, now) {
                found.bounded = found.bounded.and(facts.denies_at());
            }
        }
        if found.edges == 0 {
            found.bounded = Bounded::Never;
        }
        found
    }

    pub fn is_enforced(&self) -> bool {
        self.bounded == Bounded::Already
    }
}

impl Bounded {
    fn and(self, at: Option<Duration>) -> Self {
        match (self, at) {
            (Self::Never, _) | (_, None) => Self::Never,
            (Self::Already, Some(at)) => Self::At(at),
            (Self::At(other), Some(at)) => Self::At(other.max(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn facts(heard_at: u64, bound: Bound, applied: Option<u64>) -> Facts {
        Facts { heard_at: at(heard_at), bound, applied: applied.map(Revision), workers: 3 }
    }

    #[test]
    fn an_instance_s_state_follows_from_what_was_heard_and_when() {
        use Bound::{Never, Secs};
        use State::{Behind, Current, Disconnected, Stale};
        for (name, heard, bound, applied, now, state, enforced) in [
            ("just heard, has it", 100, Secs(60), Some(7), at(100), Current, true),
            ("just heard, has more", 100, Secs(60), Some(8), at(100), Current, true),
            ("just heard, has less", 100, Secs(60), Some(6), at(100), Behind, false),
            ("never acknowledged", 100, Secs(60), None, at(100), Behind, false),
            ("the lease's last instant", 100, Secs(60), Some(6), at(130), Behind, false),
            ("silent", 100, Secs(60), Some(6), at(131), Disconnected, false),
            ("silent, but it has it", 100, Secs(60), Some(7), at(131), Disconnected, true),
            ("the bound's last instant", 100, Secs(60), Some(6), at(160), Disconnected, false),
            ("within the drift of clocks", 100, Secs(60), None, Duration::from_millis(160_060), Disconnected, false),
            ("past its bound", 100, Secs(60), None, Duration::from_millis(160_061), Stale, true),
            ("a bound shorter than the lease", 100, Secs(10), Some(6), at(111), Stale, true),
            ("without a bound", 100, Never, Some(6), at(1_000_000), Disconnected, false),
            ("a bound beyond all clocks", 100, Secs(u64::MAX), Some(6), at(1_000_000), Disconnected, false),
        ] {
            let facts = facts(heard, bound, applied);
            assert_eq!(facts.state(Revision(7), now), state, "{name}");
            assert_eq!(facts.is_enforced(Revision(7), now), enforced, "{name}");
        }
    }

    #[test]
    fn a_revision_is_enforced_when_each_known_instance_has_it_or_denies() {
        use Bound::{Never, Secs};
        let (has, behind) = (facts(100, Secs(60), Some(7)), facts(100, Secs(60), Some(6)));
        let (later, endless, stale) = (facts(120, Secs(100), None), facts(100, Never, None), facts(10, Secs(20), None));
        for (name, known, bounded, disconnected) in [
            ("none is known", &[][..], Bounded::Never, 0),
            ("one has it, and is silent", &[has], Bounded::Already, 1),
            ("one is behind", &[has, behind], Bounded::At(Duration::from_millis(160_060)), 2),
            ("the last bound counts", &[later, behind, has], Bounded::At(Duration::from_millis(220_100)), 2),
            ("one has no bound", &[behind, endless, later], Bounded::Never, 2),
            ("one denies by itself", &[has, stale], Bounded::Already, 1),
        ] {
            // Past the lease of those that were heard at 100.
            let found = Enforcement::of(known.iter().copied(), Revision(7), at(131));
            let expected = Enforcement { bounded, edges: known.len(), workers: known.len() * 3, disconnected };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn no_bound_is_larger_than_never() {
        assert!(Bound::Never > Bound::Secs(u64::MAX) && Bound::Secs(60) > Bound::Secs(10));
    }
}
