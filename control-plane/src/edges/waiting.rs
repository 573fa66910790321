//! Waiting until a revision is enforced, and how long that takes.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use policy::Revision;
use tokio::time::{Instant, sleep_until};

use super::{Bounded, Edges, Enforcement, Known};

/// The most revisions that are measured at a time. While this many wait, new ones are not measured.
const MEASURED: usize = 1_024;

/// Added to the end of a bound, so that it has passed when it is checked.
const MOMENT: Duration = Duration::from_millis(1);

/// An instance that lacks a revision.
struct Lacking {
    instance: String,
    /// When it denies because its table is too old, by the monotonic clock; `None`: never.
    until: Option<Duration>,
}

/// How a wait ended.
pub(crate) struct Waited {
    pub(crate) enforcement: Enforcement,
    pub(crate) elapsed: Duration,
}

impl Edges {
    /// Waits until a revision is enforced, at most until `deadline`. Doesn't wait if no instance is known, because none
    /// could report it. Acknowledgements wake this, and thousands arrive together, so while the instance that it found
    /// to lack the revision still does, it checks no other.
    pub(crate) async fn enforced_by(&self, revision: Revision, deadline: Option<Instant>) -> Waited {
        let began = Instant::now();
        let (mut changed, mut ending) = (self.changed.subscribe(), self.ending.clone());
        let mut lacking = None;
        loop {
            changed.borrow_and_update();
            lacking = self.lacking(revision, lacking);
            let is_over = deadline.is_some_and(|deadline| deadline <= Instant::now()) || *ending.borrow();
            // Before the revision counts as enforced, what others committed up to it is read, and may show otherwise.
            if lacking.is_none() && self.knows_all_at(revision).await.is_ok() {
                lacking = self.lacking(revision, None);
                if lacking.is_none() {
                    return Waited { enforcement: self.enforcement(revision), elapsed: began.elapsed() };
                }
            }
            if is_over {
                let enforcement = Enforcement { bounded: Bounded::Never, ..self.enforcement(revision) };
                let enforcement = if lacking.is_none() { enforcement } else { self.enforcement(revision) };
                return Waited { enforcement, elapsed: began.elapsed() };
            }
            let bounded = lacking.as_ref().and_then(|lacking| lacking.until).and_then(|until| {
                let left = until.saturating_sub(self.clock.monotonic());
                Instant::now().checked_add(left.saturating_add(MOMENT))
            });
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
                        self.remember(revision, elapsed);
                    }
                }
                _ = ending.wait_for(|ending| *ending) => return,
            }
        }
    }

    /// How long a revision took from its commit until it was enforced; `None` if it isn't, if that wasn't measured, or
    /// if it was long ago.
    pub(crate) fn took(&self, revision: Revision) -> Option<Duration> {
        let took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        took.iter().rev().find(|(of, _)| *of == revision).map(|(_, elapsed)| *elapsed)
    }

    fn remember(&self, revision: Revision, elapsed: Duration) {
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        if took.len() >= MEASURED {
            took.pop_front();
        }
        took.push_back((revision, elapsed));
    }

    /// An instance that lacks a revision: the one that was found `before`, if it still does, else the first of a pass
    /// over all.
    fn lacking(&self, revision: Revision, before: Option<Lacking>) -> Option<Lacking> {
        let now = self.clock.monotonic();
        let all = self.lock();
        let lacks = |known: &Known| {
            let facts = known.facts().filter(|facts| !facts.is_enforced(revision, now))?;
            Some(Lacking { instance: known.instance.id.clone(), until: facts.denies_at() })
        };
        let still = before.and_then(|before| lacks(all.get(&before.instance)?));
        still.or_else(|| all.values().find_map(lacks))
    }

    /// Whether any instance counts.
    fn has_any(&self) -> bool {
        self.lock().values().any(|known| known.instance.ended_at.is_none())
    }

    /// Completes when this revision is enforced; never, if there is none.
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
