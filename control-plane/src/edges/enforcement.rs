//! Whether an instance has a revision, from its last report and two instants. No clock, no SQL.
//!
//! Instants are readings of the control plane's monotonic clock.

use std::time::Duration;

use policy::Revision;
use policy::protocol::timing::INSTANCE_LEASE_SECS;

use crate::base::staleness_bound::StalenessBound;
use crate::operations::choice::choice;

/// How long after its last request an instance counts as connected.
pub(super) const LEASE: Duration = Duration::from_secs(INSTANCE_LEASE_SECS);

/// The part of a bound that is added to it here: two clocks that NTP slews by 500 ppm in opposite directions drift
/// apart by a thousandth.
const DRIFT_PART: u32 = 1_000;

/// The state of an instance that enforcement depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Receipt of its last request; the start of the control plane when there was none since.
    pub last_contact_at: Duration,
    pub bound: StalenessBound,
    /// What all of its workers have; `None` until it has reported since the control plane started.
    pub applied: Option<Revision>,
    pub workers: usize,
}

/// The state of an instance for one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Connected, and each worker has it.
    Current,
    /// Connected, and some worker hasn't acknowledged it.
    Behind,
    /// Silent for longer than the lease.
    Disconnected,
    /// Silent for longer than its bound: it denies by itself.
    Stale,
}

choice!(
    "The state of an instance with regard to a revision.",
    State as "EdgeState",
    "unknown-state",
    Self::Current => "current",
    Self::Behind => "behind",
    Self::Disconnected => "disconnected",
    Self::Stale => "stale",
);

impl Facts {
    /// From when on it denies by itself without further contact; `None`: never.
    pub fn denies_at(&self) -> Option<Duration> {
        match self.bound {
            StalenessBound::Secs(secs) => {
                let bound = Duration::from_secs(secs);
                self.last_contact_at.checked_add(bound)?.checked_add(bound / DRIFT_PART)
            }
            StalenessBound::Never => None,
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

    /// Whether its lease is still valid.
    pub fn is_connected(&self, now: Duration) -> bool {
        now <= self.last_contact_at.saturating_add(LEASE)
    }

    /// How many revisions up to `head` it lacks, or hasn't acknowledged.
    pub fn lag(&self, head: Revision) -> u64 {
        head.0.saturating_sub(self.applied.map_or(0, |applied| applied.0))
    }

    /// Whether no request that starts from now on is decided without the revision. A process doesn't lose
    /// a revision that it has.
    pub fn is_enforced(&self, revision: Revision, now: Duration) -> bool {
        self.has(revision) || self.state(revision, now) == State::Stale
    }

    fn has(&self, revision: Revision) -> bool {
        self.applied.is_some_and(|applied| applied >= revision)
    }
}

/// When a revision is enforced even if no further report arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnforcementDeadline {
    /// It is enforced now.
    Already,
    At(Duration),
    Never,
}

/// Whether a revision is enforced everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforcement {
    pub deadline: EnforcementDeadline,
    /// Known instances.
    pub edges: usize,
    /// The workers of all known instances.
    pub workers: usize,
    /// Disconnected instances whose bound has not passed.
    pub disconnected: usize,
}

impl Enforcement {
    /// The enforcement by all known instances. Without an instance it is not enforced: none has acknowledged it.
    pub fn of(known: impl Iterator<Item = Facts>, revision: Revision, now: Duration) -> Self {
        let mut found = Self { deadline: EnforcementDeadline::Already, edges: 0, workers: 0, disconnected: 0 };
        for facts in known {
            found.edges = found.edges.saturating_add(1);
            found.workers = found.workers.saturating_add(facts.workers);
            let is_disconnected = facts.state(revision, now) == State::Disconnected;
            found.disconnected = found.disconnected.saturating_add(usize::from(is_disconnected));
            if !facts.is_enforced(revision, now) {
                found.deadline = found.deadline.and(facts.denies_at());
            }
        }
        if found.edges == 0 {
            found.deadline = EnforcementDeadline::Never;
        }
        found
    }

    pub fn is_enforced(&self) -> bool {
        self.deadline == EnforcementDeadline::Already
    }
}

impl EnforcementDeadline {
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

    fn facts(last_contact_at: u64, bound: StalenessBound, applied: Option<u64>) -> Facts {
        Facts { last_contact_at: at(last_contact_at), bound, applied: applied.map(Revision), workers: 3 }
    }

    #[test]
    fn an_instance_s_state_follows_from_its_last_report_and_the_time() {
        use StalenessBound::{Never, Secs};
        use State::{Behind, Current, Disconnected, Stale};
        for (name, last_contact, bound, applied, now, state, enforced) in [
            ("just connected, has it", 100, Secs(60), Some(7), at(100), Current, true),
            ("just connected, has more", 100, Secs(60), Some(8), at(100), Current, true),
            ("just connected, has less", 100, Secs(60), Some(6), at(100), Behind, false),
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
            let facts = facts(last_contact, bound, applied);
            assert_eq!(facts.state(Revision(7), now), state, "{name}");
            assert_eq!(facts.is_enforced(Revision(7), now), enforced, "{name}");
        }
    }

    #[test]
    fn a_revision_is_enforced_when_each_known_instance_has_it_or_denies() {
        use StalenessBound::{Never, Secs};
        let (has, behind) = (facts(100, Secs(60), Some(7)), facts(100, Secs(60), Some(6)));
        let (later, endless, stale) = (facts(120, Secs(100), None), facts(100, Never, None), facts(10, Secs(20), None));
        for (name, known, deadline, disconnected) in [
            ("none is known", &[][..], EnforcementDeadline::Never, 0),
            ("one has it, and is silent", &[has], EnforcementDeadline::Already, 1),
            ("one is behind", &[has, behind], EnforcementDeadline::At(Duration::from_millis(160_060)), 2),
            (
                "the last bound counts",
                &[later, behind, has],
                EnforcementDeadline::At(Duration::from_millis(220_100)),
                2,
            ),
            ("one has no bound", &[behind, endless, later], EnforcementDeadline::Never, 2),
            ("one denies by itself", &[has, stale], EnforcementDeadline::Already, 1),
        ] {
            // Past the lease of those whose last contact was at 100.
            let found = Enforcement::of(known.iter().copied(), Revision(7), at(131));
            let expected = Enforcement { deadline, edges: known.len(), workers: known.len() * 3, disconnected };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn no_bound_is_larger_than_never() {
        assert!(
            StalenessBound::Never > StalenessBound::Secs(u64::MAX)
                && StalenessBound::Secs(60) > StalenessBound::Secs(10)
        );
    }
}
