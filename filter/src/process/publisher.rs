//! Leading: handing on to the other workers what the control plane answered.

use std::collections::{BTreeSet, VecDeque};

use policy::table::{Rebased, Table};
use policy::wire::{Cut, PageId};
use policy::{Holding, Position};

use super::head::{Head, Mark};
use super::shelf::{self, Deposed, MIN_SLOTS, Shelf};
use crate::host::Host;
use crate::keys::Keys;
use crate::subscription::News;

/// Bytes of deltas that shared data has room for beside the pages: these, or a quarter of the table where that is more. When half
/// of it is in use, pages are published anew, so that a base behind those deltas takes the place of the one before them.
const ROOM_BYTES: usize = if cfg!(any(test, feature = "model")) { 32 << 10 } else { 16 << 20 };
const ROOM_SHARE: usize = 4;

/// Deltas that are freed in one step once no worker needs them.
const FREED_A_STEP: u64 = 64;

/// The same of pages whose place others have taken.
const PAGES_FREED_A_STEP: usize = 8;

/// What a leader has published.
pub struct Publisher {
    term: u64,
    generation: u64,
    is_complete: bool,
    /// Where a worker that begins stands once it has the pages.
    base: Option<Mark>,
    /// Where the others follow to.
    to: Option<Mark>,
    /// The number of the next delta.
    next_delta: u64,
    /// Between how many slots deltas go round.
    slots: u64,
    /// The same of the generation that the others still follow, while a snapshot is on its way in.
    slots_before: u64,
    /// The deltas that are there from the base on, as far as this leader wrote them: their numbers and lengths.
    kept: VecDeque<(u64, usize)>,
    kept_bytes: usize,
    /// Deltas before this number were freed to make room, needed or not.
    oldest: u64,
    /// How many bytes of deltas there is room for.
    room: usize,
    /// Deltas before this number are freed.
    freed: u64,
    /// Pages whose published copy may lack changes up to the base.
    unpublished: BTreeSet<PageId>,
    /// Pages that are published and belong to no cut any more: they are to be freed.
    retired: BTreeSet<PageId>,
    pass: Option<Pass>,
    /// A snapshot is on its way in, under the next generation.
    is_loading: bool,
}

/// Publishing anew all pages that changed, so that the base can move up to where it began.
struct Pass {
    base: Mark,
    pages: BTreeSet<PageId>,
}

/// Whether the other workers are to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    Nobody,
    Everybody,
}

impl Publisher {
    /// Leads on from the head that a leader before left, whose table this worker has. What that leader wrote last is not
    /// known, so all pages are published anew, one by one.
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

    /// Starts anew, behind whatever stands in `head`: a snapshot comes first.
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

    /// Whether others can follow this leader.
    pub fn has_published(&self) -> bool {
        self.to.is_some()
    }

    /// The generation that other workers can follow, and the number of the delta after the last.
    pub fn reached(&self) -> (u64, u64) {
        (self.generation, self.next_delta)
    }

    /// Publishes what an answer brought. `keys` has taken it already.
    pub fn publish(&mut self, host: &dyn Host, shelf: &Shelf, keys: &Keys, news: &News) -> Result<Wake, Deposed> {
        match news {
            News::Nothing => {}
            News::Snapshot(position) => {
                // The pages that stand there go one by one from now on: no worker may begin with them.
                self.is_complete = false;
                self.write_head(host, shelf, keys)?;
                if !self.is_loading {
                    self.slots_before = self.slots;
                }
                self.slots = shelf::slots(keys.holding.page_count());
                self.is_loading = true;
                self.pass = None;
                self.unpublished.clear();
                self.kept.clear();
                self.kept_bytes = 0;
                self.base = Some(Mark { position: *position, delta: self.next_delta });
            }
            News::Delta(bytes) => {
                let number = self.next_delta;
                shelf::write(host, &shelf.delta(number, self.slots), self.term, number, bytes)?;
                self.next_delta = number.saturating_add(1);
                self.kept.push_back((number, bytes.len()));
                self.make_room(host, shelf, bytes.len())?;
            }
            News::Page(place) => {
                if let Some(id) = keys.holding.page_id(*place) {
                    self.write_page(host, shelf, keys.holding.page(id), id, self.generation.saturating_add(1))?;
                }
            }
        }
        self.settle(host, shelf, keys, news)
    }

    /// Says who leads now, so that the leader before writes nothing more.
    pub fn announce(&self, host: &dyn Host, shelf: &Shelf, keys: &Keys) -> Result<(), Deposed> {
        self.write_head(host, shelf, keys)
    }

    /// Moves the head to where the table is.
    fn settle(&mut self, host: &dyn Host, shelf: &Shelf, keys: &Keys, news: &News) -> Result<Wake, Deposed> {
        let (Some(table), Some(base)) = (keys.holding.table(), self.base) else { return Ok(Wake::Nobody) };
        self.room = ROOM_BYTES.max(table.bytes() / ROOM_SHARE);
        let began = std::mem::take(&mut self.is_loading);
        if began {
            self.generation = self.generation.saturating_add(1);
            self.write_cut(host, shelf, table, base.position)?;
            self.is_complete = true;
        }
        if !self.has_all_from(base) {
            // The oldest delta is gone: until the pages have moved on, no worker can begin.
            self.is_complete = false;
        }
        self.to = Some(Mark { position: table.position(), delta: self.next_delta });
        self.write_head(host, shelf, keys)?;
        let moved = began || matches!(news, News::Delta(_));
        Ok(if moved { Wake::Everybody } else { Wake::Nobody })
    }

