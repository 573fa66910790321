//! A worker's table: the received pages, read in place, each with the changes since then beside it.

mod loading;
mod pages;

use crate::digest::Digest;
use crate::position::Position;
use crate::wire::{Catalogue, Delta, EncodeError, OpView, Page, PageId, PageLayout, RecordView, WireError};

pub use self::loading::Loading;
pub(crate) use self::pages::Lookup;
use self::pages::{Change, Pages};

/// A page is split in two before it grows past this, so that a worker can rebuild it in one turn of its event loop, in
/// about a millisecond.
const SPLIT_BYTES: usize = if cfg!(any(test, feature = "model")) { 1_000 } else { 256 << 10 };

/// So few changed digests that their memory doesn't matter, and no page is rebased.
const FEW_CHANGES: usize = if cfg!(test) { 16 } else { 1024 };

/// One in this many records of a table may also have changed before a page is rebased. A pass over a page then merges
/// many changes, and the cost of a change doesn't depend on the number of keys.
const CHANGED_SHARE: u64 = 64;

/// Above these bytes of changes, and this share of the pages' bytes, rebasing doesn't wait for a quiet moment.
/// Otherwise, changes that arrive faster than they are rebased would take memory without bound.
const HEAVY_BYTES: usize = if cfg!(any(test, feature = "model")) { 4_000 } else { 1 << 20 };
const HEAVY_SHARE: usize = 8;

/// All records at one position. Uses the pages' bytes, and for each digest that changed recently its record and about
/// 80 bytes: see [`Self::rebase_a_page`].
///
/// While a snapshot is being loaded, a table may have freed pages, or not have all of them yet: see
/// [`LiveTable`](crate::LiveTable).
pub struct Table {
    position: Position,
    catalogue: Catalogue,
    pages: Pages,
    /// A page can't be rebased any more, because its digests share too many bits. A new snapshot is needed.
    outgrown: bool,
}

/// The outcome of rebasing a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebaseOutcome {
    /// The page contains all its changes.
    Merged,
    /// The page would have grown too large and is now two pages, whose changes are not merged yet.
    Split([PageId; 2]),
    /// There is no such page: it was split before.
    Gone,
    /// The page can't be rebased: see [`Table::is_outgrown`].
    Outgrown,
}

