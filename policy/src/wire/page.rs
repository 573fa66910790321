//! A page: records in ascending order of their digests, all with the same first bits, and their heap.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::header::{Kind, Message, open};
use super::manifest::PageSummary;
use super::page_id::PageId;
use super::reader::Reader;
use super::record::{Fixed, RecordView};
use super::{EncodeError, WireError};
use crate::digest::Digest;
use crate::id::{Epoch, WorkspaceId};
use crate::position::Position;

/// Interpolation steps of a look-up before it bisects the rest. Uniform digests rarely need that many.
const INTERPOLATION_STEPS: usize = 6;

/// The number of the page that holds `digest` when the first `bits` bits select the page.
pub fn page_of(digest: &Digest, bits: u8) -> usize {
    let number = digest.prefix().checked_shr(64_u32.saturating_sub(u32::from(bits))).unwrap_or(0);
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A page that was received as a whole and checked record by record. It is read in place.
pub struct Page {
    bytes: Box<[u8]>,
    /// The range of the records in `bytes`; the heap follows them.
    records: Range<usize>,
    count: usize,
    bits: u8,
    checksum: u32,
}

impl Page {
    /// Checks a page that was received. Costs one pass over its bytes. Only the epoch of its position is checked: the
    /// caller knows by the page's summary which revisions fit.
    pub(crate) fn open(bytes: Vec<u8>, epoch: Epoch, id: PageId) -> Result<Self, WireError> {
        let (position, checksum, mut reader) = open(&bytes, Kind::Page)?;
        if position.epoch != epoch {
            return Err(WireError::Position);
        }
        if reader.read::<U32>()?.get() != id.number() {
            return Err(WireError::Order);
        }
        let count = usize::try_from(reader.read::<U32>()?.get()).map_err(|_| WireError::Length)?;
        let start = bytes.len().saturating_sub(reader.rest().len());
        let fixed = reader.read_many::<Fixed>(count)?;
        let heap = reader.rest();
        let mut before = None;
        for record in fixed {
            let digest = Digest(record.digest);
            if !id.holds(&digest) || before.is_some_and(|before| before >= digest) {
                return Err(WireError::Order);
            }
            before = Some(digest);
            RecordView::new(record, heap).check()?;
        }
        let records = start..start.saturating_add(fixed.as_bytes().len());
        Ok(Self { bytes: bytes.into_boxed_slice(), records, count, bits: id.bits(), checksum })
    }

    /// The record of `digest`. Reads a few records, whatever the page's size.
    pub fn find(&self, digest: &Digest) -> Option<RecordView<'_>> {
        let (fixed, heap) = self.parts();
        let record = fixed.get(self.record_index(fixed, digest)?)?;
        Some(RecordView::new(record, heap))
    }

    /// The index of the record of `digest`. Digests are uniform, so a digest's index is about its share of the page's
    /// range, and two records are about as far apart as their digests. After some steps of this interpolation, the rest
    /// is bisected.
    fn record_index(&self, fixed: &[Fixed], digest: &Digest) -> Option<usize> {
        let prefix = digest.prefix();
        let within = prefix.checked_shl(u32::from(self.bits)).unwrap_or(0);
        let range = u64::MAX.checked_shr(u32::from(self.bits)).unwrap_or(u64::MAX);
        let density = self.count as f64 / range as f64;
        let (mut low, mut high) = (0, fixed.len());
        let mut guess = (within as f64 / u64::MAX as f64 * self.count as f64) as usize;
        for _ in 0..INTERPOLATION_STEPS {
            let at = guess.clamp(low, high.checked_sub(1)?.max(low));
            let record = fixed.get(low..high)?.get(at.checked_sub(low)?)?;
            let apart = Digest(record.digest).prefix().abs_diff(prefix);
            let step = ((apart as f64 * density) as usize).max(1);
            match compare(record, digest) {
                Ordering::Equal => return Some(at),
                Ordering::Less => (low, guess) = (at.saturating_add(1), at.saturating_add(step)),
                Ordering::Greater => (high, guess) = (at, at.saturating_sub(step)),
            }
        }
        let left = fixed.get(low..high)?;
        low.checked_add(left.binary_search_by(|record| compare(record, digest)).ok()?)
    }

    /// All records, in ascending order of their digests.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        let (fixed, heap) = self.parts();
        fixed.iter().map(move |record| RecordView::new(record, heap))
    }

    /// How many records the page has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no digest has the page's first bits. A snapshot has such pages too.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The memory that the page uses.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The page as it was received.
    pub(crate) fn message(&self) -> &[u8] {
        &self.bytes
    }

    /// The manifest's entry for this page and no other: the checksum also covers its position and number.
    pub(crate) fn summary(&self) -> PageSummary {
        // Both fit: a message has at most `MAX_MESSAGE_BYTES`.
        let number = |value: usize| U32::new(u32::try_from(value).unwrap_or(u32::MAX));
        PageSummary { count: number(self.count), length: number(self.bytes.len()), checksum: U32::new(self.checksum) }
    }

    fn parts(&self) -> (&[Fixed], &[u8]) {
        let records = self.bytes.get(self.records.start..).unwrap_or_default();
        let mut reader = Reader::new(records);
        let fixed = reader.read_many::<Fixed>(self.count).unwrap_or_default();
        (fixed, reader.rest())
    }
}

fn compare(record: &Fixed, digest: &Digest) -> Ordering {
    Digest(record.digest).prefix().cmp(&digest.prefix()).then_with(|| record.digest.cmp(&digest.0))
}

/// Collects the records of one page. A workspace that many keys share is in the heap once.
pub(crate) struct PageWriter {
    records: Vec<u8>,
    heap: Vec<u8>,
    count: u32,
    workspaces: BTreeMap<WorkspaceId, u32>,
}

impl PageWriter {
    pub(crate) fn with_capacity(records: usize) -> Self {
        Self {
            records: Vec::with_capacity(records.saturating_mul(size_of::<Fixed>())),
            heap: Vec::new(),
            count: 0,
            workspaces: BTreeMap::new(),
        }
    }

    /// Appends a record; the caller keeps the digests in ascending order.
    pub(crate) fn push(&mut self, record: RecordView<'_>) -> Result<(), EncodeError> {
        let (workspace, _) = record.workspace_parts().map_err(|_| EncodeError::SlugTooLong)?;
        let offset = self.workspaces.get(&workspace).copied();
        let fixed = record.copy_to_heap(&mut self.heap, offset)?;
        self.workspaces.entry(workspace).or_insert_with(|| RecordView::workspace_offset(&fixed));
        self.records.extend_from_slice(fixed.as_bytes());
        self.count = self.count.checked_add(1).ok_or(EncodeError::TooLarge)?;
        Ok(())
    }

    /// The page's message.
    pub(crate) fn finish(self, position: Position, id: PageId) -> Result<Vec<u8>, EncodeError> {
        let mut message = Message::new(Kind::Page, position, 8 + self.records.len() + self.heap.len());
        message.bytes.extend_from_slice(&id.number().to_le_bytes());
        message.bytes.extend_from_slice(&self.count.to_le_bytes());
        message.bytes.extend_from_slice(&self.records);
        message.bytes.extend_from_slice(&self.heap);
        message.seal()
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }
}
