//! Waiting until a revision is enforced, and how long that takes.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use policy::Revision;
use tokio::time::{Instant, sleep_until};

use super::{Edges, Enforcement, EnforcementDeadline, TrackedInstance};

/// The most revisions that are measured at a time. While this many wait, new ones are not measured.
const MEASURED: usize = 1_024;

/// Added to the end of a bound, so that it has passed when it is checked.
const CLOCK_MARGIN: Duration = Duration::from_millis(1);

/// An instance that lacks a revision.
struct LaggingInstance {
    instance: String,
    /// When it denies because its table is too old, by the monotonic clock; `None`: never.
    until: Option<Duration>,
}

/// How a wait ended.
pub(crate) struct EnforcementWait {
    pub(crate) enforcement: Enforcement,
    pub(crate) elapsed: Duration,
}

impl Edges {
    /// Waits until a revision is enforced, at most until `deadline`. Doesn't wait if no instance is known, because none
    /// could report it. Acknowledgements wake this, and thousands arrive together: while the instance that was found to
    /// lack the revision still lacks it, no other instance is checked.
    pub(crate) async fn wait_until_enforced(&self, revision: Revision, deadline: Option<Instant>) -> EnforcementWait {
        let began = Instant::now();
        let (mut changed, mut ending) = (self.changed.subscribe(), self.ending.clone());
        let mut lagging = None;
        loop {
            changed.borrow_and_update();
            lagging = self.lagging(revision, lagging);
            let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now()) || *ending.borrow();
            // Before the revision counts as enforced, the changes of other replicas up to it are read: they may show an
            // instance that lacks it.
            if lagging.is_none() && self.check_complete_at(revision).await.is_ok() {
                lagging = self.lagging(revision, None);
                if lagging.is_none() {
                    return EnforcementWait { enforcement: self.enforcement(revision), elapsed: began.elapsed() };
                }
            }
            if is_over {
                let enforcement = Enforcement { deadline: EnforcementDeadline::Never, ..self.enforcement(revision) };
                let enforcement = if lagging.is_none() { enforcement } else { self.enforcement(revision) };
                return EnforcementWait { enforcement, elapsed: began.elapsed() };
            }
            let denies_at = lagging.as_ref().and_then(|lagging| lagging.until).and_then(|until| {
                let left = until.saturating_sub(self.clock.monotonic());
                Instant::now().checked_add(left.saturating_add(CLOCK_MARGIN))
            });
            let check_at = denies_at.into_iter().chain(deadline).min();
            tokio::select! {
                // Never fails: the sender is ours.
                _ = changed.changed() => {}
                () = sleep_until_some(check_at) => {}
                _ = ending.wait_for(|ending| *ending) => {}
            }
        }
    }

    /// Measures how long each revision takes from its commit until it is enforced, until the service ends.
    pub async fn measure(self) {
        let (mut head, mut ending) = (self.store.head(), self.ending.clone());
        // Revisions that were committed before are not measured.
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
                    if !self.has_any() {
                        // There is no instance to wait for.
                        waiting.clear();
                    } else if waiting.len() < MEASURED {
                        waiting.push_back((revision, Instant::now()));
                    }
                }
                committed_at = self.first_enforced(first) => {
                    let elapsed = committed_at.elapsed();
                    self.time_to_enforced.observe(elapsed.as_secs_f64());
                    if let Some((revision, _)) = waiting.pop_front() {
                        self.record_duration(revision, elapsed);
                    }
                }
                _ = ending.wait_for(|ending| *ending) => return,
            }
        }
    }

    /// How long a revision took from its commit until it was enforced; `None` if it isn't enforced, if the time wasn't
    /// measured, or if it was long ago.
    pub(crate) fn enforcement_duration(&self, revision: Revision) -> Option<Duration> {
        let enforcement_durations = self.enforcement_durations.lock().unwrap_or_else(PoisonError::into_inner);
        enforcement_durations.iter().rev().find(|(of, _)| *of == revision).map(|(_, elapsed)| *elapsed)
    }

    fn record_duration(&self, revision: Revision, elapsed: Duration) {
        let mut enforcement_durations = self.enforcement_durations.lock().unwrap_or_else(PoisonError::into_inner);
        if enforcement_durations.len() >= MEASURED {
            enforcement_durations.pop_front();
        }
        enforcement_durations.push_back((revision, elapsed));
    }

    /// An instance that lacks a revision: the `previous` one, if it still lacks it, else the first of a pass over all.
    fn lagging(&self, revision: Revision, previous: Option<LaggingInstance>) -> Option<LaggingInstance> {
        let now = self.clock.monotonic();
        let all = self.lock();
        let lacks = |tracked: &TrackedInstance| {
            let facts = tracked.facts().filter(|facts| !facts.is_enforced(revision, now))?;
            Some(LaggingInstance { instance: tracked.instance.id.clone(), until: facts.denies_at() })
        };
        let still = previous.and_then(|previous| lacks(all.get(&previous.instance)?));
        still.or_else(|| all.values().find_map(lacks))
    }

    /// Whether any instance counts.
    fn has_any(&self) -> bool {
        self.lock().values().any(|tracked| tracked.instance.ended_at.is_none())
    }

    /// Completes when this revision is enforced; never, if there is no revision.
    async fn first_enforced(&self, first: Option<(Revision, Instant)>) -> Instant {
        match first {
            Some((revision, committed_at))
                if self.wait_until_enforced(revision, None).await.enforcement.is_enforced() =>
            {
                committed_at
            }
            Some(_) | None => std::future::pending().await,
        }
    }
}

/// Sleeps until an instant; for ever if there is none.
async fn sleep_until_some(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
