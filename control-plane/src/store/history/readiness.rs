//! Readiness to accept changes: lost when one is refused, and regained after two probes in a row.
//!
//! A change that succeeds in between proves little: a full disk may have room for a small one, not for a larger one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// Probes that must succeed in a row.
const REQUIRED_PROBES: u32 = 2;

/// The time between two probes, for all callers together.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The state that all callers share.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<State>);

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Ready,
    /// A change was refused or a read failed. Since then `succeeded` probes succeeded; the last began at `probed_at`.
    Refusing { succeeded: u32, probed_at: Option<Instant> },
    /// A read found damage. Probes prove nothing about what they don't read.
    Damaged,
}

/// The check that the caller has to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextCheck {
    /// Check that a change can begin.
    BeginChange,
    /// Write, and report the result.
    Probe,
    /// None now: not ready, and the next probe isn't due.
    Wait,
    /// None: not ready until a restart.
    Never,
}

impl Readiness {
    pub(crate) fn next_check(&self, now: Instant) -> NextCheck {
        let mut state = self.lock();
        match &mut *state {
            State::Ready => NextCheck::BeginChange,
            State::Damaged => NextCheck::Never,
            State::Refusing { probed_at, .. } => {
                if probed_at.is_some_and(|at| now.saturating_duration_since(at) < PROBE_INTERVAL) {
                    return NextCheck::Wait;
                }
                *probed_at = Some(now);
                NextCheck::Probe
            }
        }
    }

    /// Records an error if it means that changes aren't accepted.
    pub(crate) fn record_error(&self, error: &StoreError) {
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
                | StoreError::AlreadyMade
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
    pub(crate) fn record_probe(&self) -> bool {
        let mut state = self.lock();
        if let State::Refusing { succeeded, .. } = &mut *state {
            *succeeded = succeeded.saturating_add(1);
            if *succeeded >= REQUIRED_PROBES {
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
        let next_check = |millis| readiness.next_check(start + Duration::from_millis(millis));
        assert_eq!(next_check(0), NextCheck::BeginChange);
        readiness.record_error(&StoreError::NotFound);
        assert_eq!(next_check(0), NextCheck::BeginChange, "a client's mistake");
        readiness.record_error(&unavailable());
        assert_eq!(
            (next_check(0), next_check(0), next_check(999)),
            (NextCheck::Probe, NextCheck::Wait, NextCheck::Wait),
            "one a second for all"
        );
        assert!(!readiness.record_probe(), "one isn't enough");
        assert_eq!(next_check(1_000), NextCheck::Probe);
        readiness.record_error(&unavailable());
        assert_eq!((next_check(1_500), next_check(2_000)), (NextCheck::Wait, NextCheck::Probe), "it failed");
        assert!(!readiness.record_probe(), "the count starts again");
        assert_eq!((next_check(2_999), next_check(3_000)), (NextCheck::Wait, NextCheck::Probe));
        assert!(readiness.record_probe());
        assert_eq!(next_check(3_000), NextCheck::BeginChange);
    }

    #[test]
    fn damage_lasts_until_a_restart() {
        let readiness = Readiness::default();
        readiness.record_error(&StoreError::Damaged("a page".to_owned()));
        readiness.record_error(&unavailable());
        assert!(!readiness.record_probe());
        assert_eq!(readiness.next_check(Instant::now()), NextCheck::Never);
    }
}