impl Table {
    /// The record of `digest`. Its cost doesn't depend on the number of keys; it allocates nothing.
    pub fn find(&self, digest: &Digest) -> Option<RecordView<'_>> {
        match self.lookup(digest) {
            Lookup::Found(record) => Some(record),
            Lookup::Absent | Lookup::PageMissing => None,
        }
    }

    /// What this table knows about `digest`. Costs as much as [`Self::find`].
    pub(crate) fn lookup(&self, digest: &Digest) -> Lookup<'_> {
        self.pages.slot(digest).map_or(Lookup::PageMissing, |slot| slot.lookup(digest))
    }

    /// Frees the pages whose digests are all below `end`, by their first 64 bits.
    pub(crate) fn free_pages_below(&mut self, end: u128) {
        self.pages.free_pages_below(end);
    }

    /// The position of the last change that was applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What the records' numbers mean.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// How many digests the table has.
    pub fn len(&self) -> u64 {
        self.pages.records()
    }

    /// Whether [`Self::len`] is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table's bytes, accurate to about a tenth. Costs a visit to each page.
    pub fn bytes(&self) -> usize {
        self.pages.slots().iter().map(|slot| slot.bytes()).sum()
    }

    /// Applies a delta that starts at this table's position, as a whole or not at all. Costs in proportion to its
    /// length.
    pub fn apply(&mut self, message: &[u8]) -> Result<(), WireError> {
        let Delta { to, ops } = Delta::decode(message, self.position)?;
        // All checks come first, so that a refused delta changes nothing.
        let mut catalogue = None;
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            match op {
                OpView::Upsert(standalone) => {
                    changes.push((RecordView::standalone(standalone)?.digest(), Change::Upserted(standalone.into())));
                }
                OpView::Remove(digest) => changes.push((digest, Change::Removed)),
                OpView::DefineScope(number, scope) => {
                    catalogue.get_or_insert_with(|| self.catalogue.clone()).define_scope(number, scope)?;
                }
                OpView::DefineEnvironment(number, name) => {
                    catalogue.get_or_insert_with(|| self.catalogue.clone()).define_environment(number, name)?;
                }
            }
        }
        changes.into_iter().for_each(|(digest, change)| self.pages.change(digest, change));
        self.catalogue = catalogue.unwrap_or_else(|| std::mem::take(&mut self.catalogue));
        self.position = to;
        Ok(())
    }

    /// Merges the changes of one page into it, or splits it in two, if more than 1,024 digests and a 64th of the table
    /// have changed, or if [`Self::is_heavy`]. To be called regularly. Costs one pass over that page. Returns whether
    /// there may be more to do.
    pub fn rebase_a_page(&mut self) -> bool {
        let limit = FEW_CHANGES.max(usize::try_from(self.len() / CHANGED_SHARE).unwrap_or(usize::MAX));
        if self.outgrown || (self.pages.changed() <= limit && !self.is_heavy()) {
            return false;
        }
        // The page with the most changes, for which a pass is worth the most.
        let fullest = self.pages.slots().iter().max_by_key(|slot| slot.changes.len()).map(|slot| slot.id);
        fullest.is_some_and(|id| matches!(self.rebase(id), RebaseOutcome::Merged | RebaseOutcome::Split(_)))
    }

    /// Whether the changes beside the pages use so much memory that rebasing should not wait.
    pub fn is_heavy(&self) -> bool {
        let changes = self.pages.change_bytes();
        !self.outgrown && changes > HEAVY_BYTES && changes > self.bytes().saturating_sub(changes) / HEAVY_SHARE
    }

    /// Merges the changes of a page into it, or splits it in two where that would make it too large.
    pub fn rebase(&mut self, id: PageId) -> RebaseOutcome {
        let Some(at) = self.pages.find(id) else { return RebaseOutcome::Gone };
        let Some(slot) = self.pages.slots().get(at) else { return RebaseOutcome::Gone };
        if slot.changes.is_empty() {
            return RebaseOutcome::Merged;
        }
        let rebased = if slot.bytes() > SPLIT_BYTES && slot.id.halves().is_some() {
            self.pages.split(at, self.position).map(RebaseOutcome::Split)
        } else {
            self.pages.merge(at, self.position).map(|()| RebaseOutcome::Merged)
        };
        rebased.unwrap_or_else(|_| {
            self.outgrown = true;
            RebaseOutcome::Outgrown
        })
    }

    /// How many digests changed since their pages were made.
    pub fn changed(&self) -> usize {
        self.pages.changed()
    }

    /// All pages, in the order of their digests.
    pub fn page_ids(&self) -> impl Iterator<Item = PageId> {
        self.pages.slots().iter().map(|slot| slot.id)
    }

    /// The pages with changes that are not merged. Costs a visit to each page.
    pub fn changed_pages(&self) -> impl Iterator<Item = PageId> {
        self.pages.slots().iter().filter(|slot| !slot.changes.is_empty()).map(|slot| slot.id)
    }

    /// How many pages the table has.
    pub fn page_count(&self) -> usize {
        self.pages.slots().len()
    }

    /// The message of a page, without the changes beside it.
    pub fn page(&self, id: PageId) -> Option<&[u8]> {
        self.pages.slots().get(self.pages.find(id)?)?.page.as_ref().map(Page::message)
    }

    /// The message that another worker needs to copy this table's pages as they are. The deltas after `position`
    /// complete them.
    pub fn layout(&self, position: Position) -> Result<Vec<u8>, EncodeError> {
        let id = |slot: &pages::Slot| slot.page.is_some().then_some(slot.id).ok_or(EncodeError::Order);
        let pages = self.pages.slots().iter().map(id).collect::<Result<_, _>>()?;
        PageLayout { position, catalogue: self.catalogue.clone(), pages }.encode()
    }

    /// True when a page has too many changes to merge, and its digests share too many bits to split it. The table stays
    /// in use with the changes beside the page, but a new snapshot is better.
    pub fn is_outgrown(&self) -> bool {
        self.outgrown
    }
}

#[cfg(test)]
mod tests;
