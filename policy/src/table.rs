//! What an edge holds: the received pages, read in place, and a small overlay of deltas.

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use crate::digest::Digest;
use crate::position::{Position, Revision};
use crate::wire::{
    Catalogue, Delta, EncodeError, MAX_PAGE_BITS, Manifest, OpView, PAGE_BYTES, Page, PageSummary, PageWriter,
    RecordView, WireError, page_of,
};

/// Overlay entries that take next to no memory, so that nothing is rebased.
const OVERLAY_ENTRIES: usize = if cfg!(test) { 16 } else { 1024 };

/// As many of a table's records may stand in the overlay as well: a pass over a page then takes in many changes at once, and
/// what a change costs doesn't depend on how many keys there are.
const OVERLAY_SHARE: u64 = 64;

/// All records at one position. Costs the pages' bytes, and about 150 bytes for each digest that changed lately: see
/// [`Self::rebase_a_page`].
///
/// While a snapshot is on its way in, a table may have given up pages, or not have all of them yet: see
/// [`Holding`](crate::Holding).
pub struct Table {
    position: Position,
    catalogue: Catalogue,
    page_bits: u8,
    /// By their number; `None` for one that isn't here.
    pages: Vec<Option<Page>>,
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
        match self.look(digest) {
            Look::Known(record) => Some(record),
            Look::Unknown | Look::NotHere => None,
        }
    }

    /// What this table has to say of `digest`. Costs as much as [`Self::find`].
    pub(crate) fn look(&self, digest: &Digest) -> Look<'_> {
        let found = match self.overlay.get(digest) {
            Some(Change::Upserted(alone)) => RecordView::alone(alone).ok(),
            Some(Change::Removed) => None,
            None => match self.pages.get(page_of(digest, self.page_bits)) {
                Some(Some(page)) => page.find(digest),
                Some(None) | None => return Look::NotHere,
            },
        };
        found.map_or(Look::Unknown, Look::Known)
    }

    /// Frees the pages whose digests all stand in the first `pages` of a table that is cut by `bits` bits.
    pub(crate) fn give_up_first(&mut self, pages: usize, bits: u8) {
        let end = |number: usize, bits: u8| (number as u64) << MAX_PAGE_BITS.saturating_sub(bits);
        let covered = end(pages, bits);
        for (number, page) in self.pages.iter_mut().enumerate() {
            if end(number.saturating_add(1), self.page_bits) > covered {
                break;
            }
            *page = None;
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
        let pages: usize = self.pages.iter().flatten().map(Page::bytes).sum();
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

    /// Moves the changes of one page from the overlay into the page, when the overlay has grown past 1,024 digests and a 64th of
    /// the table; to be called now and then. Costs one pass over that page and over the overlay. Answers whether there may be more to do.
    pub fn rebase_a_page(&mut self) -> bool {
        if self.outgrown || self.overlay.len() <= self.overlay_limit() {
            return false;
        }
        let Some(number) = self.overlay.keys().next().map(|digest| page_of(digest, self.page_bits)) else {
            return false;
        };
        self.rebase(number)
    }

    /// Overlay entries up to which nothing is rebased.
    fn overlay_limit(&self) -> usize {
        OVERLAY_ENTRIES.max(usize::try_from(self.records / OVERLAY_SHARE).unwrap_or(usize::MAX))
    }

    /// Moves the changes of page `number` from the overlay into it. Answers whether that could be done; if not, the page has
    /// outgrown its size: see [`Self::is_outgrown`].
    pub fn rebase(&mut self, number: usize) -> bool {
        if !self.overlay.keys().any(|digest| page_of(digest, self.page_bits) == number) {
            return true;
        }
        match self.rebased(number) {
            Ok(page) => {
                if let Some(slot) = self.pages.get_mut(number) {
                    *slot = Some(page);
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

    /// How many digests the overlay has.
    pub fn overlay_len(&self) -> usize {
        self.overlay.len()
    }

    /// The numbers of the pages that changes in the overlay belong to. Costs a pass over the overlay.
    pub fn changed_pages(&self) -> BTreeSet<usize> {
        self.overlay.keys().map(|digest| page_of(digest, self.page_bits)).collect()
    }

    /// How many pages the table is cut into.
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The message of page `number` as it is, without what the overlay says.
    pub fn page(&self, number: usize) -> Option<&[u8]> {
        self.pages.get(number)?.as_ref().map(Page::message)
    }

    /// A manifest for whoever takes over this table's pages as they are: at `position`, from which deltas lead on.
    pub fn manifest(&self, position: Position) -> Result<Vec<u8>, EncodeError> {
        let summary = |page: &Option<Page>| page.as_ref().map(Page::summary).ok_or(EncodeError::Order);
        let pages = self.pages.iter().map(summary).collect::<Result<_, _>>()?;
        Manifest { position, catalogue: self.catalogue.clone(), page_bits: self.page_bits, pages }.encode()
    }

    /// True when pages have grown past their size, so that a new snapshot, cut into more of them, serves better.
    pub fn is_outgrown(&self) -> bool {
        self.outgrown
    }

    /// The page with its part of the overlay merged in.
    fn rebased(&self, number: usize) -> Result<Page, EncodeError> {
        let page = self.pages.get(number).and_then(Option::as_ref).ok_or(EncodeError::Order)?;
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
        Page::open(bytes, self.position.epoch, number, self.page_bits).map_err(|_| EncodeError::Order)
    }
}

fn push_change(writer: &mut PageWriter, change: &Change) -> Result<(), EncodeError> {
    match change {
        Change::Removed => Ok(()),
        Change::Upserted(alone) => writer.push(RecordView::alone(alone).map_err(|_| EncodeError::Order)?),
    }
}

/// What a table has to say of a digest.
pub(crate) enum Look<'a> {
    Known(RecordView<'a>),
    Unknown,
    /// The digest's page isn't here, and no delta named it.
    NotHere,
}

/// A snapshot on its way in: the manifest, the pages that have come so far, and the deltas that lead on from it.
pub struct Loading {
    table: Table,
    /// What the manifest announced of the pages.
    announced: Announced,
    /// How many pages have come.
    taken: usize,
    /// The manifest's.
    revision: Revision,
}

/// Which pages a manifest is for.
enum Announced {
    /// Exactly these, all at the manifest's position: the control plane's.
    Exactly(Vec<PageSummary>),
    /// Pages of the same epoch that have all changes up to the manifest's position and may have later ones, which the deltas
    /// from there on repeat: those that another worker hands on.
    Newer,
}

impl Loading {
    /// Starts with a manifest of the control plane.
    pub fn start(manifest: &[u8]) -> Result<Self, WireError> {
        let Manifest { position, catalogue, page_bits, pages } = Manifest::decode(manifest)?;
        Ok(Self::of(position, catalogue, page_bits, Announced::Exactly(pages)))
    }

    /// Starts with a manifest that [`Table::manifest`] made.
    pub fn start_from_worker(manifest: &[u8]) -> Result<Self, WireError> {
        let Manifest { position, catalogue, page_bits, .. } = Manifest::decode(manifest)?;
        Ok(Self::of(position, catalogue, page_bits, Announced::Newer))
    }

    fn of(position: Position, catalogue: Catalogue, page_bits: u8, announced: Announced) -> Self {
        let pages = std::iter::repeat_with(|| None).take(1 << page_bits).collect();
        let overlay = HashMap::default();
        let table = Table { position, catalogue, page_bits, pages, overlay, records: 0, outgrown: false };
        Self { table, announced, taken: 0, revision: position.revision }
    }

    /// The number of the page that is wanted next; `None` when all are there.
    pub fn wanted(&self) -> Option<usize> {
        (self.taken < self.page_count()).then_some(self.taken)
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

    /// How the pages are cut, and how many have come.
    pub(crate) fn progress(&self) -> (usize, u8) {
        (self.taken, self.table.page_bits)
    }

    /// Takes the page that is wanted next. A refused page changes nothing, so that it can be asked for again.
    pub fn add(&mut self, page: Vec<u8>) -> Result<(), WireError> {
        let number = self.wanted().ok_or(WireError::Order)?;
        let page = Page::open(page, self.table.position.epoch, number, self.table.page_bits)?;
        match &self.announced {
            Announced::Exactly(pages) if pages.get(number) != Some(&page.summary()) => return Err(WireError::Checksum),
            Announced::Exactly(_) | Announced::Newer => {}
        }
        *self.table.pages.get_mut(number).ok_or(WireError::Order)? = Some(page);
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

    /// The table with what has come of it, counted. Costs a pass over the overlay.
    pub(crate) fn into_table(mut self) -> Table {
        let in_pages: u64 = self.table.pages.iter().flatten().map(|page| page.len() as u64).sum();
        let (mut more, mut fewer) = (0_u64, 0_u64);
        for (digest, change) in &self.table.overlay {
            let page = self.table.pages.get(page_of(digest, self.table.page_bits)).and_then(Option::as_ref);
            let was_there = page.is_some_and(|page| page.find(digest).is_some());
            match change {
                Change::Upserted(_) if !was_there => more = more.saturating_add(1),
                Change::Removed if was_there => fewer = fewer.saturating_add(1),
                Change::Upserted(_) | Change::Removed => {}
            }
        }
        self.table.records = in_pages.saturating_add(more).saturating_sub(fewer);
        self.table
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
