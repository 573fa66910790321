//! What an edge holds: the received pages, read in place, and beside each the changes of deltas since.

mod loading;
mod pages;

use crate::digest::Digest;
use crate::position::Position;
use crate::wire::{Catalogue, Cut, Delta, EncodeError, OpView, Page, PageId, RecordView, WireError};

pub use self::loading::Loading;
pub(crate) use self::pages::Look;
use self::pages::{Change, Pages};

/// A page is cut in two before it grows past this: a worker rebuilds it in one turn of its event loop, about a millisecond.
const CUT_BYTES: usize = if cfg!(any(test, feature = "model")) { 1_000 } else { 256 << 10 };

/// Changed digests that take next to no memory, so that nothing is rebased.
const FEW_CHANGES: usize = if cfg!(test) { 16 } else { 1024 };

/// As many of a table's records may have changed as well: a pass over a page then takes in many changes at once, and what a
/// change costs doesn't depend on how many keys there are.
const CHANGED_SHARE: u64 = 64;

/// Bytes of changes, and their share of the pages, from which on rebasing doesn't wait for a quiet moment: changes that came
/// faster than they are rebased would take memory without bound.
const HEAVY_BYTES: usize = if cfg!(any(test, feature = "model")) { 4_000 } else { 1 << 20 };
const HEAVY_SHARE: usize = 8;

/// All records at one position. Costs the pages' bytes, and about 80 bytes beside its record for each digest that changed lately:
/// see [`Self::rebase_a_page`].
///
/// While a snapshot is on its way in, a table may have given up pages, or not have all of them yet: see
/// [`Holding`](crate::Holding).
pub struct Table {
    position: Position,
    catalogue: Catalogue,
    pages: Pages,
    /// A page that can't be rebased any more, because its digests share too many bits: time for a snapshot.
    outgrown: bool,
}

/// What rebasing a page led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebased {
    /// The page has all its changes.
    Merged,
    /// The page would have grown too large, and is two pages now; neither has its changes yet.
    Cut([PageId; 2]),
    /// There is no such page: it was cut before.
    Gone,
    /// It can't be done: see [`Table::is_outgrown`].
    Outgrown,
}

impl Table {
    /// The record of `digest`. Its cost doesn't depend on the number of keys; it allocates nothing.
    pub fn find(&self, digest: &Digest) -> Option<RecordView<'_>> {
        match self.look(digest) {
            Look::Known(record) => Some(record),
            Look::Unknown | Look::NotHere => None,
        }
    }

    /// What this table has to say of `digest`. Costs as much as [`Self::find`].
    pub(crate) fn look(&self, digest: &Digest) -> Look<'_> {
        self.pages.slot(digest).map_or(Look::NotHere, |slot| slot.look(digest))
    }

    /// Frees the pages whose digests all stand before `end`, in the first 64 bits of a digest.
    pub(crate) fn give_up_before(&mut self, end: u128) {
        self.pages.give_up_before(end);
    }

    /// The position of the last change that was applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What the records' numbers mean.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// How many digests the table knows.
    pub fn len(&self) -> u64 {
        self.pages.records()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that the table takes, to about a tenth. Costs a look at each page.
    pub fn bytes(&self) -> usize {
        self.pages.slots().iter().map(|slot| slot.bytes()).sum()
    }

    /// Applies a delta that starts at this table's position: whole, or not at all. Costs as much as the delta is long.
    pub fn apply(&mut self, message: &[u8]) -> Result<(), WireError> {
        let Delta { to, ops } = Delta::decode(message, self.position)?;
        // What can be refused comes first, so that a refused delta has changed nothing.
        let mut catalogue = None;
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            match op {
                OpView::Upsert(alone) => {
                    changes.push((RecordView::alone(alone)?.digest(), Change::Upserted(alone.into())));
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

    /// Moves the changes of one page into it, or cuts it in two, when 1,024 digests and a 64th of the table have changed; to be
    /// called now and then. Costs one pass over that page. Answers whether there may be more to do.
    pub fn rebase_a_page(&mut self) -> bool {
        let limit = FEW_CHANGES.max(usize::try_from(self.len() / CHANGED_SHARE).unwrap_or(usize::MAX));
        if self.outgrown || (self.pages.changed() <= limit && !self.is_heavy()) {
            return false;
        }
        // The one with the most to move: the pass over it is worth more.
        let fullest = self.pages.slots().iter().max_by_key(|slot| slot.changes.len()).map(|slot| slot.id);
        fullest.is_some_and(|id| matches!(self.rebase(id), Rebased::Merged | Rebased::Cut(_)))
    }

    /// Whether there are so many changes beside the pages that rebasing should not wait.
    pub fn is_heavy(&self) -> bool {
        let changes = self.pages.change_bytes();
        !self.outgrown && changes > HEAVY_BYTES && changes > self.bytes().saturating_sub(changes) / HEAVY_SHARE
    }

    /// Moves the changes of a page into it, or cuts it in two where that would make it too large.
    pub fn rebase(&mut self, id: PageId) -> Rebased {
        let Some(at) = self.pages.find(id) else { return Rebased::Gone };
        let Some(slot) = self.pages.slots().get(at) else { return Rebased::Gone };
        if slot.changes.is_empty() {
            return Rebased::Merged;
        }
        let rebased = if slot.bytes() > CUT_BYTES && slot.id.halves().is_some() {
            self.pages.split(at, self.position).map(Rebased::Cut)
        } else {
            self.pages.merge(at, self.position).map(|()| Rebased::Merged)
        };
        rebased.unwrap_or_else(|_| {
            self.outgrown = true;
            Rebased::Outgrown
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

    /// The pages that changes wait for. Costs a look at each page.
    pub fn changed_pages(&self) -> impl Iterator<Item = PageId> {
        self.pages.slots().iter().filter(|slot| !slot.changes.is_empty()).map(|slot| slot.id)
    }

    /// How many pages the table is cut into.
    pub fn page_count(&self) -> usize {
        self.pages.slots().len()
    }

    /// The message of a page as it is, without its changes.
    pub fn page(&self, id: PageId) -> Option<&[u8]> {
        self.pages.slots().get(self.pages.find(id)?)?.page.as_ref().map(Page::message)
    }

    /// What another worker needs to take over this table's pages as they are: at `position`, from which deltas lead on.
    pub fn cut(&self, position: Position) -> Result<Vec<u8>, EncodeError> {
        let id = |slot: &pages::Slot| slot.page.is_some().then_some(slot.id).ok_or(EncodeError::Order);
        let pages = self.pages.slots().iter().map(id).collect::<Result<_, _>>()?;
        Cut { position, catalogue: self.catalogue.clone(), pages }.encode()
    }

    /// True when a page has too many changes to take them in, since its digests share too many bits to be cut. The table serves on
    /// with them beside it; a new snapshot serves better.
    pub fn is_outgrown(&self) -> bool {
        self.outgrown
    }
}

#[cfg(test)]
mod tests;
