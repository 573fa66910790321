//! A snapshot on its way in: what announced it, the pages that have come so far, and the deltas that lead on from it.

use super::{Pages, Table};
use crate::position::{Position, Revision};
use crate::wire::{Cut, Manifest, Page, PageId, PageSummary, WireError, cut_by};

/// A table that lacks pages.
pub struct Loading {
    table: Table,
    /// What was announced of the pages.
    announced: Announced,
    /// How many pages have come.
    taken: usize,
    /// The manifest's.
    revision: Revision,
}

/// Which pages are to come.
enum Announced {
    /// Exactly these, all at the manifest's position: the control plane's.
    Exactly(Vec<PageSummary>),
    /// Pages of the same epoch that have all changes up to a position and may have later ones, which the deltas from there on
    /// repeat: those that another worker hands on.
    Newer,
}

impl Loading {
    /// Starts with a manifest of the control plane.
    pub fn start(manifest: &[u8]) -> Result<Self, WireError> {
        let Manifest { position, catalogue, page_bits, pages } = Manifest::decode(manifest)?;
        let table = Table { position, catalogue, pages: Pages::cut(cut_by(page_bits)), outgrown: false };
        Ok(Self { table, announced: Announced::Exactly(pages), taken: 0, revision: position.revision })
    }

    /// Starts with what [`Table::cut`] made.
    pub fn start_from_worker(cut: &[u8]) -> Result<Self, WireError> {
        let Cut { position, catalogue, pages } = Cut::decode(cut)?;
        let table = Table { position, catalogue, pages: Pages::cut(pages), outgrown: false };
        Ok(Self { table, announced: Announced::Newer, taken: 0, revision: position.revision })
    }

    /// The other worker has cut pages in two since: what hasn't come yet comes as it is cut now. Refused where what has come ends
    /// within a page; then this one must start anew.
    pub fn cut_anew(&mut self, cut: &[u8]) -> Result<(), WireError> {
        let Cut { position, pages, .. } = Cut::decode(cut)?;
        let fits = position.epoch == self.position().epoch && matches!(self.announced, Announced::Newer);
        if fits && self.table.pages.cut_anew(self.taken, &pages) { Ok(()) } else { Err(WireError::Order) }
    }

    /// The place of the page that is wanted next; `None` when all are there.
    pub fn wanted(&self) -> Option<usize> {
        (self.taken < self.page_count()).then_some(self.taken)
    }

    /// The page that is wanted next.
    pub fn wanted_page(&self) -> Option<PageId> {
        self.table.pages.slots().get(self.taken).map(|slot| slot.id)
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

    /// What has come so far, which may lack pages.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Behind which digests nothing has come yet; `None` before the first page.
    pub(crate) fn end(&self) -> Option<u128> {
        self.table.pages.slots().get(self.taken.checked_sub(1)?).map(|slot| slot.id.end())
    }

    /// Takes the page that is wanted next. A refused page changes nothing, so that it can be asked for again.
    pub fn add(&mut self, page: Vec<u8>) -> Result<(), WireError> {
        let at = self.wanted().ok_or(WireError::Order)?;
        let page = Page::open(page, self.table.position.epoch, self.wanted_page().ok_or(WireError::Order)?)?;
        match &self.announced {
            Announced::Exactly(pages) if pages.get(at) != Some(&page.summary()) => return Err(WireError::Checksum),
            Announced::Exactly(_) | Announced::Newer => {}
        }
        self.table.pages.put(at, page);
        self.taken = self.taken.saturating_add(1);
        Ok(())
    }

    /// Applies a delta that leads on from [`Self::position`], as [`Table::apply`] does.
    pub fn apply(&mut self, message: &[u8]) -> Result<(), WireError> {
        self.table.apply(message)
    }

    /// The table, when all pages are there: see [`Self::wanted`].
    pub fn finish(self) -> Option<Table> {
        self.wanted().is_none().then(|| self.into_table())
    }

    /// The table with what has come of it.
    pub(crate) fn into_table(self) -> Table {
        self.table
    }
}
