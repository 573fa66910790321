//! Loads a table: from a manifest or layout, its pages, and the deltas in the meantime.

use super::{Pages, Table};
use crate::position::{Position, Revision};
use crate::wire::{Manifest, Page, PageId, PageLayout, PageSummary, WireError, pages_by_bits};

/// A table that may still lack pages.
pub struct Loading {
    table: Table,
    expected: ExpectedPages,
    /// How many pages have arrived.
    received: usize,
    /// The revision of the manifest or layout.
    revision: Revision,
}

/// Which pages to expect.
enum ExpectedPages {
    /// From the control plane: exactly these, all at the manifest's position.
    Exactly(Vec<PageSummary>),
    /// From another worker: pages of the same epoch with all changes up to a position, and perhaps later ones, which
    /// the deltas after that position repeat.
    Newer,
}

impl Loading {
    /// Starts with a manifest from the control plane.
    pub fn start(manifest: &[u8]) -> Result<Self, WireError> {
        let Manifest { position, catalogue, page_bits, pages } = Manifest::decode(manifest)?;
        let table = Table { position, catalogue, pages: Pages::new(pages_by_bits(page_bits)), outgrown: false };
        Ok(Self { table, expected: ExpectedPages::Exactly(pages), received: 0, revision: position.revision })
    }

    /// Starts with what [`Table::layout`] returned.
    pub fn start_from_worker(layout: &[u8]) -> Result<Self, WireError> {
        let PageLayout { position, catalogue, pages } = PageLayout::decode(layout)?;
        let table = Table { position, catalogue, pages: Pages::new(pages), outgrown: false };
        Ok(Self { table, expected: ExpectedPages::Newer, received: 0, revision: position.revision })
    }

    /// The other worker has split pages since: expects the pages of its new layout from now on. Refused where the
    /// received pages end inside one of those; then this load must start again.
    pub fn replace_layout(&mut self, layout: &[u8]) -> Result<(), WireError> {
        let PageLayout { position, pages, .. } = PageLayout::decode(layout)?;
        let is_compatible = position.epoch == self.position().epoch && matches!(self.expected, ExpectedPages::Newer);
        let is_replaced = is_compatible && self.table.pages.replace_layout(self.received, &pages);
        if is_replaced { Ok(()) } else { Err(WireError::Order) }
    }

    /// The index of the next page; `None` when all have arrived.
    pub fn wanted(&self) -> Option<usize> {
        (self.received < self.page_count()).then_some(self.received)
    }

    /// The id of the next page.
    pub fn wanted_page(&self) -> Option<PageId> {
        self.table.pages.slots().get(self.received).map(|slot| slot.id)
    }

    /// How many pages the snapshot has.
    pub fn page_count(&self) -> usize {
        self.table.page_count()
    }

    /// The position of the snapshot, or of the last delta that was applied to it.
    pub fn position(&self) -> Position {
        self.table.position
    }

    /// The revision that the snapshot was taken at.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The table so far, which may lack pages.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// The end of the digests whose pages have arrived; `None` before the first page.
    pub(crate) fn end(&self) -> Option<u128> {
        self.table.pages.slots().get(self.received.checked_sub(1)?).map(|slot| slot.id.end())
    }

    /// Adds the next page. A refused page changes nothing, so it can be requested again.
    pub fn add(&mut self, page: Vec<u8>) -> Result<(), WireError> {
        let at = self.wanted().ok_or(WireError::Order)?;
        let page = Page::open(page, self.table.position.epoch, self.wanted_page().ok_or(WireError::Order)?)?;
        match &self.expected {
            ExpectedPages::Exactly(pages) if pages.get(at) != Some(&page.summary()) => return Err(WireError::Checksum),
            ExpectedPages::Exactly(_) | ExpectedPages::Newer => {}
        }
        self.table.pages.put(at, page);
        self.received = self.received.saturating_add(1);
        Ok(())
    }

    /// Applies a delta that starts at [`Self::position`], as [`Table::apply`] does.
    pub fn apply(&mut self, message: &[u8]) -> Result<(), WireError> {
        self.table.apply(message)
    }

    /// The table, if all pages have arrived: see [`Self::wanted`].
    pub fn finish(self) -> Option<Table> {
        self.wanted().is_none().then(|| self.into_table())
    }

    /// The table with the pages that have arrived.
    pub(crate) fn into_table(self) -> Table {
        self.table
    }
}
