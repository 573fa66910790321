//! A worker's live table, which a newer snapshot replaces page by page.
//!
//! Two whole tables are never in memory together. Each page of the snapshot frees the pages of the old table that it
//! covers; other digests are still looked up in the old table. Look-ups read the snapshot first only after it has
//! caught up with all changes, so that it can't revive a key that the table knows to be revoked.

use crate::digest::Digest;
use crate::position::{Position, Revision};
use crate::table::{Loading, Lookup, Table};
use crate::wire::{Catalogue, PageId, RecordView, WireError};

/// A table that can be replaced while it serves.
#[derive(Default)]
pub struct LiveTable {
    /// Oldest first. More than one only after a load was interrupted when some of its pages had arrived.
    tables: Vec<Table>,
    pending: Option<PendingSnapshot>,
}

/// A snapshot that is being loaded.
struct PendingSnapshot {
    loading: Loading,
    /// Whether it has all changes. Until then, look-ups don't use it.
    is_caught_up: bool,
}

/// The result of a look-up: a digest's record, and the catalogue that names the numbers in it.
#[derive(Clone, Copy)]
pub struct KeyLookup<'a> {
    /// Read in place, from a page or from a change beside it.
    pub record: RecordView<'a>,
    /// That of the record's own table: in another epoch, the numbers may have other meanings.
    pub catalogue: &'a Catalogue,
}

impl LiveTable {
    /// The record of `digest`. Its cost doesn't depend on the number of keys; it allocates nothing.
    pub fn find(&self, digest: &Digest) -> Option<KeyLookup<'_>> {
        let pending = self.pending.iter().filter(|pending| pending.is_caught_up).map(|pending| pending.loading.table());
        for table in pending.chain(self.tables.iter().rev()) {
            match table.lookup(digest) {
                Lookup::Found(record) => return Some(KeyLookup { record, catalogue: table.catalogue() }),
                Lookup::Absent => return None,
                Lookup::PageMissing => {}
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
        match (self.tables.as_slice(), &self.pending) {
            ([table], None) => Some(table),
            _ => None,
        }
    }

    /// The same as [`Self::table`], mutable.
    pub fn table_mut(&mut self) -> Option<&mut Table> {
        match (self.tables.as_mut_slice(), &self.pending) {
            ([table], None) => Some(table),
            _ => None,
        }
    }

    /// How many digests the last complete table has.
    pub fn len(&self) -> u64 {
        self.tables.first().map_or(0, Table::len)
    }

    /// True when the last complete table has no digests, and before there is one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position that the next delta must start from: that of the snapshot that is being loaded, else the table's.
    pub fn newest(&self) -> Option<Position> {
        self.pending.as_ref().map(|pending| pending.loading.position()).or_else(|| self.position())
    }

    /// The revision of the snapshot that is being loaded, which requests for its pages name.
    pub fn snapshot_revision(&self) -> Option<Revision> {
        self.pending.as_ref().map(|pending| pending.loading.revision())
    }

    /// The snapshot that is being loaded, with the pages so far, or else the table.
    fn newest_table(&self) -> Option<&Table> {
        let pending = self.pending.as_ref().map(|pending| pending.loading.table());
        pending.or_else(|| self.tables.last())
    }

    /// How many pages the snapshot that is being loaded has, or else the table.
    pub fn page_count(&self) -> usize {
        self.newest_table().map_or(0, Table::page_count)
    }

    /// The id of the page with this index, in the snapshot that is being loaded or else in the table.
    pub fn page_id(&self, index: usize) -> Option<PageId> {
        self.newest_table()?.page_ids().nth(index)
    }

    /// The message of a page, in the snapshot that is being loaded or else in the table.
    pub fn page(&self, id: PageId) -> Option<&[u8]> {
        self.newest_table()?.page(id)
    }

    /// Starts to load a snapshot beside the table. An earlier load ends here; its pages stay.
    pub fn begin(&mut self, loading: Loading) {
        self.abandon_pending();
        self.pending = Some(PendingSnapshot { loading, is_caught_up: false });
    }

    /// Stops loading the snapshot. The pages that have arrived stay, because they replaced others.
    pub fn abandon_pending(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        // Without an earlier table, its pages replaced nothing.
        if pending.loading.end().is_some() && !self.tables.is_empty() {
            self.tables.push(pending.loading.into_table());
        }
    }

    /// The index of the snapshot's next missing page; `None` until the snapshot has caught up.
    pub fn wanted(&self) -> Option<usize> {
        self.pending.as_ref().filter(|pending| pending.is_caught_up).and_then(|pending| pending.loading.wanted())
    }

    /// The id of that page.
    pub fn wanted_page(&self) -> Option<PageId> {
        self.pending.as_ref().filter(|pending| pending.is_caught_up).and_then(|pending| pending.loading.wanted_page())
    }

    /// See [`Loading::replace_layout`].
    pub fn replace_layout(&mut self, layout: &[u8]) -> Result<(), WireError> {
        self.pending.as_mut().ok_or(WireError::Order)?.loading.replace_layout(layout)
    }

    /// True while a snapshot is being loaded.
    pub fn is_loading(&self) -> bool {
        self.pending.is_some()
    }

    /// Adds the next page. A refused page changes nothing. Costs a pass over the page.
    pub fn add(&mut self, page: Vec<u8>) -> Result<(), WireError> {
        let pending = self.pending.as_mut().filter(|pending| pending.is_caught_up).ok_or(WireError::Order)?;
        pending.loading.add(page)?;
        if let Some(end) = pending.loading.end() {
            self.tables.iter_mut().for_each(|table| table.free_pages_below(end));
        }
        self.promote_if_complete();
        Ok(())
    }

    /// Applies a delta that starts at [`Self::newest`], as a whole or not at all.
    pub fn apply(&mut self, message: &[u8]) -> Result<(), WireError> {
        match (&mut self.pending, self.tables.as_mut_slice()) {
            (Some(pending), _) => pending.loading.apply(message),
            (None, [table]) => table.apply(message),
            (None, _) => Err(WireError::Position),
        }
    }

    /// Records that nothing is newer than [`Self::newest`]: from now on, look-ups read the snapshot first.
    pub fn mark_caught_up(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.is_caught_up = true;
        }
        self.promote_if_complete();
    }

    /// Replaces all earlier tables by the pending snapshot, if it has all its pages and all changes.
    fn promote_if_complete(&mut self) {
        let is_complete = |pending: &mut PendingSnapshot| pending.is_caught_up && pending.loading.wanted().is_none();
        if let Some(pending) = self.pending.take_if(is_complete) {
            self.tables = vec![pending.loading.into_table()];
        }
    }
}

impl From<Table> for LiveTable {
    fn from(table: Table) -> Self {
        Self { tables: vec![table], pending: None }
    }
}

#[cfg(test)]
mod tests;
