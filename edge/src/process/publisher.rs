//! The publisher: the leader writes the control plane's snapshots and deltas to the shared store for the other workers.

use std::collections::{BTreeSet, VecDeque};

use policy::table::{RebaseOutcome, Table};
use policy::wire::{PageId, PageLayout};
use policy::{LiveTable, Position};

use super::head::{DeltaPosition, Head};
use super::shared_store::{self, LeaderDeposed, MIN_SLOTS, SharedStore};
use crate::host::Host;
use crate::keys::Keys;
use crate::subscription::FeedUpdate;

/// The budget for deltas in shared data, beside the pages: this many bytes, or a quarter of the table if that is more.
/// When half of it is in use, the pages are published again, and the base moves past those deltas.
const DELTA_BUDGET_BYTES: usize = if cfg!(any(test, feature = "model")) { 32 << 10 } else { 16 << 20 };
const DELTA_BUDGET_PART: usize = 4;

/// How many deltas are freed in one step, once no worker needs them.
const FREED_PER_STEP: u64 = 64;

/// How many pages that others have replaced are freed in one step.
const PAGES_FREED_PER_STEP: usize = 8;

/// What a leader has published.
pub struct Publisher {
    term: u64,
    generation: u64,
    is_complete: bool,
    /// The position that a worker has after it loaded the pages.
    base: Option<DeltaPosition>,
    /// The position that a follower has after it applied the deltas.
    to: Option<DeltaPosition>,
    /// The number of the next delta.
    next_delta: u64,
    /// The size of the ring buffer of deltas.
    slots: u64,
    /// The size for the generation that the others still follow, while a snapshot is loading.
    slots_before: u64,
    /// Numbers and lengths of the deltas from the base on that this leader wrote.
    stored_deltas: VecDeque<(u64, usize)>,
    stored_bytes: usize,
    /// Deltas before this number were freed to stay within the budget, even if a worker needed them.
    oldest: u64,
    /// The most bytes of deltas that are stored.
    delta_budget: usize,
    /// Deltas before this number are freed.
    freed: u64,
    /// Pages whose published copy may lack changes before the base.
    unpublished: BTreeSet<PageId>,
    /// Published pages that are no longer in the layout: they are freed next.
    retired: BTreeSet<PageId>,
    pass: Option<RepublishPass>,
    /// A snapshot is loading, as the next generation.
    is_loading: bool,
}

/// One pass over all changed pages, which publishes them again, so that the base can move to the pass's start.
struct RepublishPass {
    base: DeltaPosition,
    pages: BTreeSet<PageId>,
}

/// Which workers to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// No delta and no complete snapshot is new. Peers read a new confirmation with their next tick.
    Nobody,
    /// All peers: there is a delta or a complete snapshot to apply, or the instance was retired.
    Everybody,
}

impl Publisher {
    /// Continues from the head of the previous leader, whose table this worker has. That leader's last writes are
    /// unknown, so all pages are published again, one by one.
    pub fn continue_from(term: u64, head: &Head, live_table: &LiveTable) -> Self {
        Self {
            generation: head.generation,
            is_complete: head.is_complete,
            base: Some(head.base),
            to: Some(head.to),
            freed: head.base.delta.saturating_sub(head.slots),
            unpublished: live_table.table().map(|table| table.page_ids().collect()).unwrap_or_default(),
            ..Self::start_fresh(term, Some(head))
        }
    }

    /// Starts again after the deltas of `head`, beginning with a snapshot.
    pub fn start_fresh(term: u64, head: Option<&Head>) -> Self {
        let delta = head.map_or(0, |head| head.to.delta);
        let slots = head.map_or(MIN_SLOTS, |head| head.slots);
        Self {
            term,
            generation: head.map_or(0, |head| head.generation),
            is_complete: false,
            base: None,
            to: None,
            next_delta: delta,
            slots,
            slots_before: slots,
            stored_deltas: VecDeque::new(),
            stored_bytes: 0,
            oldest: 0,
            delta_budget: DELTA_BUDGET_BYTES,
            freed: delta.saturating_sub(slots),
            unpublished: BTreeSet::new(),
            retired: BTreeSet::new(),
            pass: None,
            is_loading: false,
        }
    }

    /// The term of the lease that this leader holds: the fencing token in everything that it writes.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether other workers can follow this leader.
    pub fn has_published(&self) -> bool {
        self.to.is_some()
    }

    /// The generation that other workers can follow, and the number of the next delta.
    pub fn published_to(&self) -> (u64, u64) {
        (self.generation, self.next_delta)
    }

