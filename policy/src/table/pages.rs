//! The pages of a table, each with its recent changes beside it.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::position::Position;
use crate::wire::{EncodeError, Page, PageId, PageWriter, RecordView};

/// A change to a digest since its page was made.
pub(super) enum Change {
    Removed,
    /// A standalone record.
    Upserted(Box<[u8]>),
}

impl Change {
    /// Its memory in bytes, accurate to about a tenth.
    fn bytes(&self) -> usize {
        let standalone = match self {
            Self::Removed => 0,
            Self::Upserted(standalone) => standalone.len(),
        };
        standalone.saturating_add(size_of::<(Digest, Self)>())
    }
}

/// The result of looking up a digest in a table.
pub(crate) enum Lookup<'a> {
    Found(RecordView<'a>),
    Absent,
    /// The digest's page is missing, and no delta contained the digest.
    PageMissing,
}

/// A page, and the changes since. They are in a tree, not in a hash map: imported digests can be chosen to share all
/// bits that a hash would use, and a tree never copies all its entries at once.
pub(super) struct Slot {
    pub(super) id: PageId,
    /// `None` if it is missing.
    pub(super) page: Option<Page>,
    pub(super) changes: BTreeMap<Digest, Change>,
    change_bytes: usize,
    /// How many digests this slot has, once its page has arrived.
    records: u64,
}

impl Slot {
    fn empty(id: PageId) -> Self {
        Self { id, page: None, changes: BTreeMap::new(), change_bytes: 0, records: 0 }
    }

    fn with(id: PageId, page: Page, changes: BTreeMap<Digest, Change>) -> Self {
        let change_bytes = changes.values().map(Change::bytes).sum();
        let mut slot = Self { id, page: None, changes, change_bytes, records: 0 };
        slot.put(page);
        slot
    }

    fn put(&mut self, page: Page) {
        let (mut more, mut fewer) = (0_u64, 0_u64);
        for (digest, change) in &self.changes {
            match (page.find(digest).is_some(), change) {
                (false, Change::Upserted(_)) => more = more.saturating_add(1),
                (true, Change::Removed) => fewer = fewer.saturating_add(1),
                (true, Change::Upserted(_)) | (false, Change::Removed) => {}
            }
        }
        self.records = (page.len() as u64).saturating_add(more).saturating_sub(fewer);
        self.page = Some(page);
    }

    pub(super) fn lookup(&self, digest: &Digest) -> Lookup<'_> {
        let found = match (self.changes.get(digest), &self.page) {
            (Some(Change::Upserted(standalone)), _) => RecordView::standalone(standalone).ok(),
            (Some(Change::Removed), _) => None,
            (None, Some(page)) => page.find(digest),
            (None, None) => return Lookup::PageMissing,
        };
        found.map_or(Lookup::Absent, Lookup::Found)
    }

    /// The bytes of the page and of its changes.
    pub(super) fn bytes(&self) -> usize {
        self.page.as_ref().map_or(0, Page::bytes).saturating_add(self.change_bytes)
    }

    /// The page with its changes merged in. Costs a pass over both.
    fn merged(&self, position: Position) -> Result<Page, EncodeError> {
        let page = self.page.as_ref().ok_or(EncodeError::Order)?;
        let mut changes = self.changes.iter().peekable();
        let mut writer = PageWriter::with_capacity(page.len());
        for record in page.records() {
            while let Some((_, change)) = changes.next_if(|(digest, _)| **digest < record.digest()) {
                push(&mut writer, change)?;
            }
            match changes.next_if(|(digest, _)| **digest == record.digest()) {
                Some((_, change)) => push(&mut writer, change)?,
                None => writer.push(record)?,
            }
        }
        for (_, change) in changes {
            push(&mut writer, change)?;
        }
        finish_page(writer, position, self.id)
    }

    /// A part of the page as it is, without its changes.
    fn part(&self, position: Position, part: PageId) -> Result<Page, EncodeError> {
        let page = self.page.as_ref().ok_or(EncodeError::Order)?;
        let mut writer = PageWriter::with_capacity(page.len() / 2);
        page.records().filter(|record| part.holds(&record.digest())).try_for_each(|record| writer.push(record))?;
        finish_page(writer, position, part)
    }
}

fn push(writer: &mut PageWriter, change: &Change) -> Result<(), EncodeError> {
    match change {
        Change::Removed => Ok(()),
        Change::Upserted(record) => writer.push(RecordView::standalone(record).map_err(|_| EncodeError::Order)?),
    }
}

fn finish_page(writer: PageWriter, position: Position, id: PageId) -> Result<Page, EncodeError> {
    Page::open(writer.finish(position, id)?, position.epoch, id).map_err(|_| EncodeError::Order)
}

/// All pages, in the order of their digests: each digest belongs to one.
pub(super) struct Pages {
    /// The first 64 bits of each page's first digest, by which pages are found.
    starts: Vec<u64>,
    slots: Vec<Slot>,
    /// How many digests have changed, and the bytes of those changes.
    changed: usize,
    change_bytes: usize,
    records: u64,
}

