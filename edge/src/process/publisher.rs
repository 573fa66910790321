//! The publisher: a leader hands on to the other workers what the control plane answered.

use std::collections::{BTreeSet, VecDeque};

use policy::table::{Rebased, Table};
use policy::wire::{Cut, PageId};
use policy::{Holding, Position};

use super::head::{Head, Mark};
use super::shared_store::{self, Deposed, MIN_SLOTS, SharedStore};
use crate::host::Host;
use crate::keys::Keys;
use crate::subscription::News;

/// Bytes of deltas that are kept in shared data beside the pages: these, or a quarter of the table if that is more. When half of
/// them are in use, the pages are published again, and a base behind those deltas replaces the one before them.
const ROOM_BYTES: usize = if cfg!(any(test, feature = "model")) { 32 << 10 } else { 16 << 20 };
const ROOM_PART: usize = 4;

/// Deltas that are freed in one step, once no worker needs them.
const FREED_PER_STEP: u64 = 64;

/// The same for pages that others have replaced.
const PAGES_FREED_PER_STEP: usize = 8;

/// What a leader has published.
pub struct Publisher {
    term: u64,
    generation: u64,
    is_complete: bool,
    /// The position of a worker that has loaded the pages.
    base: Option<Mark>,
    /// The position that followers reach with the deltas.
    to: Option<Mark>,
    /// The number of the next delta.
    next_delta: u64,
    /// The size of the ring buffer of deltas.
    slots: u64,
    /// The same for the generation that the others still follow, while a snapshot is loading.
    slots_before: u64,
    /// Numbers and lengths of the deltas from the base on that this leader wrote.
    kept: VecDeque<(u64, usize)>,
    kept_bytes: usize,
    /// Deltas before this number were freed to make room, whether needed or not.
    oldest: u64,
    /// How many bytes of deltas are kept at most.
    room: usize,
    /// Deltas before this number are freed.
    freed: u64,
    /// Pages whose published copy may lack changes before the base.
    unpublished: BTreeSet<PageId>,
    /// Published pages that no longer belong to the cut: they are freed next.
    retired: BTreeSet<PageId>,
    pass: Option<Pass>,
    /// A snapshot is loading, under the next generation.
    is_loading: bool,
}

/// One pass over all changed pages, which publishes them again, so that the base can move to where the pass began.
struct Pass {
    base: Mark,
    pages: BTreeSet<PageId>,
}

/// Which workers to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    Nobody,
    Everybody,
}

impl Publisher {
    /// Continues from the head of the leader before, whose table this worker has. What that leader wrote last isn't known, so all
    /// pages are published again, one by one.
    pub fn over(term: u64, head: &Head, holding: &Holding) -> Self {
        Self {
            generation: head.generation,
            is_complete: head.is_complete,
            base: Some(head.base),
            to: Some(head.to),
            freed: head.base.delta.saturating_sub(head.slots),
            unpublished: holding.table().map(|table| table.page_ids().collect()).unwrap_or_default(),
            ..Self::fresh(term, Some(head))
        }
    }