    /// Publishes the update of a response, which `keys` already contains.
    pub fn publish(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &Keys,
        update: &FeedUpdate,
    ) -> Result<Wake, LeaderDeposed> {
        match update {
            FeedUpdate::None => {}
            FeedUpdate::Snapshot(position) => {
                // The published pages are replaced one by one from now on: no worker may load them meanwhile.
                self.is_complete = false;
                self.write_head(host, store, keys)?;
                if !self.is_loading {
                    self.slots_before = self.slots;
                }
                self.slots = shared_store::slots(keys.live_table.page_count());
                self.is_loading = true;
                self.pass = None;
                self.unpublished.clear();
                self.stored_deltas.clear();
                self.stored_bytes = 0;
                self.base = Some(DeltaPosition { position: *position, delta: self.next_delta });
            }
            FeedUpdate::Delta(bytes) => {
                let number = self.next_delta;
                shared_store::write(host, &store.delta(number, self.slots), self.term, number, bytes)?;
                self.next_delta = number.saturating_add(1);
                self.stored_deltas.push_back((number, bytes.len()));
                self.enforce_delta_budget(host, store, bytes.len())?;
            }
            FeedUpdate::Page(place) => {
                if let Some(id) = keys.live_table.page_id(*place) {
                    self.write_page(host, store, keys.live_table.page(id), id, self.generation.saturating_add(1))?;
                }
            }
        }
        self.update_head(host, store, keys, update)
    }

    /// Announces the new leader, which fences off the previous one.
    pub fn announce(&self, host: &dyn Host, store: &SharedStore, keys: &Keys) -> Result<(), LeaderDeposed> {
        self.write_head(host, store, keys)
    }

    /// Moves the head to the table's position.
    fn update_head(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &Keys,
        update: &FeedUpdate,
    ) -> Result<Wake, LeaderDeposed> {
        let (Some(table), Some(base)) = (keys.live_table.table(), self.base) else { return Ok(Wake::Nobody) };
        self.delta_budget = DELTA_BUDGET_BYTES.max(table.bytes() / DELTA_BUDGET_PART);
        let began = std::mem::take(&mut self.is_loading);
        if began {
            self.generation = self.generation.saturating_add(1);
            self.write_layout(host, store, table, base.position)?;
            self.is_complete = true;
        }
        if !self.has_all_from(base) {
            // The oldest delta was freed: until the base has moved, no worker can load the table.
            self.is_complete = false;
        }
        self.to = Some(DeltaPosition { position: table.position(), delta: self.next_delta });
        self.write_head(host, store, keys)?;
        let moved = began || matches!(update, FeedUpdate::Delta(_));
        Ok(if moved { Wake::Everybody } else { Wake::Nobody })
    }

    /// Counts a delta of this many bytes. If the budget is exceeded, the oldest deltas are freed: a worker that still
    /// needs them starts again.
    fn enforce_delta_budget(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        bytes: usize,
    ) -> Result<(), LeaderDeposed> {
        self.stored_bytes = self.stored_bytes.saturating_add(bytes);
        while self.stored_bytes > self.delta_budget && self.stored_deltas.len() > 1 {
            let Some((number, length)) = self.stored_deltas.pop_front() else { break };
            self.free_delta(host, store, number)?;
            self.oldest = number.saturating_add(1);
            self.stored_bytes = self.stored_bytes.saturating_sub(length);
        }
        Ok(())
    }

    /// Whether all deltas after this position are stored.
    fn has_all_from(&self, start: DeltaPosition) -> bool {
        self.next_delta.saturating_sub(start.delta) < self.slots && start.delta >= self.oldest
    }

    /// Maintenance, called with each tick: publishes at most one page. `must_republish` publishes all pages again.
    /// Returns whether more work should be done soon.
    pub fn run_maintenance(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &mut Keys,
        must_republish: bool,
    ) -> Result<bool, LeaderDeposed> {
        self.free(host, store)?;
        let (Some(base), Some(_), false) = (self.base, self.to, self.is_loading) else { return Ok(false) };
        // A table that outgrew its pages waits for a snapshot, which sets a new base.
        let Some(table) = keys.live_table.table_mut().filter(|table| !table.is_outgrown()) else { return Ok(false) };
        let behind = self.next_delta.saturating_sub(base.delta);
        let Some(pass) = &mut self.pass else {
            if must_republish {
                self.unpublished = table.page_ids().collect();
            }
            let has_many_changes =
                behind > self.slots / 2 || self.stored_bytes > self.delta_budget / 2 || table.is_heavy();
            if has_many_changes || !self.unpublished.is_empty() || !self.is_complete {
                let mut pages: BTreeSet<_> = table.changed_pages().collect();
                pages.append(&mut self.unpublished);
                self.pass = Some(RepublishPass {
                    base: DeltaPosition { position: table.position(), delta: self.next_delta },
                    pages,
                });
                return Ok(!self.is_complete);
            }
            self.grow_ring(host, store, keys, base)?;
            return Ok(false);
        };
        let is_tight = behind > self.slots / 4 * 3 || self.stored_bytes > self.delta_budget / 4 * 3;
        if let Some(id) = pass.pages.pop_first() {
            match table.rebase(id) {
                RebaseOutcome::Merged => self.write_page(host, store, keys.live_table.page(id), id, self.generation)?,
                RebaseOutcome::Split(halves) => pass.pages.extend(halves),
                RebaseOutcome::Gone => {}
                RebaseOutcome::Outgrown => {
                    pass.pages.insert(id);
                    self.unpublished = self.pass.take().map(|pass| pass.pages).unwrap_or_default();
                    return Ok(false);
                }
            }
            return Ok(is_tight || !self.is_complete);
        }
        let moved_to = pass.base;
        self.pass = None;
        self.write_layout(host, store, table, moved_to.position)?;
        while let Some((_, length)) = self.stored_deltas.pop_front_if(|(number, _)| *number < moved_to.delta) {
            self.stored_bytes = self.stored_bytes.saturating_sub(length);
        }
        self.base = Some(moved_to);
        self.is_complete = self.has_all_from(moved_to);
        self.write_head(host, store, keys)?;
        Ok(!self.is_complete)
    }

