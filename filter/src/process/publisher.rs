//! Leading: handing on to the other workers what the control plane answered.

use std::collections::{BTreeSet, VecDeque};

use policy::Holding;

use super::head::{Head, Mark};
use super::shelf::{self, Deposed, MIN_SLOTS, Shelf};
use crate::host::Host;
use crate::keys::Keys;
use crate::subscription::News;

/// Bytes of deltas behind the base before pages are published anew: shared data should hold little beside the pages.
const MANY_BYTES: usize = if cfg!(any(test, feature = "model")) { 16 << 10 } else { 4 << 20 };

/// The same a slot, where a large table has many.
const MANY_BYTES_A_SLOT: usize = 512;

/// Deltas that are freed in one step once no worker needs them.
const FREED_A_STEP: u64 = 64;

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
    /// The lengths of the deltas from the base on, as far as this leader wrote them.
    lengths: VecDeque<usize>,
    /// Deltas before this number are freed.
    freed: u64,
    /// Pages whose published copy may lack changes up to the base.
    unpublished: BTreeSet<usize>,
    pass: Option<Pass>,
    /// A snapshot is on its way in, under the next generation.
    is_loading: bool,
}

/// Publishing anew all pages that changed, so that the base can move up to where it began.
struct Pass {
    base: Mark,
    pages: BTreeSet<usize>,
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
        let pages = holding.table().map_or(0, |table| table.page_count());
        Self {
            term,
            generation: head.generation,
            is_complete: head.is_complete,
            base: Some(head.base),
            to: Some(head.to),
            next_delta: head.to.delta,
            slots: head.slots,
            slots_before: head.slots,
            lengths: VecDeque::new(),
            freed: head.base.delta.saturating_sub(head.slots),
            unpublished: (0..pages).collect(),
            pass: None,
            is_loading: false,
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
            lengths: VecDeque::new(),
            freed: delta.saturating_sub(slots),
            unpublished: BTreeSet::new(),
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
                self.lengths.clear();
                self.base = Some(Mark { position: *position, delta: self.next_delta });
            }
            News::Delta(bytes) => {
                shelf::write(host, &shelf.delta(self.next_delta, self.slots), self.term, self.next_delta, bytes)?;
                self.next_delta = self.next_delta.saturating_add(1);
                self.lengths.push_back(bytes.len());
            }
            News::Page(number) => {
                self.write_page(host, shelf, &keys.holding, *number, self.generation.saturating_add(1))?
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
        let began = std::mem::take(&mut self.is_loading);
        if began {
            self.generation = self.generation.saturating_add(1);
            let manifest = table.manifest(base.position).map_err(|_| Deposed)?;
            shelf::write(host, &shelf.manifest(), self.term, self.generation, &manifest)?;
            self.is_complete = true;
        }
        if self.next_delta.saturating_sub(base.delta) >= self.slots {
            // The oldest delta was overwritten: until the pages have moved on, no worker can begin.
            self.is_complete = false;
        }
        self.to = Some(Mark { position: table.position(), delta: self.next_delta });
        self.write_head(host, shelf, keys)?;
        let moved = began || matches!(news, News::Delta(_));
        Ok(if moved { Wake::Everybody } else { Wake::Nobody })
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
                self.unpublished = (0..table.page_count()).collect();
            }
            let bytes: usize = self.lengths.iter().sum();
            let many_bytes = usize::try_from(self.slots).unwrap_or(0).saturating_mul(MANY_BYTES_A_SLOT).max(MANY_BYTES);
            if behind > self.slots / 2 || bytes > many_bytes || !self.unpublished.is_empty() || !self.is_complete {
                let mut pages = table.changed_pages();
                pages.append(&mut self.unpublished);
                self.pass = Some(Pass { base: Mark { position: table.position(), delta: self.next_delta }, pages });
            }
            return Ok(self.pass.is_some() && !self.is_complete);
        };
        if let Some(number) = pass.pages.pop_first() {
            if !table.rebase(number) {
                self.pass = None;
                return Ok(false);
            }
            self.write_page(host, shelf, &keys.holding, number, self.generation)?;
            return Ok(behind > self.slots / 4 * 3 || !self.is_complete);
        }
        let moved_to = pass.base;
        self.pass = None;
        let manifest = table.manifest(moved_to.position).map_err(|_| Deposed)?;
        shelf::write(host, &shelf.manifest(), self.term, self.generation, &manifest)?;
        let passed = usize::try_from(moved_to.delta.saturating_sub(base.delta)).unwrap_or(usize::MAX);
        self.lengths.drain(..passed.min(self.lengths.len()));
        self.base = Some(moved_to);
        self.is_complete = self.next_delta.saturating_sub(moved_to.delta) < self.slots;
        self.write_head(host, shelf, keys)?;
        Ok(!self.is_complete)
    }

    /// Empties deltas that stand before the base; a worker that still reads them begins anew.
    fn free(&mut self, host: &dyn Host, shelf: &Shelf) -> Result<(), Deposed> {
        let Some(base) = self.base else { return Ok(()) };
        let end = base.delta.min(self.freed.saturating_add(FREED_A_STEP));
        while self.freed < end {
            let name = shelf.delta(self.freed, self.slots);
            if shelf::read(host, &name).is_some_and(|delta| delta.number == self.freed) {
                shelf::write(host, &name, self.term, self.freed, &[])?;
            }
            self.freed = self.freed.saturating_add(1);
        }
        Ok(())
    }

    fn write_page(
        &self,
        host: &dyn Host,
        shelf: &Shelf,
        holding: &Holding,
        number: usize,
        generation: u64,
    ) -> Result<(), Deposed> {
        let Some(page) = holding.page(number) else { return Ok(()) };
        shelf::write(host, &shelf.page(number), self.term, generation, page)
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
