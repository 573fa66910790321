//! Builds a snapshot: the manifest and the pages of all records at one revision.

use zerocopy::little_endian::U32;

use super::header::{Kind, open};
use super::manifest::{Catalogue, IdTaken, Manifest, PageSummary};
use super::page::{PageWriter, page_of};
use super::page_id::{MAX_PAGE_BITS, pages_by_bits};
use super::record::{KeyRecord, RecordView};
use super::{EncodeError, PAGE_BYTES};
use crate::digest::Digest;
use crate::environment::Environment;
use crate::position::Position;
use crate::scope::Scope;

/// The records of a page, each counted with its own workspace, stay below this: a worker takes a page in one turn of
/// its event loop, and smaller pages repeat more workspaces.
const TARGET_BYTES: usize = PAGE_BYTES / 8 * 3;

/// A snapshot's messages, ready to be served.
pub struct Snapshot {
    /// The position in the header of each message.
    pub position: Position,
    /// A message for [`Manifest::decode`].
    pub manifest: Vec<u8>,
    /// The message of each page, by its number; two to the power of the manifest's `page_bits`.
    pub pages: Vec<Vec<u8>>,
}

/// Collects records in ascending order of their digests; uses about 100 bytes a record until [`Self::finish`].
pub struct SnapshotBuilder {
    position: Position,
    catalogue: Result<Catalogue, IdTaken>,
    /// Standalone records, one after the other.
    entries: Vec<u8>,
    /// Where each entry begins.
    starts: Vec<usize>,
    last: Option<Digest>,
}

impl SnapshotBuilder {
    /// A snapshot at `position`, with the names of the numbers in its records.
    pub fn new(position: Position, scopes: Vec<(u16, Scope)>, environments: Vec<(u8, Environment)>) -> Self {
        let catalogue = catalogue_of(scopes, environments);
        Self { position, catalogue, entries: Vec::new(), starts: Vec::new(), last: None }
    }

    /// Adds a record; its digest must be above all earlier ones.
    pub fn push(&mut self, record: &KeyRecord) -> Result<(), EncodeError> {
        if self.last.is_some_and(|last| last >= record.digest) {
            return Err(EncodeError::Order);
        }
        self.last = Some(record.digest);
        self.starts.push(self.entries.len());
        record.encode(&mut self.entries)
    }

    /// Divides the records into pages and writes the manifest.
    pub fn finish(self) -> Result<Snapshot, EncodeError> {
        self.finish_below(TARGET_BYTES)
    }

    /// Makes pages of at most `target` bytes, as far as `MAX_PAGE_BITS` allows.
    pub(crate) fn finish_below(self, target: usize) -> Result<Snapshot, EncodeError> {
        let page_bits = self.page_bits(target)?;
        let mut pages = Vec::with_capacity(1 << page_bits);
        let mut summaries = Vec::with_capacity(1 << page_bits);
        let mut records = self.records().peekable();
        for id in pages_by_bits(page_bits) {
            let mut writer = PageWriter::with_capacity(self.starts.len() >> page_bits);
            while let Some(record) = records.next_if(|record| id.holds(&record.digest())) {
                writer.push(record)?;
            }
            let count = writer.len();
            let page = writer.finish(self.position, id)?;
            // `finish` has sealed the page, so opening it succeeds.
            let (_, checksum, _) = open(&page, Kind::Page).map_err(|_| EncodeError::TooLarge)?;
            let length = u32::try_from(page.len()).map_err(|_| EncodeError::TooLarge)?;
            summaries.push(PageSummary {
                count: U32::new(count),
                length: U32::new(length),
                checksum: U32::new(checksum),
            });
            pages.push(page);
        }
        drop(records);
        let manifest = Manifest { position: self.position, catalogue: self.catalogue?, page_bits, pages: summaries };
        Ok(Snapshot { position: self.position, manifest: manifest.encode()?, pages })
    }

    /// The fewest leading bits with which no page exceeds the target.
    fn page_bits(&self, target: usize) -> Result<u8, EncodeError> {
        let enough_on_average = |bits: &u8| self.entries.len() >> bits <= target;
        for bits in (0..MAX_PAGE_BITS).filter(enough_on_average) {
            let mut sizes = vec![0_usize; 1 << bits];
            let ends = self.starts.iter().skip(1).copied().chain([self.entries.len()]);
            for ((record, start), end) in self.records().zip(&self.starts).zip(ends) {
                let size = sizes.get_mut(page_of(&record.digest(), bits)).ok_or(EncodeError::TooLarge)?;
                *size = size.saturating_add(end.saturating_sub(*start));
            }
            if sizes.iter().all(|size| *size <= target) {
                return Ok(bits);
            }
        }
        Ok(MAX_PAGE_BITS)
    }

    /// The entries, read in place.
    fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        self.starts.iter().filter_map(|start| RecordView::standalone(self.entries.get(*start..)?).ok())
    }
}

fn catalogue_of(scopes: Vec<(u16, Scope)>, environments: Vec<(u8, Environment)>) -> Result<Catalogue, IdTaken> {
    let mut catalogue = Catalogue::default();
    for (number, scope) in scopes {
        catalogue.define_scope(number, scope)?;
    }
    for (number, environment) in environments {
        catalogue.define_environment(number, environment)?;
    }
    Ok(catalogue)
}
