//! Limits a workspace's imports of digests that exist in another workspace: each refusal reveals that one of them does.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use policy::WorkspaceId;

/// Refusals within [`WINDOW`]: more than a mistake during a migration causes.
const MAX_REFUSALS: usize = 10;

const WINDOW: Duration = Duration::from_secs(3_600);

/// When the latest refusals of each workspace were. It never holds more workspaces than the store does.
#[derive(Default)]
pub(super) struct DigestConflictLimiter(HashMap<WorkspaceId, VecDeque<Duration>>);

/// What a refusal led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConflictCount {
    Counted,
    /// From now on the workspace has to wait.
    LimitReached,
}

impl DigestConflictLimiter {
    /// How long to wait before the next import; `None`: not at all.
    pub(super) fn wait(&self, workspace: WorkspaceId, now: Duration) -> Option<Duration> {
        let refused = self.0.get(&workspace).filter(|refused| refused.len() >= MAX_REFUSALS)?;
        let until = refused.front()?.saturating_add(WINDOW);
        until.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// Counts a refusal.
    pub(super) fn record(&mut self, workspace: WorkspaceId, now: Duration) -> ConflictCount {
        let refused = self.0.entry(workspace).or_default();
        refused.retain(|at| at.saturating_add(WINDOW) > now);
        // Imports that ran at the same time may be refused at the same time.
        if refused.len() >= MAX_REFUSALS {
            return ConflictCount::Counted;
        }
        refused.push_back(now);
        if refused.len() == MAX_REFUSALS { ConflictCount::LimitReached } else { ConflictCount::Counted }
    }

    pub(super) fn evict_idle(&mut self, now: Duration) {
        self.0.retain(|_, refused| refused.back().is_some_and(|at| at.saturating_add(WINDOW) > now));
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_refusals_within_an_hour_are_too_many_for_the_rest_of_it() {
        let (mut limiter, own, other) =
            (DigestConflictLimiter::default(), WorkspaceId::from_bytes([1; 16]), WorkspaceId::from_bytes([2; 16]));
        let at = Duration::from_secs;
        for minute in 0..10 {
            assert_eq!(limiter.wait(own, at(minute * 60)), None, "minute {minute}");
            let count = limiter.record(own, at(minute * 60));
            let expected = if minute == 9 { ConflictCount::LimitReached } else { ConflictCount::Counted };
            assert_eq!(count, expected, "minute {minute}");
        }
        assert_eq!(limiter.record(own, at(600)), ConflictCount::Counted, "the limit is reported once");
        assert_eq!(limiter.wait(own, at(600)), Some(at(3_000)));
        assert_eq!(limiter.wait(other, at(600)), None);
        assert_eq!(limiter.wait(own, at(3_600)), None, "the first of them was an hour ago");
        assert_eq!(limiter.record(own, at(3_600)), ConflictCount::LimitReached);
        assert_eq!(limiter.wait(own, at(3_601)), Some(at(59)));
        limiter.evict_idle(at(7_199));
        assert_eq!(limiter.0.len(), 1);
        limiter.evict_idle(at(7_200));
        assert!(limiter.0.is_empty());
    }
}
