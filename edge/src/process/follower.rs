//! The follower: loads the leader's pages once, then applies each of its deltas.

use policy::table::Loading;
use policy::wire::{PageId, WireError};

use super::head::Head;
use super::shared_store::{self, SharedStore, Stamped};
use super::turn::Turn;
use crate::host::Host;
use crate::keys::Keys;

/// How far this worker has followed.
#[derive(Default)]
pub struct Follower {
    /// The generation whose pages this worker has or loads.
    generation: Option<u64>,
    /// The number of the next delta.
    delta: u64,
    /// It reads the deltas from the base on once more.
    is_rereading: bool,
    /// The generation that could not be loaded.
    broken: Option<u64>,
    /// How often it started again since it was in step.
    restarts: u32,
}

/// Starting again more often than this without coming into step means that what was published is wrong.
const MAX_RESTARTS: u32 = 3;

/// What a step led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This worker is at the head.
    InStep,
    /// There is more to do now.
    More,
    /// No leader has published anything that this worker could load.
    Waits,
    /// What was published can't be used: the leader has to publish it again.
    Broken,
}

impl Follower {
    /// A follower at the position of a leader that was deposed.
    pub fn at(generation: u64, delta: u64) -> Self {
        Self { generation: Some(generation), delta, ..Self::default() }
    }

    /// The generation that could not be loaded, for the leader to publish it again.
    pub fn broken(&self) -> Option<u64> {
        self.broken
    }

    /// The generation that this worker follows.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Takes the next step, of about a turn's length: some of the deltas or, once there are none, some pages.
    pub fn step(&mut self, host: &dyn Host, store: &SharedStore, keys: &mut Keys) -> Step {
        let Some(head) = Head::read(host, store) else { return Step::Waits };
        if head.vouched.is_none() {
            // Also where this worker is behind: until it isn't, it would decide by a confirmation that no longer holds.
            keys.distrust();
        }
        let stepped = if self.generation == Some(head.generation) {
            self.follow(host, store, keys, &head)
        } else if head.is_complete {
            self.begin(host, store, keys, &head)
        } else {
            Ok(Step::Waits)
        };
        stepped.unwrap_or_else(|_| {
            (self.generation, self.is_rereading) = (None, false);
            self.broken = Some(head.generation);
            Step::Broken
        })
    }

    fn begin(&mut self, host: &dyn Host, store: &SharedStore, keys: &mut Keys, head: &Head) -> Result<Step, WireError> {
        let cut = read_of(host, &store.cut(), head).ok_or(WireError::Truncated)?;
        let loading = Loading::start_from_worker(&cut.bytes)?;
        // Written a moment before or after the head that was read: the next step reads both.
        if loading.position() != head.base.position {
            return Ok(Step::Waits);
        }
        keys.holding.begin(loading);
        self.generation = Some(head.generation);
        (self.delta, self.is_rereading) = (head.base.delta, false);
        Ok(Step::More)
    }

    fn follow(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &mut Keys,
        head: &Head,
    ) -> Result<Step, WireError> {
        if let Some(heard) = head.heard {
            keys.hear(heard);
        }
        let mut turn = Turn::begin(host);
        if self.is_rereading {
            // The base may have moved meanwhile, and deltas before it were freed.
            self.delta = self.delta.max(head.base.delta);
        }
        match self.apply(host, store, keys, head, &mut turn) {
            Ok(()) if self.delta < head.to.delta => return Ok(Step::More),
            Ok(()) if keys.holding.newest() == Some(head.to.position) => {}
            // A delta that was overwritten is a lag; and a deposed leader may have cut its deltas in another way than its
            // successor. The deltas from the base on may still lead there, and if not, the pages do.
            Ok(()) | Err(_) if !self.is_rereading => {
                (self.delta, self.is_rereading) = (head.base.delta, true);
                return Ok(Step::More);
            }
            Ok(()) => return self.start_again(),
            Err(_) if !head.is_complete => {
                // It was freed to make room, so a new base will follow.
                (self.generation, self.is_rereading) = (None, false);
                return Ok(Step::Waits);
            }
            Err(error) => return Err(error),
        }
        keys.holding.caught_up();
        match head.vouched {
            Some(vouched) => keys.vouch(head.to.position, vouched),
            None => keys.distrust(),
        }
        while let Some(id) = keys.holding.wanted_page() {
            let Some(page) = wanted_page(host, store, keys, head, id)? else { return self.start_again() };
            let bytes = page.bytes.len();
            keys.holding.add(page.bytes)?;
            keys.settle();
            if turn.is_over_after(host, bytes) {
                break;
            }
        }
        if keys.holding.is_loading() {
            return Ok(Step::More);
        }
        (self.broken, self.restarts, self.is_rereading) = (None, 0, false);
        Ok(Step::InStep)
    }

    /// Too far behind: start again with the pages that are published now.
    fn start_again(&mut self) -> Result<Step, WireError> {
        (self.generation, self.is_rereading) = (None, false);
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > MAX_RESTARTS { Err(WireError::Position) } else { Ok(Step::More) }
    }

    /// Applies deltas until there are no more or the turn is over; those that start elsewhere are skipped.
    fn apply(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &mut Keys,
        head: &Head,
        turn: &mut Turn,
    ) -> Result<(), WireError> {
        while self.delta < head.to.delta {
            let name = store.delta(self.delta, head.slots);
            let delta = shared_store::read(host, &name)
                .filter(|delta| delta.number == self.delta)
                .ok_or(WireError::Truncated)?;
            match keys.holding.apply(&delta.bytes) {
                Ok(()) | Err(WireError::Position) => {}
                Err(error) => return Err(error),
            }
            self.delta = self.delta.saturating_add(1);
            if turn.is_over_after(host, delta.bytes.len()) {
                break;
            }
        }
        Ok(())
    }
}

/// The next page to load. If it was split since this worker began, the first of its successors; `None`: the pages loaded so far
/// don't fit the current cut.
fn wanted_page(
    host: &dyn Host,
    store: &SharedStore,
    keys: &mut Keys,
    head: &Head,
    id: PageId,
) -> Result<Option<Stamped>, WireError> {
    if let Some(page) = read_of(host, &store.page(id), head) {
        return Ok(Some(page));
    }
    let cut = read_of(host, &store.cut(), head).ok_or(WireError::Truncated)?;
    if keys.holding.cut_anew(&cut.bytes).is_err() {
        return Ok(None);
    }
    let id = keys.holding.wanted_page().ok_or(WireError::Order)?;
    read_of(host, &store.page(id), head).map(Some).ok_or(WireError::Truncated)
}

/// A value of the head's generation that wasn't freed.
fn read_of(host: &dyn Host, name: &str, head: &Head) -> Option<Stamped> {
    shared_store::read(host, name).filter(|value| value.number == head.generation && !value.bytes.is_empty())
}
