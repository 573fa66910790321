//! How often a workspace's imports may be refused for digests that are taken elsewhere: each refusal reveals that one of them is.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use policy::WorkspaceId;

/// Refusals within [`WINDOW`]: more than somebody needs who moves in and made a mistake.
const MOST: usize = 10;

const WINDOW: Duration = Duration::from_secs(3_600);

/// When the latest refusals of each workspace were. There are never more workspaces here than the store has.
#[derive(Default)]
pub(super) struct DigestGuesses(HashMap<WorkspaceId, VecDeque<Duration>>);

/// Whether a refusal was one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guessed {
    Counted,
    /// From now on there is a time to wait.
    TooOften,
}

impl DigestGuesses {
    /// How long to wait for the next import; `None`: it may come.
    pub(super) fn wait(&self, workspace: WorkspaceId, now: Duration) -> Option<Duration> {
        let refused = self.0.get(&workspace).filter(|refused| refused.len() >= MOST)?;
        let until = refused.front()?.saturating_add(WINDOW);
        until.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// One refusal more.
    pub(super) fn one_more(&mut self, workspace: WorkspaceId, now: Duration) -> Guessed {
        let refused = self.0.entry(workspace).or_default();
        refused.retain(|at| at.saturating_add(WINDOW) > now);
        // Imports that ran at the same time may be refused at the same time.
        if refused.len() >= MOST {
            return Guessed::Counted;
        }
        refused.push_back(now);
        if refused.len() == MOST { Guessed::TooOften } else { Guessed::Counted }
    }

    pub(super) fn forget_quiet(&mut self, now: Duration) {
        self.0.retain(|_, refused| refused.back().is_some_and(|at| at.saturating_add(WINDOW) > now));
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_refusals_within_an_hour_are_too_many_for_the_rest_of_it() {
        let (mut guesses, own, other) =
            (DigestGuesses::default(), WorkspaceId::from_bytes([1; 16]), WorkspaceId::from_bytes([2; 16]));
        let at = Duration::from_secs;
        for minute in 0..10 {
            assert_eq!(guesses.wait(own, at(minute * 60)), None, "minute {minute}");
            let guessed = guesses.one_more(own, at(minute * 60));
            assert_eq!(guessed, if minute == 9 { Guessed::TooOften } else { Guessed::Counted }, "minute {minute}");
        }
        assert_eq!(guesses.one_more(own, at(600)), Guessed::Counted, "it is told once");
        assert_eq!(guesses.wait(own, at(600)), Some(at(3_000)));
        assert_eq!(guesses.wait(other, at(600)), None);
        assert_eq!(guesses.wait(own, at(3_600)), None, "the first of them was an hour ago");
        assert_eq!(guesses.one_more(own, at(3_600)), Guessed::TooOften);
        assert_eq!(guesses.wait(own, at(3_601)), Some(at(59)));
        guesses.forget_quiet(at(7_199));
        assert_eq!(guesses.0.len(), 1);
        guesses.forget_quiet(at(7_200));
        assert!(guesses.0.is_empty());
    }
}
