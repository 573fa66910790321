//! Readiness to accept changes: lost when one is refused, and regained after two probes in a row.
//!
//! A change that succeeds in between proves little: a full disk may have room for a small one, not for a larger one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::StoreError;

/// Probes that must succeed in a row.
const PROBES: u32 = 2;

/// The time between two probes, for all callers together.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The state that all callers share.
#[derive(Default)]
pub(super) struct Readiness(Mutex<State>);

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Ready,
    /// A change was refused or a read failed. Since then `succeeded` probes succeeded; the last began at `probed_at`.
    Refusing { succeeded: u32, probed_at: Option<Instant> },
    /// A read found damage. Probes prove nothing about what they don't read.
    Damaged,
}

/// What the caller has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Check that a change can begin.
    Look,
    /// Write, and report the result.
    Probe,
    /// Wait for the next probe: not ready.
    Wait,
    /// Nothing: not ready until a restart.
    Never,
}

impl Readiness {
    pub(super) fn turn(&self, now: Instant) -> Turn {
        let mut state = self.lock();
        match &mut *state {
            State::Ready => Turn::Look,
            State::Damaged => Turn::Never,
            State::Refusing { probed_at, .. } => {
                if probed_at.is_some_and(|at| now.saturating_duration_since(at) < PROBE_EVERY) {
                    return Turn::Wait;
                }
                *probed_at = Some(now);
                Turn::Probe
            }
        }
    }

    /// Records an error, if it means that changes aren't accepted.
    pub(super) fn note(&self, error: &StoreError) {
        let mut state = self.lock();
        match (error, *state) {
            (_, State::Damaged) => {}
            (StoreError::Damaged(_), _) => *state = State::Damaged,
            (StoreError::Unavailable(_) | StoreError::Unwritable(_), State::Ready) => {
                *state = State::Refusing { succeeded: 0, probed_at: None };
            }
            (StoreError::Unavailable(_) | StoreError::Unwritable(_), State::Refusing { probed_at, .. }) => {
                *state = State::Refusing { succeeded: 0, probed_at };
            }
            (
                StoreError::NotFound
                | StoreError::SlugTaken
                | StoreError::SecretTaken
                | StoreError::DigestsTaken { .. }
                | StoreError::MadeBefore
                | StoreError::InProgress
                | StoreError::ExpiredKey
                | StoreError::Stale { .. }
                | StoreError::LimitReached(_)
                | StoreError::MetadataTooLarge { .. }
                | StoreError::Fault(_),
                _,
            ) => {}
        }
    }

    /// Records that a probe succeeded; returns whether changes are accepted again.
    pub(super) fn probed(&self) -> bool {
        let mut state = self.lock();
        if let State::Refusing { succeeded, .. } = &mut *state {
            *succeeded = succeeded.saturating_add(1);
            if *succeeded >= PROBES {
                *state = State::Ready;
            }
        }
        matches!(*state, State::Ready)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> StoreError {
        StoreError::Unavailable("full".to_owned())
    }

    #[test]
    fn after_a_refusal_two_probes_in_a_row_a_second_apart_make_it_ready() {
        let (readiness, start) = (Readiness::default(), Instant::now());
        let turn = |millis| readiness.turn(start + Duration::from_millis(millis));
        assert_eq!(turn(0), Turn::Look);
        readiness.note(&StoreError::NotFound);
        assert_eq!(turn(0), Turn::Look, "a client's mistake");
        readiness.note(&unavailable());
        assert_eq!((turn(0), turn(0), turn(999)), (Turn::Probe, Turn::Wait, Turn::Wait), "one a second for all");
        assert!(!readiness.probed(), "one isn't enough");
        assert_eq!(turn(1_000), Turn::Probe);
        readiness.note(&unavailable());
        assert_eq!((turn(1_500), turn(2_000)), (Turn::Wait, Turn::Probe), "it failed");
        assert!(!readiness.probed(), "the count starts again");
        assert_eq!((turn(2_999), turn(3_000)), (Turn::Wait, Turn::Probe));
        assert!(readiness.probed());
        assert_eq!(turn(3_000), Turn::Look);
    }

    #[test]
    fn damage_lasts_until_a_restart() {
        let readiness = Readiness::default();
        readiness.note(&StoreError::Damaged("a page".to_owned()));
        readiness.note(&unavailable());
        assert!(!readiness.probed());
        assert_eq!(readiness.turn(Instant::now()), Turn::Never);
    }
}
