//! A worker's role in replication between the workers of its Envoy: following, taking over, leading, or none.

use policy::{Position, Table};

use crate::host::Host;
use crate::keys::{Clocks, Keys};
use crate::process::follower::{Follower, StepOutcome};
use crate::process::head::Head;
use crate::process::membership::Lease;
use crate::process::publisher::{Publisher, Wake};
use crate::process::shared_store::{LeaderDeposed, SharedStore};
use crate::subscription::FeedUpdate;

/// After this time, a new leader that can't take over what the previous leader published begins with a snapshot.
const TAKE_OVER_MS: u64 = 1_000;

/// How many steps a worker takes within a request when it must catch up before it decides, each of about a millisecond.
/// So a VM that replaces a trapped one can load a small table at its first request, and a large table doesn't delay a
/// request long.
const STEPS_PER_REQUEST: u32 = 4;

/// What a worker does for its source.
pub(super) enum WorkerRole {
    Follower,
    /// Holds the lease, and is taking over what the previous leader published.
    TakingOver {
        term: u64,
        since_ms: u64,
    },
    Leader(Box<Publisher>),
    /// Subscribes for itself alone.
    Independent,
}

/// What a new leader begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takeover {
    /// The table and all that was published.
    Complete,
    /// Nothing: it requests a snapshot.
    Fresh,
}

/// What to do after a piece of work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NextAction {
    Nothing,
    /// There is more to do soon.
    More,
    Lead(u64, Takeover),
    StepDown,
}

/// The position that a worker that was held up must reach before it decides.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ResyncTarget {
    generation: u64,
    position: Position,
}

/// This worker's part in replication.
pub(super) struct Replication {
    role: WorkerRole,
    follower: Follower,
    /// It was held up, and isn't up to date again: it decides nothing.
    is_resyncing: bool,
    /// The position of the others at its first heartbeat after that.
    resync_target: Option<ResyncTarget>,
    /// Another worker could not load what this one has published.
    must_republish: bool,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            role: WorkerRole::Follower,
            follower: Follower::default(),
            is_resyncing: false,
            resync_target: None,
            must_republish: false,
        }
    }
}

impl Replication {
    pub(super) fn role(&self) -> &WorkerRole {
        &self.role
    }

    pub(super) fn is_leader(&self) -> bool {
        matches!(self.role, WorkerRole::Leader(_))
    }

    /// Whether another worker subscribes for this one, now or in a moment.
    pub(super) fn depends_on_another(&self) -> bool {
        matches!(self.role, WorkerRole::Follower | WorkerRole::TakingOver { .. })
    }

    pub(super) fn is_follower(&self) -> bool {
        matches!(self.role, WorkerRole::Follower)
    }

    /// Whether this worker rebases the pages of its table when it has time. A leader does so as it publishes them.
    pub(super) fn rebases_alone(&self) -> bool {
        matches!(self.role, WorkerRole::Follower | WorkerRole::Independent)
    }

    /// Whether this worker was held up, and may lack changes that count as enforced.
    pub(super) fn is_resyncing(&self) -> bool {
        self.is_resyncing
    }

    /// The generation that this worker could not load.
    pub(super) fn broken(&self) -> Option<u64> {
        self.follower.broken()
    }

    /// This worker subscribes for itself from now on.
    pub(super) fn become_independent(&mut self) {
        self.role = WorkerRole::Independent;
    }

    /// This worker was held up, and has just renewed its entry. Later changes count as enforced only once this worker
    /// has acknowledged them; those that were published until now it must apply before it decides.
    pub(super) fn begin_resync(&mut self, host: &dyn Host, store: &SharedStore, shares_all: bool) {
        self.is_resyncing = true;
        if shares_all {
            let target = |head: Head| ResyncTarget { generation: head.generation, position: head.to.position };
            self.resync_target = Head::read(host, store).map(target);
        }
    }

    /// Applies the result of a heartbeat. Returns whether this worker has to step down from its role. `broken`:
    /// generations that other workers could not load.
    pub(super) fn must_step_down(&mut self, lease: Lease, broken: &[u64]) -> bool {
        match (lease, &self.role) {
            (Lease::Held { term }, WorkerRole::Leader(publisher)) if publisher.term() == term => {
                // No other worker has led in between.
                self.is_resyncing &= !publisher.has_published();
                let (generation, _) = publisher.published_to();
                self.must_republish = broken.contains(&generation);
                false
            }
            (Lease::Held { term }, WorkerRole::TakingOver { term: own, .. }) => *own != term,
            (Lease::Held { .. }, WorkerRole::Leader(_) | WorkerRole::Follower | WorkerRole::Independent)
            | (Lease::NotHeld, WorkerRole::Leader(_) | WorkerRole::TakingOver { .. }) => true,
            (Lease::NotHeld, WorkerRole::Follower | WorkerRole::Independent) => false,
        }
    }

    /// This worker holds the lease of a new term.
    pub(super) fn take_over(&mut self, term: u64, now: Clocks) {
        self.role = WorkerRole::TakingOver { term, since_ms: now.monotonic_ms };
    }