    /// Notes a delta of so many bytes. Where there is no room, the oldest ones go: a worker that still needs them begins anew.
    fn make_room(&mut self, host: &dyn Host, shelf: &Shelf, bytes: usize) -> Result<(), Deposed> {
        self.kept_bytes = self.kept_bytes.saturating_add(bytes);
        while self.kept_bytes > self.room && self.kept.len() > 1 {
            let Some((number, length)) = self.kept.pop_front() else { break };
            self.free_delta(host, shelf, number)?;
            self.oldest = number.saturating_add(1);
            self.kept_bytes = self.kept_bytes.saturating_sub(length);
        }
        Ok(())
    }

    /// Whether all deltas are there that lead on from here.
    fn has_all_from(&self, mark: Mark) -> bool {
        self.next_delta.saturating_sub(mark.delta) < self.slots && mark.delta >= self.oldest
    }

    /// Work that can wait, to be called now and then: publishes at most one page. `must` has all pages published anew.
    /// Answers whether there is more that should be done soon.
    pub fn tidy(&mut self, host: &dyn Host, shelf: &Shelf, keys: &mut Keys, must: bool) -> Result<bool, Deposed> {
        self.free(host, shelf)?;
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
            self.grow_ring(host, shelf, keys, base)?;
            return Ok(false);
        };
        let is_tight = behind > self.slots / 4 * 3 || self.kept_bytes > self.room / 4 * 3;
        if let Some(id) = pass.pages.pop_first() {
            match table.rebase(id) {
                Rebased::Merged => self.write_page(host, shelf, keys.holding.page(id), id, self.generation)?,
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
        self.write_cut(host, shelf, table, moved_to.position)?;
        while let Some((_, length)) = self.kept.pop_front_if(|(number, _)| *number < moved_to.delta) {
            self.kept_bytes = self.kept_bytes.saturating_sub(length);
        }
        self.base = Some(moved_to);
        self.is_complete = self.has_all_from(moved_to);
        self.write_head(host, shelf, keys)?;
        Ok(!self.is_complete)
    }

    /// Gives a table that has grown more slots for its deltas, when few are in use: each gets another slot.
    fn grow_ring(&mut self, host: &dyn Host, shelf: &Shelf, keys: &Keys, base: Mark) -> Result<(), Deposed> {
        let slots = shelf::slots(keys.holding.page_count());
        let (few, is_tidy) = (self.kept_bytes <= self.room / 4, self.freed >= base.delta);
        if slots < self.slots.saturating_mul(2) || !few || !is_tidy {
            return Ok(());
        }
        let mut deltas = Vec::new();
        for number in base.delta..self.next_delta {
            let name = shelf.delta(number, self.slots);
            deltas.extend(shelf::read(host, &name).filter(|delta| delta.number == number));
            self.free_delta(host, shelf, number)?;
        }
        self.slots = slots;
        for delta in deltas {
            shelf::write(host, &shelf.delta(delta.number, slots), self.term, delta.number, &delta.bytes)?;
        }
        self.write_head(host, shelf, keys)
    }

    /// Empties deltas that stand before the base, and pages that belong to no cut; a worker that still reads them begins anew.
    fn free(&mut self, host: &dyn Host, shelf: &Shelf) -> Result<(), Deposed> {
        for id in (0..PAGES_FREED_A_STEP).map_while(|_| self.retired.pop_first()).collect::<Vec<_>>() {
            shelf::write(host, &shelf.page(id), self.term, self.generation, &[])?;
        }
        let Some(base) = self.base else { return Ok(()) };
        let end = base.delta.min(self.freed.saturating_add(FREED_A_STEP));
        while self.freed < end {
            self.free_delta(host, shelf, self.freed)?;
            self.freed = self.freed.saturating_add(1);
        }
        Ok(())
    }

    /// Empties the slot of a delta, if it still holds that delta.
    fn free_delta(&self, host: &dyn Host, shelf: &Shelf, number: u64) -> Result<(), Deposed> {
        let name = shelf.delta(number, self.slots);
        match shelf::read(host, &name).is_some_and(|delta| delta.number == number && !delta.bytes.is_empty()) {
            true => shelf::write(host, &name, self.term, number, &[]),
            false => Ok(()),
        }
    }

    fn write_page(
        &mut self,
        host: &dyn Host,
        shelf: &Shelf,
        page: Option<&[u8]>,
        id: PageId,
        generation: u64,
    ) -> Result<(), Deposed> {
        let Some(page) = page else { return Ok(()) };
        self.retired.remove(&id);
        shelf::write(host, &shelf.page(id), self.term, generation, page)
    }

    /// Says how the pages are cut. Those of the cut before that are no longer among them go.
    fn write_cut(&mut self, host: &dyn Host, shelf: &Shelf, table: &Table, base: Position) -> Result<(), Deposed> {
        let before = shelf::read(host, &shelf.cut()).and_then(|cut| Cut::decode(&cut.bytes).ok());
        let cut = table.cut(base).map_err(|_| Deposed)?;
        shelf::write(host, &shelf.cut(), self.term, self.generation, &cut)?;
        let now: BTreeSet<_> = table.page_ids().collect();
        self.retired.extend(before.into_iter().flat_map(|before| before.pages));
        self.retired.retain(|id| !now.contains(id));
        Ok(())
    }

    fn write_head(&self, host: &dyn Host, shelf: &Shelf, keys: &Keys) -> Result<(), Deposed> {
        let (Some(base), Some(to)) = (self.base, self.to) else { return Ok(()) };
        let Self { term, generation, is_complete, .. } = *self;
        let slots = if self.is_loading { self.slots_before } else { self.slots };
        let head =
            Head { term, generation, slots, is_complete, base, to, vouched: keys.vouched(), heard: keys.heard() };
        head.write(host, shelf)
    }
}
