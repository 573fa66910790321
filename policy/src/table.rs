//! What an edge holds: the received pages, read in place, and a small overlay of deltas.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use crate::digest::Digest;
use crate::position::Position;
use crate::wire::{
    Catalogue, Delta, EncodeError, Manifest, OpView, PAGE_BYTES, Page, PageWriter, RecordView, WireError, page_of,
};

/// Overlay entries up to which a look-up there costs next to nothing, so that nothing is rebased.
const OVERLAY_ENTRIES: usize = if cfg!(test) { 16 } else { 1024 };

/// All records at one position. Costs the pages' bytes, and about 150 bytes for each digest that changed lately.
pub struct Table {
    position: Position,
    catalogue: Catalogue,
    page_bits: u8,
    pages: Vec<Page>,
    overlay: HashMap<Digest, Change, BuildIdentityHasher>,
    records: u64,
    /// A page that deltas would grow past [`PAGE_BYTES`]: time for a snapshot with more pages.
    outgrown: bool,
}

/// What became of a digest since its page was received.
enum Change {
    Removed,
    /// A record that stands alone.
    Upserted(Box<[u8]>),
}

impl Table {
    /// The record of `digest`. Its cost doesn't depend on the number of keys; it allocates nothing.
    pub fn find(&self, digest: &Digest) -> Option<RecordView<'_>> {
        match self.overlay.get(digest) {
            Some(Change::Upserted(alone)) => RecordView::alone(alone).ok(),
            Some(Change::Removed) => None,
            None => self.pages.get(page_of(digest, self.page_bits))?.find(digest),
        }
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
        self.records
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The bytes that the table takes, to about a tenth.
    pub fn bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(Page::bytes).sum();
        let slot = size_of::<(Digest, Change)>().saturating_add(1);
        let alone = self.overlay.values().map(|change| match change {
            Change::Removed => 0,
            Change::Upserted(alone) => alone.len(),
        });
        pages.saturating_add(self.overlay.capacity().saturating_mul(slot)).saturating_add(alone.sum())
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
        changes.into_iter().for_each(|(digest, change)| self.change(digest, change));
        self.catalogue = catalogue.unwrap_or_else(|| std::mem::take(&mut self.catalogue));
        self.position = to;
        Ok(())
    }

    fn change(&mut self, digest: Digest, change: Change) {
        let was_there = self.find(&digest).is_some();
        let is_there = match change {
            Change::Removed => false,
            Change::Upserted(_) => true,
        };
        match (was_there, is_there) {
            (false, true) => self.records = self.records.saturating_add(1),
            (true, false) => self.records = self.records.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
        self.overlay.insert(digest, change);
    }

    /// Moves the changes of one page from the overlay into the page, when the overlay has grown; to be called now and
    /// then. Costs one pass over that page and over the overlay. Answers whether there may be more to do.
    pub fn rebase_a_page(&mut self) -> bool {
        if self.outgrown || self.overlay.len() <= OVERLAY_ENTRIES {
            return false;
        }
        let Some(number) = self.overlay.keys().next().map(|digest| page_of(digest, self.page_bits)) else {
            return false;
        };
        match self.rebased(number) {
            Ok(page) => {
                if let Some(slot) = self.pages.get_mut(number) {
                    *slot = page;
                    let bits = self.page_bits;
                    self.overlay.retain(|digest, _| page_of(digest, bits) != number);
                }
                true
            }
            Err(_) => {
                self.outgrown = true;
                false
            }
        }
    }

    /// True when pages have grown past their size, so that a new snapshot, cut into more of them, serves better.
    pub fn is_outgrown(&self) -> bool {
        self.outgrown
    }

    /// The page with its part of the overlay merged in.
    fn rebased(&self, number: usize) -> Result<Page, EncodeError> {
        let page = self.pages.get(number).ok_or(EncodeError::Order)?;
        let mut changes: Vec<_> =
            self.overlay.iter().filter(|(digest, _)| page_of(digest, self.page_bits) == number).collect();
        changes.sort_unstable_by_key(|(digest, _)| **digest);
        let mut changes = changes.into_iter().peekable();
        let mut writer = PageWriter::with_capacity(page.len());
        for record in page.records() {
            while let Some((_, change)) = changes.next_if(|(digest, _)| **digest < record.digest()) {
                push_change(&mut writer, change)?;
            }
            match changes.next_if(|(digest, _)| **digest == record.digest()) {
                Some((_, change)) => push_change(&mut writer, change)?,
                None => writer.push(record)?,
            }
        }
        for (_, change) in changes {
            push_change(&mut writer, change)?;
        }
        let bytes = writer.finish(self.position, number)?;
        if bytes.len() > PAGE_BYTES {
            return Err(EncodeError::TooLarge);
        }
        let opened = Page::open(bytes, self.position, number, self.page_bits);
        opened.map(|(page, _)| page).map_err(|_| EncodeError::Order)
    }
}

fn push_change(writer: &mut PageWriter, change: &Change) -> Result<(), EncodeError> {
    match change {
        Change::Removed => Ok(()),
        Change::Upserted(alone) => writer.push(RecordView::alone(alone).map_err(|_| EncodeError::Order)?),
    }
}

/// A snapshot on its way in: the manifest, and the pages that have come so far.
pub struct Loading {
    manifest: Manifest,
    pages: Vec<Page>,
}

impl Loading {
    /// Starts with a received manifest.
    pub fn start(manifest: &[u8]) -> Result<Self, WireError> {
        Manifest::decode(manifest).map(|manifest| Self { manifest, pages: Vec::new() })
    }

    /// The number of the page that is wanted next; `None` when all are there.
    pub fn wanted(&self) -> Option<usize> {
        let next = self.pages.len();
        (next < self.manifest.pages.len()).then_some(next)
    }

    /// How many pages the snapshot has.
    pub fn page_count(&self) -> usize {
        self.manifest.pages.len()
    }

    /// The position that the snapshot was taken at.
    pub fn position(&self) -> Position {
        self.manifest.position
    }

    /// Takes the page that is wanted next. A refused page changes nothing, so that it can be asked for again.
    pub fn add(&mut self, page: Vec<u8>) -> Result<(), WireError> {
        let number = self.pages.len();
        let summary = self.manifest.pages.get(number).ok_or(WireError::Order)?;
        let length = page.len();
        let (page, checksum) = Page::open(page, self.manifest.position, number, self.manifest.page_bits)?;
        let announced = usize::try_from(summary.length.get()) == Ok(length)
            && usize::try_from(summary.count.get()) == Ok(page.len())
            && summary.checksum.get() == checksum
            && page.number() == number;
        if !announced {
            return Err(WireError::Checksum);
        }
        self.pages.push(page);
        Ok(())
    }

    /// The table, when all pages are there: see [`Self::wanted`].
    pub fn finish(self) -> Option<Table> {
        if self.wanted().is_some() {
            return None;
        }
        let records = self.pages.iter().map(|page| page.len() as u64).sum();
        let Manifest { position, catalogue, page_bits, pages: _ } = self.manifest;
        let overlay = HashMap::default();
        Some(Table { position, catalogue, page_bits, pages: self.pages, overlay, records, outgrown: false })
    }
}

/// Takes a digest's own bits for its hash: they are uniform already.
#[derive(Default)]
pub struct IdentityHasher(u64);

/// Makes [`IdentityHasher`]s.
pub type BuildIdentityHasher = BuildHasherDefault<IdentityHasher>;

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests;