    /// This worker leads from now on.
    pub(super) fn lead(&mut self, publisher: Publisher, takeover: Takeover) {
        self.is_resyncing &= takeover == Takeover::Fresh;
        self.role = WorkerRole::Leader(Box::new(publisher));
    }

    /// This worker follows from now on, from its current position. A snapshot that it had begun to load is not what the
    /// new leader publishes, so then it starts again.
    pub(super) fn step_down(&mut self, keys: &Keys) {
        if let WorkerRole::Leader(publisher) = &self.role {
            let (generation, delta) = publisher.published_to();
            self.follower =
                if keys.live_table.is_loading() { Follower::default() } else { Follower::resume_at(generation, delta) };
        }
        self.role = WorkerRole::Follower;
    }

    /// Does the next piece of work of this worker's role.
    pub(super) fn advance(&mut self, host: &dyn Host, store: &SharedStore, keys: &mut Keys, now: Clocks) -> NextAction {
        let more = |has_more| if has_more { NextAction::More } else { NextAction::Nothing };
        match &mut self.role {
            WorkerRole::Independent => more(is_heavy(keys)),
            WorkerRole::Follower => {
                let step = self.follower.step(host, store, keys);
                self.is_resyncing &= step != StepOutcome::UpToDate && !self.has_resynced(keys);
                more(step == StepOutcome::More || is_heavy(keys))
            }
            WorkerRole::TakingOver { term, since_ms } => {
                let (term, waited_ms) = (*term, now.monotonic_ms.saturating_sub(*since_ms));
                match self.follower.step(host, store, keys) {
                    StepOutcome::More => NextAction::More,
                    StepOutcome::UpToDate => NextAction::Lead(term, Takeover::Complete),
                    StepOutcome::Waiting if Head::read(host, store).is_none() => {
                        NextAction::Lead(term, Takeover::Fresh)
                    }
                    StepOutcome::Waiting | StepOutcome::Broken if waited_ms > TAKE_OVER_MS => {
                        NextAction::Lead(term, Takeover::Fresh)
                    }
                    StepOutcome::Waiting | StepOutcome::Broken => NextAction::Nothing,
                }
            }
            WorkerRole::Leader(publisher) => match publisher.run_maintenance(host, store, keys, self.must_republish) {
                Ok(has_more) => more(has_more),
                Err(LeaderDeposed) => NextAction::StepDown,
            },
        }
    }

    /// Catches up before a request is decided. Returns whether this worker is up to date now; until its next heartbeat,
    /// that is valid only for this request.
    pub(super) fn catch_up(&mut self, host: &dyn Host, store: &SharedStore, keys: &mut Keys) -> bool {
        let is_current = match &self.role {
            WorkerRole::Follower | WorkerRole::TakingOver { .. } => {
                let mut step = || self.follower.step(host, store, keys);
                (0..STEPS_PER_REQUEST).map(|_| step()).find(|step| *step != StepOutcome::More)
                    == Some(StepOutcome::UpToDate)
            }
            // Another leader may have been chosen meanwhile.
            WorkerRole::Leader(_) => {
                Head::read(host, store).is_some_and(|head| Some(head.to.position) == keys.live_table.position())
            }
            WorkerRole::Independent => true,
        };
        self.is_resyncing &= !is_current;
        is_current
    }

    /// If this worker leads, publishes the update of a response of the control plane.
    pub(super) fn publish(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &Keys,
        update: &FeedUpdate,
    ) -> Result<Wake, LeaderDeposed> {
        match &mut self.role {
            WorkerRole::Leader(publisher) => publisher.publish(host, store, keys, update),
            WorkerRole::Follower | WorkerRole::TakingOver { .. } | WorkerRole::Independent => Ok(Wake::Nobody),
        }
    }

    /// If this worker leads, announces its term and the state of its table.
    pub(super) fn announce(&self, host: &dyn Host, store: &SharedStore, keys: &Keys) -> Result<Wake, LeaderDeposed> {
        match &self.role {
            WorkerRole::Leader(publisher) => publisher.announce(host, store, keys).map(|()| Wake::Everybody),
            WorkerRole::Follower | WorkerRole::TakingOver { .. } | WorkerRole::Independent => Ok(Wake::Nobody),
        }
    }

    /// The control plane has answered this worker. If it leads and nothing is missing, it is up to date.
    pub(super) fn on_feed_answer(&mut self, is_complete: bool) {
        if self.is_leader() {
            self.is_resyncing &= !is_complete;
        }
    }

    /// Whether a worker that was held up has all that was published at its first heartbeat since. Later changes count
    /// as enforced only once it acknowledges them, so it may decide without them.
    fn has_resynced(&self, keys: &Keys) -> bool {
        let Some(ResyncTarget { generation, position }) = self.resync_target else { return false };
        let has_reached = |own: Position| own.epoch == position.epoch && own.revision >= position.revision;
        self.follower.generation() == Some(generation) && keys.live_table.position().is_some_and(has_reached)
    }
}

/// Whether the table has so many changes that its pages should be rebased soon.
fn is_heavy(keys: &Keys) -> bool {
    keys.live_table.table().is_some_and(Table::is_heavy)
}