impl Pages {
    /// Slots for these pages, which are all still missing. They must cover all digests without a gap.
    pub(super) fn new(ids: impl IntoIterator<Item = PageId>) -> Self {
        let slots: Vec<_> = ids.into_iter().map(Slot::empty).collect();
        let starts = slots.iter().map(|slot| slot.id.first()).collect();
        Self { starts, slots, changed: 0, change_bytes: 0, records: 0 }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn changed(&self) -> usize {
        self.changed
    }

    pub(super) fn change_bytes(&self) -> usize {
        self.change_bytes
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// The index of a digest's slot. Most pages have the same size, so it is usually where the digest's bits point.
    fn slot_index(&self, prefix: u64) -> usize {
        let guess = ((u128::from(prefix) * self.starts.len() as u128) >> 64) as usize;
        let begins = |at: usize| self.starts.get(at).is_some_and(|start| *start <= prefix);
        if begins(guess) && !begins(guess.saturating_add(1)) {
            return guess;
        }
        self.starts.partition_point(|start| *start <= prefix).saturating_sub(1)
    }

    pub(super) fn slot(&self, digest: &Digest) -> Option<&Slot> {
        self.slots.get(self.slot_index(digest.prefix()))
    }

    /// The index of the page with this id, if there is one.
    pub(super) fn find(&self, id: PageId) -> Option<usize> {
        let at = self.slot_index(id.first());
        self.slots.get(at).is_some_and(|slot| slot.id == id).then_some(at)
    }

    /// Records a change to a digest.
    pub(super) fn change(&mut self, digest: Digest, change: Change) {
        let at = self.slot_index(digest.prefix());
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.page.is_some() {
            let was_present = matches!(slot.lookup(&digest), Lookup::Found(_));
            let records = match (was_present, &change) {
                (false, Change::Upserted(_)) => slot.records.saturating_add(1),
                (true, Change::Removed) => slot.records.saturating_sub(1),
                (true, Change::Upserted(_)) | (false, Change::Removed) => slot.records,
            };
            self.records = self.records.saturating_sub(slot.records).saturating_add(records);
            slot.records = records;
        }
        let more = change.bytes();
        let before = slot.changes.insert(digest, change);
        let fewer = before.as_ref().map_or(0, Change::bytes);
        slot.change_bytes = slot.change_bytes.saturating_add(more).saturating_sub(fewer);
        self.change_bytes = self.change_bytes.saturating_add(more).saturating_sub(fewer);
        self.changed = self.changed.saturating_add(usize::from(before.is_none()));
    }

    /// Puts a page in its place. Costs a look-up for each of its changes.
    pub(super) fn put(&mut self, at: usize, page: Page) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.put(page);
            self.records = self.records.saturating_add(slot.records);
        }
    }

    /// Frees the pages whose digests are all below `end`.
    pub(super) fn free_pages_below(&mut self, end: u128) {
        for slot in self.slots.iter_mut().take_while(|slot| slot.id.end() <= end) {
            slot.page = None;
        }
    }

    /// Merges a page's changes into it.
    pub(super) fn merge(&mut self, at: usize, position: Position) -> Result<(), EncodeError> {
        let Some(slot) = self.slots.get_mut(at) else { return Ok(()) };
        slot.page = Some(slot.merged(position)?);
        self.changed = self.changed.saturating_sub(slot.changes.len());
        self.change_bytes = self.change_bytes.saturating_sub(slot.change_bytes);
        (slot.changes, slot.change_bytes) = (BTreeMap::new(), 0);
        Ok(())
    }

    /// Splits a page in two, and its changes with it. Merges none of them yet.
    pub(super) fn split(&mut self, at: usize, position: Position) -> Result<[PageId; 2], EncodeError> {
        let slot = self.slots.get_mut(at).ok_or(EncodeError::Order)?;
        let [low, high] = slot.id.halves().ok_or(EncodeError::TooLarge)?;
        let (below, above) = (slot.part(position, low)?, slot.part(position, high)?);
        let mut first = Digest([0; 32]);
        if let Some(bytes) = first.0.first_chunk_mut() {
            *bytes = high.first().to_be_bytes();
        }
        let changes = slot.changes.split_off(&first);
        let before = std::mem::take(&mut slot.changes);
        *slot = Slot::with(low, below, before);
        let next = at.saturating_add(1);
        self.slots.insert(next, Slot::with(high, above, changes));
        self.starts.insert(next, high.first());
        Ok([low, high])
    }

    /// Replaces the pages from `at` on, which are all still missing, by pages of `ids`. False where none of those
    /// begins at the same digest.
    pub(super) fn replace_layout(&mut self, at: usize, ids: &[PageId]) -> bool {
        let Some(start) = self.starts.get(at) else { return false };
        let Some(from) = ids.iter().position(|id| id.first() == *start) else { return false };
        let before = self.slots.split_off(at);
        self.slots.extend(ids.iter().skip(from).copied().map(Slot::empty));
        self.starts = self.slots.iter().map(|slot| slot.id.first()).collect();
        for Slot { changes, change_bytes, .. } in before {
            self.changed = self.changed.saturating_sub(changes.len());
            self.change_bytes = self.change_bytes.saturating_sub(change_bytes);
            changes.into_iter().for_each(|(digest, change)| self.change(digest, change));
        }
        true
    }
}
