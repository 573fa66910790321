//! Following the leader: taking over its pages once, and each of its deltas.

use policy::table::Loading;
use policy::wire::{PageId, WireError};

use super::head::Head;
use super::shelf::{self, Shelf, Stamped};
use super::turn::Turn;
use crate::host::Host;
use crate::keys::Keys;

/// How far this worker follows.
#[derive(Default)]
pub struct Follower {
    /// The generation whose pages this worker has or takes over.
    generation: Option<u64>,
    /// The number of the delta that is wanted next.
    delta: u64,
    /// It goes through the deltas from the base on once more.
    is_rereading: bool,
    /// The generation that could not be taken over.
    broken: Option<u64>,
    /// How often it began anew since it was in step.
    restarts: u32,
}

/// Beginning anew so often without coming into step means that what was published is wrong.
const MAX_RESTARTS: u32 = 3;

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

    /// Takes the next step, of about a turn's length: some of the deltas that there are or, once none is left, some pages.
    pub fn step(&mut self, host: &dyn Host, shelf: &Shelf, keys: &mut Keys) -> Step {
        let Some(head) = Head::read(host, shelf) else { return Step::Waits };
        if head.vouched.is_none() {
            // Also for a worker that is not there yet: until it is, it would decide by a word that counts no more.
            keys.distrust();
        }
        let stepped = if self.generation == Some(head.generation) {
            self.follow(host, shelf, keys, &head)
        } else if head.is_complete {
            self.begin(host, shelf, keys, &head)
        } else {
            Ok(Step::Waits)
        };
        stepped.unwrap_or_else(|_| {
            (self.generation, self.is_rereading) = (None, false);
            self.broken = Some(head.generation);
            Step::Broken
        })
    }

    fn begin(&mut self, host: &dyn Host, shelf: &Shelf, keys: &mut Keys, head: &Head) -> Result<Step, WireError> {
        let cut = read_of(host, &shelf.cut(), head).ok_or(WireError::Truncated)?;
        let loading = Loading::start_from_worker(&cut.bytes)?;
        // Written a moment before or after the head that was read: the next look shows both.
        if loading.position() != head.base.position {
            return Ok(Step::Waits);
        }
        keys.holding.begin(loading);
        self.generation = Some(head.generation);
        (self.delta, self.is_rereading) = (head.base.delta, false);
        Ok(Step::More)
    }

    fn follow(&mut self, host: &dyn Host, shelf: &Shelf, keys: &mut Keys, head: &Head) -> Result<Step, WireError> {
        if let Some(heard) = head.heard {
            keys.hear(heard);
        }
        let mut turn = Turn::begin(host);
        if self.is_rereading {
            // The base may have moved on meanwhile, and what stood before it was freed.
            self.delta = self.delta.max(head.base.delta);
        }
        match self.apply(host, shelf, keys, head, &mut turn) {
            Ok(()) if self.delta < head.to.delta => return Ok(Step::More),
            Ok(()) if keys.holding.newest() == Some(head.to.position) => {}
            // A delta that was overwritten is a lag; and a deposed leader may have cut its deltas in another way than the one
            // after it. The deltas from the base on may still lead there, and if not, the pages do.
            Ok(()) | Err(_) if !self.is_rereading => {
                (self.delta, self.is_rereading) = (head.base.delta, true);
                return Ok(Step::More);
            }
            Ok(()) => return self.begin_anew(),
            Err(_) if !head.is_complete => {
                // It was freed to make room, so a new base is on its way.
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
            let Some(page) = wanted_page(host, shelf, keys, head, id)? else { return self.begin_anew() };
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

    /// Too far behind: the pages that are published now should lead there.
    fn begin_anew(&mut self) -> Result<Step, WireError> {
        (self.generation, self.is_rereading) = (None, false);
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > MAX_RESTARTS { Err(WireError::Position) } else { Ok(Step::More) }
    }

    /// Applies deltas until there are no more or the turn is over; those that start elsewhere are left out.
    fn apply(
        &mut self,
        host: &dyn Host,
        shelf: &Shelf,
        keys: &mut Keys,
        head: &Head,
        turn: &mut Turn,
    ) -> Result<(), WireError> {
        while self.delta < head.to.delta {
            let name = shelf.delta(self.delta, head.slots);
            let delta =
                shelf::read(host, &name).filter(|delta| delta.number == self.delta).ok_or(WireError::Truncated)?;
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

/// The page that is wanted. Where it was cut in two since this worker began, that is the first of what took its place; `None`:
/// what has come so far doesn't fit the current cut.
fn wanted_page(
    host: &dyn Host,
    shelf: &Shelf,
    keys: &mut Keys,
    head: &Head,
    id: PageId,
) -> Result<Option<Stamped>, WireError> {
    if let Some(page) = read_of(host, &shelf.page(id), head) {
        return Ok(Some(page));
    }
    let cut = read_of(host, &shelf.cut(), head).ok_or(WireError::Truncated)?;
    if keys.holding.cut_anew(&cut.bytes).is_err() {
        return Ok(None);
    }
    let id = keys.holding.wanted_page().ok_or(WireError::Order)?;
    read_of(host, &shelf.page(id), head).map(Some).ok_or(WireError::Truncated)
}

/// A value of the head's generation that was not freed.
fn read_of(host: &dyn Host, name: &str, head: &Head) -> Option<Stamped> {
    shelf::read(host, name).filter(|value| value.number == head.generation && !value.bytes.is_empty())
}