    /// Starts again, after whatever `head` has: a snapshot comes first.
    pub fn fresh(term: u64, head: Option<&Head>) -> Self {
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
            kept: VecDeque::new(),
            kept_bytes: 0,
            oldest: 0,
            room: ROOM_BYTES,
            freed: delta.saturating_sub(slots),
            unpublished: BTreeSet::new(),
            retired: BTreeSet::new(),
            pass: None,
            is_loading: false,
        }
    }

    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether other workers can follow this leader.
    pub fn has_published(&self) -> bool {
        self.to.is_some()
    }

    /// The generation that other workers can follow, and the number of the delta after the last.
    pub fn reached(&self) -> (u64, u64) {
        (self.generation, self.next_delta)
    }

    /// Publishes what an answer brought. `keys` has it already.
    pub fn publish(&mut self, host: &dyn Host, store: &SharedStore, keys: &Keys, news: &News) -> Result<Wake, Deposed> {
        match news {
            News::Nothing => {}
            News::Snapshot(position) => {
                // The published pages are replaced one by one from now on: no worker may begin with them.
                self.is_complete = false;
                self.write_head(host, store, keys)?;
                if !self.is_loading {
                    self.slots_before = self.slots;
                }
                self.slots = shared_store::slots(keys.holding.page_count());
                self.is_loading = true;
                self.pass = None;
                self.unpublished.clear();
                self.kept.clear();
                self.kept_bytes = 0;
                self.base = Some(Mark { position: *position, delta: self.next_delta });
            }
            News::Delta(bytes) => {
                let number = self.next_delta;
                shared_store::write(host, &store.delta(number, self.slots), self.term, number, bytes)?;
                self.next_delta = number.saturating_add(1);
                self.kept.push_back((number, bytes.len()));
                self.make_room(host, store, bytes.len())?;
            }
            News::Page(place) => {
                if let Some(id) = keys.holding.page_id(*place) {
                    self.write_page(host, store, keys.holding.page(id), id, self.generation.saturating_add(1))?;
                }
            }
        }
        self.settle(host, store, keys, news)
    }

    /// Announces the new leader, so that the one before writes nothing more.
    pub fn announce(&self, host: &dyn Host, store: &SharedStore, keys: &Keys) -> Result<(), Deposed> {
        self.write_head(host, store, keys)
    }

    /// Moves the head to the table's position.
    fn settle(&mut self, host: &dyn Host, store: &SharedStore, keys: &Keys, news: &News) -> Result<Wake, Deposed> {
        let (Some(table), Some(base)) = (keys.holding.table(), self.base) else { return Ok(Wake::Nobody) };
        self.room = ROOM_BYTES.max(table.bytes() / ROOM_PART);
        let began = std::mem::take(&mut self.is_loading);
        if began {
            self.generation = self.generation.saturating_add(1);
            self.write_cut(host, store, table, base.position)?;
            self.is_complete = true;
        }
        if !self.has_all_from(base) {
            // The oldest delta is gone: until the pages have moved on, no worker can begin.
            self.is_complete = false;
        }
        self.to = Some(Mark { position: table.position(), delta: self.next_delta });
        self.write_head(host, store, keys)?;
        let moved = began || matches!(news, News::Delta(_));
        Ok(if moved { Wake::Everybody } else { Wake::Nobody })
    }

    /// Counts a delta of so many bytes. If there is no room, the oldest ones are freed: a worker that still needs them starts again.
    fn make_room(&mut self, host: &dyn Host, store: &SharedStore, bytes: usize) -> Result<(), Deposed> {
        self.kept_bytes = self.kept_bytes.saturating_add(bytes);
        while self.kept_bytes > self.room && self.kept.len() > 1 {
            let Some((number, length)) = self.kept.pop_front() else { break };
            self.free_delta(host, store, number)?;
            self.oldest = number.saturating_add(1);
            self.kept_bytes = self.kept_bytes.saturating_sub(length);
        }
        Ok(())
    }

    /// Whether all deltas that follow this position are there.
    fn has_all_from(&self, mark: Mark) -> bool {
        self.next_delta.saturating_sub(mark.delta) < self.slots && mark.delta >= self.oldest
    }

    /// Housekeeping, called with each tick: publishes at most one page. `must` publishes all pages again. Answers whether there is
    /// more that should be done soon.
    pub fn tidy(&mut self, host: &dyn Host, store: &SharedStore, keys: &mut Keys, must: bool) -> Result<bool, Deposed> {
        self.free(host, store)?;
        let (Some(base), Some(_), false) = (self.base, self.to, self.is_loading) else { return Ok(false) };
        // A table that outgrew its pages waits for a snapshot, which makes another base.
        let Some(table) = keys.holding.table_mut().filter(|table| !table.is_outgrown()) else { return Ok(false) };
        let behind = self.next_delta.saturating_sub(base.delta);
        let Some(pass) = &mut self.pass else {
            if must {
                self.unpublished = table.page_ids().collect();
            }
            let many = behind > self.slots / 2 || self.kept_bytes > self.room / 2 || table.is_heavy();
            if many || !self.unpublished.is_empty() || !self.is_complete {
                let mut pages: BTreeSet<_> = table.changed_pages().collect();
                pages.append(&mut self.unpublished);
                self.pass = Some(Pass { base: Mark { position: table.position(), delta: self.next_delta }, pages });
                return Ok(!self.is_complete);
            }
            self.grow_ring(host, store, keys, base)?;
            return Ok(false);
        };
        let is_tight = behind > self.slots / 4 * 3 || self.kept_bytes > self.room / 4 * 3;
        if let Some(id) = pass.pages.pop_first() {
            match table.rebase(id) {
                Rebased::Merged => self.write_page(host, store, keys.holding.page(id), id, self.generation)?,
                Rebased::Cut(halves) => pass.pages.extend(halves),
                Rebased::Gone => {}
                Rebased::Outgrown => {
                    pass.pages.insert(id);
                    self.unpublished = self.pass.take().map(|pass| pass.pages).unwrap_or_default();
                    return Ok(false);
                }
            }
            return Ok(is_tight || !self.is_complete);
        }
        let moved_to = pass.base;
        self.pass = None;
        self.write_cut(host, store, table, moved_to.position)?;
        while let Some((_, length)) = self.kept.pop_front_if(|(number, _)| *number < moved_to.delta) {
            self.kept_bytes = self.kept_bytes.saturating_sub(length);
        }
        self.base = Some(moved_to);
        self.is_complete = self.has_all_from(moved_to);
        self.write_head(host, store, keys)?;
        Ok(!self.is_complete)
    }

    /// Enlarges the ring buffer of a table that has grown, while few deltas are in it: each moves to another slot.
    fn grow_ring(&mut self, host: &dyn Host, store: &SharedStore, keys: &Keys, base: Mark) -> Result<(), Deposed> {
        let slots = shared_store::slots(keys.holding.page_count());
        let (few, is_tidy) = (self.kept_bytes <= self.room / 4, self.freed >= base.delta);
        if slots < self.slots.saturating_mul(2) || !few || !is_tidy {
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

    /// Frees deltas before the base, and pages outside of the cut; a worker that still reads them starts again.
    fn free(&mut self, host: &dyn Host, store: &SharedStore) -> Result<(), Deposed> {
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
    fn free_delta(&self, host: &dyn Host, store: &SharedStore, number: u64) -> Result<(), Deposed> {
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
    ) -> Result<(), Deposed> {
        let Some(page) = page else { return Ok(()) };
        self.retired.remove(&id);
        shared_store::write(host, &store.page(id), self.term, generation, page)
    }

    /// Publishes how the pages are cut. Pages of the cut before that are no longer in it are retired.
    fn write_cut(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        table: &Table,
        base: Position,
    ) -> Result<(), Deposed> {
        let before = shared_store::read(host, &store.cut()).and_then(|cut| Cut::decode(&cut.bytes).ok());
        let cut = table.cut(base).map_err(|_| Deposed)?;
        shared_store::write(host, &store.cut(), self.term, self.generation, &cut)?;
        let now: BTreeSet<_> = table.page_ids().collect();
        self.retired.extend(before.into_iter().flat_map(|before| before.pages));
        self.retired.retain(|id| !now.contains(id));
        Ok(())
    }

    fn write_head(&self, host: &dyn Host, store: &SharedStore, keys: &Keys) -> Result<(), Deposed> {
        let (Some(base), Some(to)) = (self.base, self.to) else { return Ok(()) };
        let Self { term, generation, is_complete, .. } = *self;
        let slots = if self.is_loading { self.slots_before } else { self.slots };
        let head =
            Head { term, generation, slots, is_complete, base, to, vouched: keys.vouched(), heard: keys.heard() };
        head.write(host, store)
    }
}
