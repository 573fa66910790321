//! The follower: loads the leader's pages once, then applies its deltas.

use policy::table::Loading;
use policy::wire::{PageId, WireError};

use super::head::Head;
use super::shared_store::{self, SharedStore, StampedValue};
use super::time_slice::TimeSlice;
use crate::host::Host;
use crate::keys::Keys;

/// The progress of a worker that follows the leader.
#[derive(Default)]
pub struct Follower {
    /// The generation whose pages this worker has or loads.
    generation: Option<u64>,
    /// The number of the next delta.
    delta: u64,
    /// This worker reads the deltas again, starting at the base.
    is_rereading: bool,
    /// The generation that could not be loaded.
    broken: Option<u64>,
    /// How often this worker restarted since it was last up to date.
    restarts: u32,
}

/// After more restarts than this without being up to date, what the leader published is considered broken.
const MAX_RESTARTS: u32 = 3;

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// This worker is at the head.
    UpToDate,
    /// There is more to do now.
    More,
    /// No leader has published anything that this worker can load.
    Waiting,
    /// What was published is unusable: the leader has to publish it again.
    Broken,
}

impl Follower {
    /// A follower that resumes at the position of a deposed leader.
    pub fn resume_at(generation: u64, delta: u64) -> Self {
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

    /// Takes the next step, which lasts about a time slice: some deltas or, if there are none left, some pages.
    pub fn step(&mut self, host: &dyn Host, store: &SharedStore, keys: &mut Keys) -> StepOutcome {
        let Some(head) = Head::read(host, store) else { return StepOutcome::Waiting };
        if head.vouched.is_none() {
            // Also if this worker is behind: until it catches up, it would decide by a confirmation that is no longer
            // valid.
            keys.discard_confirmation();
        }
        let stepped = if self.generation == Some(head.generation) {
            self.follow(host, store, keys, &head)
        } else if head.is_complete {
            self.begin(host, store, keys, &head)
        } else {
            Ok(StepOutcome::Waiting)
        };
        stepped.unwrap_or_else(|_| {
            (self.generation, self.is_rereading) = (None, false);
            self.broken = Some(head.generation);
            StepOutcome::Broken
        })
    }

    fn begin(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &mut Keys,
        head: &Head,
    ) -> Result<StepOutcome, WireError> {
        let layout = read_generation(host, &store.layout(), head).ok_or(WireError::Truncated)?;
        let loading = Loading::start_from_worker(&layout.bytes)?;
        // The layout is older or newer than the head that was read: the next step reads both again.
        if loading.position() != head.base.position {
            return Ok(StepOutcome::Waiting);
        }
        keys.live_table.begin(loading);
        self.generation = Some(head.generation);
        (self.delta, self.is_rereading) = (head.base.delta, false);
        Ok(StepOutcome::More)
    }

    fn follow(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &mut Keys,
        head: &Head,
    ) -> Result<StepOutcome, WireError> {
        if let Some(time) = head.heard {
            keys.set_control_plane_time(time);
        }
        let mut time_slice = TimeSlice::begin(host);
        if self.is_rereading {
            // The base may have moved meanwhile, and the deltas before it may have been freed.
            self.delta = self.delta.max(head.base.delta);
        }
        match self.apply(host, store, keys, head, &mut time_slice) {
            Ok(()) if self.delta < head.to.delta => return Ok(StepOutcome::More),
            Ok(()) if keys.live_table.newest() == Some(head.to.position) => {}
            // A delta that was overwritten means that this worker lags. And a deposed leader may have divided its
            // changes into deltas differently than its successor. Try the deltas from the base on, then the pages.
            Ok(()) | Err(_) if !self.is_rereading => {
                (self.delta, self.is_rereading) = (head.base.delta, true);
                return Ok(StepOutcome::More);
            }
            Ok(()) => return self.restart(),
            Err(_) if !head.is_complete => {
                // The delta was freed to make space, so a new base will follow.
                (self.generation, self.is_rereading) = (None, false);
                return Ok(StepOutcome::Waiting);
            }
            Err(error) => return Err(error),
        }
        keys.live_table.mark_caught_up();
        match head.vouched {
            Some(confirmed_at) => keys.confirm(head.to.position, confirmed_at),
            None => keys.discard_confirmation(),
        }
        while let Some(id) = keys.live_table.wanted_page() {
            let Some(page) = wanted_page(host, store, keys, head, id)? else { return self.restart() };
            let bytes = page.bytes.len();
            keys.live_table.add(page.bytes)?;
            keys.apply_confirmation();
            if time_slice.is_over_after(host, bytes) {
                break;
            }
        }
        if keys.live_table.is_loading() {
            return Ok(StepOutcome::More);
        }
        (self.broken, self.restarts, self.is_rereading) = (None, 0, false);
        Ok(StepOutcome::UpToDate)
    }

    /// This worker is too far behind: start again with the pages that are published now.
    fn restart(&mut self) -> Result<StepOutcome, WireError> {
        (self.generation, self.is_rereading) = (None, false);
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > MAX_RESTARTS { Err(WireError::Position) } else { Ok(StepOutcome::More) }
    }

    /// Applies deltas until there are no more or the time slice is over. Skips deltas that start at another position.
    fn apply(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &mut Keys,
        head: &Head,
        time_slice: &mut TimeSlice,
    ) -> Result<(), WireError> {
        while self.delta < head.to.delta {
            let name = store.delta(self.delta, head.slots);
            let delta = shared_store::read(host, &name)
                .filter(|delta| delta.number == self.delta)
                .ok_or(WireError::Truncated)?;
            match keys.live_table.apply(&delta.bytes) {
                Ok(()) | Err(WireError::Position) => {}
                Err(error) => return Err(error),
            }
            self.delta = self.delta.saturating_add(1);
            if time_slice.is_over_after(host, delta.bytes.len()) {
                break;
            }
        }
        Ok(())
    }
}

/// The next page to load. If it was split since this worker began, the first of its successors. `None`: the pages
/// loaded so far don't match the current layout.
fn wanted_page(
    host: &dyn Host,
    store: &SharedStore,
    keys: &mut Keys,
    head: &Head,
    id: PageId,
) -> Result<Option<StampedValue>, WireError> {
    if let Some(page) = read_generation(host, &store.page(id), head) {
        return Ok(Some(page));
    }
    let layout = read_generation(host, &store.layout(), head).ok_or(WireError::Truncated)?;
    if keys.live_table.replace_layout(&layout.bytes).is_err() {
        return Ok(None);
    }
    let id = keys.live_table.wanted_page().ok_or(WireError::Order)?;
    read_generation(host, &store.page(id), head).map(Some).ok_or(WireError::Truncated)
}

/// Reads a value of the head's generation that wasn't freed.
fn read_generation(host: &dyn Host, name: &str, head: &Head) -> Option<StampedValue> {
    shared_store::read(host, name).filter(|value| value.number == head.generation && !value.bytes.is_empty())
}
