//! Following the leader: taking over its pages once, and each of its deltas.

use policy::table::Loading;
use policy::wire::WireError;

use super::head::Head;
use super::shelf::{self, Shelf};
use crate::host::Host;
use crate::keys::Keys;

/// How far this worker follows.
#[derive(Default)]
pub struct Follower {
    /// The generation whose pages this worker has or takes over.
    generation: Option<u64>,
    /// The number of the delta that is wanted next.
    delta: u64,
    /// The generation that could not be taken over.
    broken: Option<u64>,
    /// How often it began anew since it was in step.
    restarts: u32,
}

/// Beginning anew so often without coming into step means that what was published is wrong.
const MAX_RESTARTS: u32 = 3;

/// Deltas that are applied in one step: each costs some µs, and requests wait meanwhile.
const DELTAS_A_STEP: u64 = if cfg!(any(test, feature = "model")) { 3 } else { 256 };

/// What a step led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This worker is where the head is.
    InStep,
    /// There is more to do at once.
    More,
    /// No leader has published anything that this worker could take over.
    Waits,
    /// What was published can't be used: the leader is to publish it again.
    Broken,
}

impl Follower {
    /// One that stands where a leader stood when it was deposed.
    pub fn at(generation: u64, delta: u64) -> Self {
        Self { generation: Some(generation), delta, ..Self::default() }
    }

    /// The generation that could not be taken over, so that the leader learns of it.
    pub fn broken(&self) -> Option<u64> {
        self.broken
    }

    /// The generation that this worker follows.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Takes the next step: some of the deltas that there are or, once none is left, at most one page.
    pub fn step(&mut self, host: &dyn Host, shelf: &Shelf, keys: &mut Keys) -> Step {
        let Some(head) = Head::read(host, shelf) else { return Step::Waits };
        let stepped = if self.generation == Some(head.generation) {
            self.follow(host, shelf, keys, &head)
        } else if head.is_complete {
            self.begin(host, shelf, keys, &head)
        } else {
            Ok(Step::Waits)
        };
        stepped.unwrap_or_else(|_| {
            self.generation = None;
            self.broken = Some(head.generation);
            Step::Broken
        })
    }

    fn begin(&mut self, host: &dyn Host, shelf: &Shelf, keys: &mut Keys, head: &Head) -> Result<Step, WireError> {
        let manifest = shelf::read(host, &shelf.manifest()).filter(|manifest| manifest.number == head.generation);
        let loading = Loading::start_from_worker(&manifest.ok_or(WireError::Truncated)?.bytes)?;
        // Written a moment before or after the head that was read: the next look shows both.
        if loading.position() != head.base.position {
            return Ok(Step::Waits);
        }
        keys.holding.begin(loading);
        self.generation = Some(head.generation);
        self.delta = head.base.delta;
        Ok(Step::More)
    }

    fn follow(&mut self, host: &dyn Host, shelf: &Shelf, keys: &mut Keys, head: &Head) -> Result<Step, WireError> {
        if let Some(heard) = head.heard {
            keys.hear(heard);
        }
        let end = head.to.delta.min(self.delta.saturating_add(DELTAS_A_STEP));
        // A delta that was overwritten is a lag, which the look below finds.
        let followed = self.apply(host, shelf, keys, head.slots, end);
        if followed.is_ok() && self.delta < head.to.delta {
            return Ok(Step::More);
        }
        if followed.is_err() || keys.holding.newest() != Some(head.to.position) {
            // A deposed leader may have cut its deltas in another way than the one after it. That is seldom, and most of them
            // are only looked at, so this is one step.
            self.delta = head.base.delta;
            self.apply(host, shelf, keys, head.slots, head.to.delta)?;
        }
        if keys.holding.newest() != Some(head.to.position) {
            // Too far behind: begin anew, which should lead there.
            self.generation = None;
            self.restarts = self.restarts.saturating_add(1);
            return if self.restarts > MAX_RESTARTS { Err(WireError::Position) } else { Ok(Step::More) };
        }
        keys.holding.caught_up();
        match head.vouched {
            Some(vouched) => keys.vouch(head.to.position, vouched),
            None => keys.distrust(),
        }
        if let Some(number) = keys.holding.wanted() {
            let page = shelf::read(host, &shelf.page(number)).filter(|page| page.number == head.generation);
            keys.holding.add(page.ok_or(WireError::Truncated)?.bytes)?;
            keys.settle();
        }
        if keys.holding.is_loading() {
            return Ok(Step::More);
        }
        (self.broken, self.restarts) = (None, 0);
        Ok(Step::InStep)
    }

    /// Applies the deltas up to number `end`; those that start elsewhere are left out.
    fn apply(
        &mut self,
        host: &dyn Host,
        shelf: &Shelf,
        keys: &mut Keys,
        slots: u64,
        end: u64,
    ) -> Result<(), WireError> {
        while self.delta < end {
            let delta = shelf::read(host, &shelf.delta(self.delta, slots)).filter(|delta| delta.number == self.delta);
            match keys.holding.apply(&delta.ok_or(WireError::Truncated)?.bytes) {
                Ok(()) | Err(WireError::Position) => {}
                Err(error) => return Err(error),
            }
            self.delta = self.delta.saturating_add(1);
        }
        Ok(())
    }
}