    /// Enlarges the ring buffer of a table that has grown, while few deltas are in it: each moves to another slot.
    fn grow_ring(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        keys: &Keys,
        base: DeltaPosition,
    ) -> Result<(), LeaderDeposed> {
        let slots = shared_store::slots(keys.live_table.page_count());
        let (has_few_deltas, has_freed_all) = (self.stored_bytes <= self.delta_budget / 4, self.freed >= base.delta);
        if slots < self.slots.saturating_mul(2) || !has_few_deltas || !has_freed_all {
            return Ok(());
        }
        let mut deltas = Vec::new();
        for number in base.delta..self.next_delta {
            let name = store.delta(number, self.slots);
            deltas.extend(shared_store::read(host, &name).filter(|delta| delta.number == number));
            self.free_delta(host, store, number)?;
        }
        self.slots = slots;
        for delta in deltas {
            shared_store::write(host, &store.delta(delta.number, slots), self.term, delta.number, &delta.bytes)?;
        }
        self.write_head(host, store, keys)
    }

    /// Frees deltas before the base, and pages that are no longer in the layout. A worker that still reads them starts
    /// again.
    fn free(&mut self, host: &dyn Host, store: &SharedStore) -> Result<(), LeaderDeposed> {
        for id in (0..PAGES_FREED_PER_STEP).map_while(|_| self.retired.pop_first()).collect::<Vec<_>>() {
            shared_store::write(host, &store.page(id), self.term, self.generation, &[])?;
        }
        let Some(base) = self.base else { return Ok(()) };
        let end = base.delta.min(self.freed.saturating_add(FREED_PER_STEP));
        while self.freed < end {
            self.free_delta(host, store, self.freed)?;
            self.freed = self.freed.saturating_add(1);
        }
        Ok(())
    }

    /// Empties a delta's slot, if it still holds that delta.
    fn free_delta(&self, host: &dyn Host, store: &SharedStore, number: u64) -> Result<(), LeaderDeposed> {
        let name = store.delta(number, self.slots);
        match shared_store::read(host, &name).is_some_and(|delta| delta.number == number && !delta.bytes.is_empty()) {
            true => shared_store::write(host, &name, self.term, number, &[]),
            false => Ok(()),
        }
    }

    fn write_page(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        page: Option<&[u8]>,
        id: PageId,
        generation: u64,
    ) -> Result<(), LeaderDeposed> {
        let Some(page) = page else { return Ok(()) };
        self.retired.remove(&id);
        shared_store::write(host, &store.page(id), self.term, generation, page)
    }

    /// Publishes the layout of the pages. Pages of the previous layout that are no longer in it are retired.
    fn write_layout(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        table: &Table,
        base: Position,
    ) -> Result<(), LeaderDeposed> {
        let before =
            shared_store::read(host, &store.layout()).and_then(|layout| PageLayout::decode(&layout.bytes).ok());
        let layout = table.layout(base).map_err(|_| LeaderDeposed)?;
        shared_store::write(host, &store.layout(), self.term, self.generation, &layout)?;
        let now: BTreeSet<_> = table.page_ids().collect();
        self.retired.extend(before.into_iter().flat_map(|before| before.pages));
        self.retired.retain(|id| !now.contains(id));
        Ok(())
    }

    fn write_head(&self, host: &dyn Host, store: &SharedStore, keys: &Keys) -> Result<(), LeaderDeposed> {
        let (Some(base), Some(to)) = (self.base, self.to) else { return Ok(()) };
        let Self { term, generation, is_complete, .. } = *self;
        let slots = if self.is_loading { self.slots_before } else { self.slots };
        let (vouched, heard) = (keys.confirmed_at(), keys.control_plane_time());
        Head { term, generation, slots, is_complete, base, to, vouched, heard }.write(host, store)
    }
}
