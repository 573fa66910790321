//! Waiting until a revision is enforced, and how long that takes.

use std::collections::VecDeque;
use std::time::Duration;

use policy::Revision;
use tokio::time::{Instant, sleep_until};

use super::{Bounded, Edges, Enforcement};

/// Revisions whose time is measured at once; while so many wait, those that come are not measured.
const MEASURED: usize = 1_024;

/// After a bound's end, so that it has passed when it is looked at.
const MOMENT: Duration = Duration::from_millis(1);

/// How a wait ended.
pub(crate) struct Waited {
    pub(crate) enforcement: Enforcement,
    pub(crate) elapsed: Duration,
}

impl Edges {
    /// Waits until a revision is enforced, at most until `deadline`. Woken by acknowledgements; costs a pass over all
    /// instances each time.
    pub(crate) async fn enforced_by(&self, revision: Revision, deadline: Option<Instant>) -> Waited {
        let began = Instant::now();
        let (mut changed, mut ending) = (self.changed.subscribe(), self.ending.clone());
        loop {
            changed.borrow_and_update();
            let enforcement = self.enforcement(revision);
            let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if enforcement.is_enforced() || is_over || *ending.borrow() {
                return Waited { enforcement, elapsed: began.elapsed() };
            }
            let bounded = match enforcement.bounded {
                Bounded::At(at) => {
                    let left = at.saturating_sub(self.clock.monotonic());
                    Instant::now().checked_add(left.saturating_add(MOMENT))
                }
                Bounded::Already | Bounded::Never => None,
            };
            let look_again = bounded.into_iter().chain(deadline).min();
            tokio::select! {
                // Never fails: the sender is ours.
                _ = changed.changed() => {}
                () = at(look_again) => {}
                _ = ending.wait_for(|ending| *ending) => {}
            }
        }
    }

    /// Measures how long each revision takes from its commit until it is enforced, until the service ends.
    pub async fn measure(self) {
        let (mut head, mut ending) = (self.store.head(), self.ending.clone());
        // What was committed before is not measured.
        head.borrow_and_update();
        let mut waiting: VecDeque<(Revision, Instant)> = VecDeque::new();
        loop {
            let first = waiting.front().copied();
            tokio::select! {
                moved = head.changed() => {
                    if moved.is_err() {
                        return;
                    }
                    let revision = head.borrow_and_update().revision;
                    // With no instance there is nobody to wait for.
                    if self.enforcement(revision).edges == 0 {
                        waiting.clear();
                    } else if waiting.len() < MEASURED {
                        waiting.push_back((revision, Instant::now()));
                    }
                }
                committed_at = self.first_enforced(first) => {
                    self.time_to_enforced.observe(committed_at.elapsed().as_secs_f64());
                    waiting.pop_front();
                }
                _ = ending.wait_for(|ending| *ending) => return,
            }
        }
    }

    /// Ends when this revision is enforced; never, when there is none.
    async fn first_enforced(&self, first: Option<(Revision, Instant)>) -> Instant {
        match first {
            Some((revision, committed_at)) if self.enforced_by(revision, None).await.enforcement.is_enforced() => {
                committed_at
            }
            Some(_) | None => std::future::pending().await,
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
