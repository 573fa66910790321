//! Whether a worker may decide by what it holds, and whether all of the Envoy may.

use policy::Position;
use policy::protocol::timing::{WORKER_HEARTBEAT_MS, WORKER_LATE_MS};

use super::{Part, Shares, Source, clocks, read_roster};
use crate::host::Host;
use crate::keys::Clocks;
use crate::process::follower::Step;
use crate::process::head::Head;

/// Steps that a worker takes within a request, each of about a millisecond, when it must look before it decides: a VM that
/// takes the place of a trapped one has a small table at its first request already, and for a large one no request is held up
/// for long.
const STEPS_A_REQUEST: u32 = 4;

/// What a worker that was held up must have before it decides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct CatchUp {
    generation: u64,
    position: Position,
}

impl CatchUp {
    pub(super) fn of(head: Head) -> Self {
        Self { generation: head.generation, position: head.to.position }
    }
}

impl Source {
    /// True when this worker hasn't signed for so long that it may have missed a change: it was held up, or is new.
    pub fn is_late(&self, now: Clocks) -> bool {
        let signed_long_ago =
            self.signed_ms.is_none_or(|signed| now.monotonic_ms.saturating_sub(signed) > WORKER_LATE_MS);
        match self.shares {
            Shares::Unknown => true,
            Shares::Nothing => false,
            Shares::Roster => signed_long_ago,
            Shares::Everything => self.was_held_up || signed_long_ago,
        }
    }

    /// Looks at what the leader published, before a request is decided. Answers whether this worker is up to date at this
    /// instant: that holds for this request alone until it has signed again.
    pub fn catches_up(&mut self, host: &dyn Host) -> bool {
        let now = clocks(host);
        if (self.shares == Shares::Unknown && !self.is_set_up(host, now)) || self.doubts(now) {
            return false;
        }
        let is_there = match &self.part {
            Part::Follows | Part::TakesOver { .. } => {
                let mut step = || self.follower.step(host, &self.shelf, &mut self.keys);
                (0..STEPS_A_REQUEST).map(|_| step()).find(|step| *step != Step::More) == Some(Step::InStep)
            }
            // Another leader may have been chosen meanwhile.
            Part::Leads(_) => {
                let head = Head::read(host, &self.shelf);
                head.is_some_and(|head| Some(head.to.position) == self.keys.holding.position())
            }
            Part::Alone => true,
        };
        self.was_held_up &= !is_there;
        is_there
    }

    /// Whether a worker that was held up has all that was published when it signed again. All later changes wait for it: they count
    /// as enforced once it says that it has them, so it may be behind them and decide.
    pub(super) fn has_caught_up(&self) -> bool {
        let Some(CatchUp { generation, position }) = self.catches_up_to else { return false };
        let is_there = |own: Position| own.epoch == position.epoch && own.revision >= position.revision;
        self.follower.generation() == Some(generation) && self.keys.holding.position().is_some_and(is_there)
    }

    /// A worker that was held up, and that asks for itself, has ended for the control plane if other workers said so: it decides
    /// nothing before it has asked anew. Answers whether it was.
    pub(super) fn doubts(&mut self, now: Clocks) -> bool {
        let doubts = self.shares == Shares::Roster && self.is_late(now);
        if doubts {
            self.keys.distrust();
            self.subscription.abandon();
            self.acknowledging.arrived(false);
            self.caller = None;
            self.signs_ms = None;
        }
        doubts
    }

    /// Whether every worker of this Envoy is ready: a readiness probe reaches only one of them. Where nothing is shared,
    /// this worker speaks for itself.
    pub fn is_everybody_ready(&self, host: &dyn Host, now: Clocks) -> bool {
        match self.shares {
            Shares::Unknown => false,
            Shares::Nothing => true,
            Shares::Roster | Shares::Everything => {
                // Workers start together, so those that are to come have signed when this one has for a moment.
                now.monotonic_ms.saturating_sub(self.joined_ms) >= WORKER_HEARTBEAT_MS
                    && read_roster(host, &self.shelf.roster()).0.report().is_ready
            }
        }
    }
}
