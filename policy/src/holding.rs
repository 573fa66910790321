//! A worker's table, which a newer snapshot replaces page by page.
//!
//! Two whole tables are never in memory together. Each page of the snapshot frees the pages of the old table that it
//! covers; other digests are still looked up in the old table. Look-ups read the snapshot first only after it has
//! caught up with all changes, so that it can't revive a key that the table knows to be revoked.

use crate::digest::Digest;
use crate::position::{Position, Revision};
use crate::table::{Loading, Look, Table};
use crate::wire::{Catalogue, PageId, RecordView, WireError};

/// A table that can be replaced while it serves.
#[derive(Default)]
pub struct Holding {
    /// Oldest first. More than one only after a load was interrupted when some of its pages had arrived.
    tables: Vec<Table>,
    next: Option<Next>,
}

/// A snapshot that is being loaded.
struct Next {
    loading: Loading,
    /// Whether it has all changes. Until then, look-ups don't use it.
    is_caught_up: bool,
}

/// A digest's record, and what the numbers in it mean.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub record: RecordView<'a>,
    pub catalogue: &'a Catalogue,
}

impl Holding {
    /// The record of `digest`. Its cost doesn't depend on the number of keys; it allocates nothing.
    pub fn find(&self, digest: &Digest) -> Option<Known<'_>> {
        let next = self.next.iter().filter(|next| next.is_caught_up).map(|next| next.loading.table());
        for table in next.chain(self.tables.iter().rev()) {
            match table.look(digest) {
                Look::Known(record) => return Some(Known { record, catalogue: table.catalogue() }),
                Look::Unknown => return None,
                Look::NotHere => {}
            }
        }
        None
    }

    /// The position that all digests have reached. `None` until the first table is complete: nothing may be decided
    /// before.
    pub fn position(&self) -> Option<Position> {
        self.tables.first().map(Table::position)
    }

    /// The table, if it is the only one and no snapshot is being loaded.
    pub fn table(&self) -> Option<&Table> {
        match (self.tables.as_slice(), &self.next) {
            ([table], None) => Some(table),
            _ => None,
        }
    }

    /// The same as [`Self::table`], mutable.
    pub fn table_mut(&mut self) -> Option<&mut Table> {
        match (self.tables.as_mut_slice(), &self.next) {
            ([table], None) => Some(table),
            _ => None,
        }
    }

    /// How many digests the last complete table has.
    pub fn len(&self) -> u64 {
        self.tables.first().map_or(0, Table::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position that the next delta must start from: that of the snapshot that is being loaded, else the table's.
    pub fn newest(&self) -> Option<Position> {
        self.next.as_ref().map(|next| next.loading.position()).or_else(|| self.position())
    }

    /// The revision of the snapshot that is being loaded, which requests for its pages name.
    pub fn snapshot_revision(&self) -> Option<Revision> {
        self.next.as_ref().map(|next| next.loading.revision())
    }

    /// The snapshot that is being loaded, with the pages so far, or else the table.
    fn newest_table(&self) -> Option<&Table> {
        let next = self.next.as_ref().map(|next| next.loading.table());
        next.or_else(|| self.tables.last())
    }

    /// How many pages the snapshot that is being loaded has, or else the table.
    pub fn page_count(&self) -> usize {
        self.newest_table().map_or(0, Table::page_count)
    }

    /// The id of the page at a place, in the snapshot that is being loaded or else in the table.
    pub fn page_id(&self, place: usize) -> Option<PageId> {
        self.newest_table()?.page_ids().nth(place)
    }

    /// The message of a page, in the snapshot that is being loaded or else in the table.
    pub fn page(&self, id: PageId) -> Option<&[u8]> {
        self.newest_table()?.page(id)
    }

    /// Starts to load a snapshot beside the table. An earlier load ends here; its pages stay.
    pub fn begin(&mut self, loading: Loading) {
        self.give_up_next();
        self.next = Some(Next { loading, is_caught_up: false });
    }

    /// Stops loading the snapshot. The pages that have arrived stay, because they replaced others.
    pub fn give_up_next(&mut self) {
        let Some(next) = self.next.take() else { return };
        // Without an earlier table, its pages replaced nothing.
        if next.loading.end().is_some() && !self.tables.is_empty() {
            self.tables.push(next.loading.into_table());
        }
    }

    /// The place of the snapshot's next missing page; `None` until the snapshot has caught up.
    pub fn wanted(&self) -> Option<usize> {
        self.next.as_ref().filter(|next| next.is_caught_up).and_then(|next| next.loading.wanted())
    }

    /// The id of that page.
    pub fn wanted_page(&self) -> Option<PageId> {
        self.next.as_ref().filter(|next| next.is_caught_up).and_then(|next| next.loading.wanted_page())
    }

    /// See [`Loading::cut_anew`].
    pub fn cut_anew(&mut self, cut: &[u8]) -> Result<(), WireError> {
        self.next.as_mut().ok_or(WireError::Order)?.loading.cut_anew(cut)
    }

    /// True while a snapshot is on its way in.
    pub fn is_loading(&self) -> bool {
        self.next.is_some()
    }

    /// Adds the next page. A refused page changes nothing. Costs a pass over the page.
    pub fn add(&mut self, page: Vec<u8>) -> Result<(), WireError> {
        let next = self.next.as_mut().filter(|next| next.is_caught_up).ok_or(WireError::Order)?;
        next.loading.add(page)?;
        if let Some(end) = next.loading.end() {
            self.tables.iter_mut().for_each(|table| table.give_up_before(end));
        }
        self.settle();
        Ok(())
    }

    /// Applies a delta that starts at [`Self::newest`], as a whole or not at all.
    pub fn apply(&mut self, message: &[u8]) -> Result<(), WireError> {
        match (&mut self.next, self.tables.as_mut_slice()) {
            (Some(next), _) => next.loading.apply(message),
            (None, [table]) => table.apply(message),
            (None, _) => Err(WireError::Position),
        }
    }

    /// Nothing is newer than [`Self::newest`]: from now on, look-ups read the snapshot first.
    pub fn caught_up(&mut self) {
        if let Some(next) = &mut self.next {
            next.is_caught_up = true;
        }
        self.settle();
    }

    /// Replaces all earlier tables by a snapshot that has all its pages and all changes.
    fn settle(&mut self) {
        if let Some(next) = self.next.take_if(|next| next.is_caught_up && next.loading.wanted().is_none()) {
            self.tables = vec![next.loading.into_table()];
        }
    }
}

impl From<Table> for Holding {
    fn from(table: Table) -> Self {
        Self { tables: vec![table], next: None }
    }
}

#[cfg(test)]
mod tests;
