//! The names under which a source's data stand in Envoy's shared data, and how they are written.
//!
//! Every value ends with the term of the leader that wrote it. A leader that was replaced while it slept finds a
//! newer term, or another write between its look and its own, and writes nothing.

use policy::wire::{FORMAT, PageId};

use crate::host::Host;
use crate::source::SourceName;

/// Grows with each change of what stands in shared data: a new build of the filter leaves the old one's alone.
const LAYOUT: u16 = 3;

/// Slots for deltas that a table has at least, each page of it brings, and it has at most.
pub const MIN_SLOTS: u64 = if cfg!(any(test, feature = "model")) { 16 } else { 1_024 };
const SLOTS_A_PAGE: u64 = if cfg!(any(test, feature = "model")) { 4 } else { 32 };
const MAX_SLOTS: u64 = 65_536;

/// How many deltas are kept for workers that load or lag, beside a table of so many pages; each has the slot of its number
/// modulo this. Publishing the pages anew costs as much as the table is large, so it must come the more seldom.
pub fn slots(pages: usize) -> u64 {
    SLOTS_A_PAGE.saturating_mul(pages as u64).clamp(MIN_SLOTS, MAX_SLOTS)
}

/// Somebody with a newer term writes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deposed;

/// A source's part of the shared data.
pub struct Shelf {
    prefix: String,
}

/// A value, and what it says of itself.
pub struct Stamped {
    /// The generation of a page or a cut, the number of a delta.
    pub number: u64,
    pub bytes: Vec<u8>,
}

impl Shelf {
    /// The part of this source: no other has it.
    pub fn of(source: &SourceName) -> Self {
        // In quotes, so that no two sources make the same text.
        Self { prefix: format!("latchkey/{FORMAT}.{LAYOUT}/{source:?}/") }
    }

    pub fn roster(&self) -> String {
        format!("{}roster", self.prefix)
    }

    pub fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    /// How the pages are cut that stand there.
    pub fn cut(&self) -> String {
        format!("{}cut", self.prefix)
    }

    pub fn page(&self, id: PageId) -> String {
        format!("{}page/{}.{}", self.prefix, id.bits(), id.number())
    }

    /// The slot of delta `number`, of so many.
    pub fn delta(&self, number: u64, slots: u64) -> String {
        format!("{}delta/{}", self.prefix, number % slots.max(MIN_SLOTS))
    }

    /// A name for a worker's queue that no other has.
    pub fn queue(&self, worker: &str, root: u32) -> String {
        format!("{}queue/{worker}/{root}", self.prefix)
    }
}

/// Reads a value; `None` when there is none, or it was freed.
pub fn read(host: &dyn Host, name: &str) -> Option<Stamped> {
    let (mut bytes, _) = host.shared(name)?;
    let (_, number) = stamps(&bytes)?;
    bytes.truncate(bytes.len().saturating_sub(STAMPS));
    Some(Stamped { number, bytes })
}

/// Writes a value as the leader of `term`. Costs a copy of what stood there.
pub fn write(host: &dyn Host, name: &str, term: u64, number: u64, bytes: &[u8]) -> Result<(), Deposed> {
    let (before, cas) = host.shared(name).map_or((None, None), |(bytes, cas)| (stamps(&bytes), Some(cas)));
    if before.is_some_and(|(theirs, _)| theirs > term) {
        return Err(Deposed);
    }
    let mut value = Vec::with_capacity(STAMPS.saturating_add(bytes.len()));
    value.extend_from_slice(bytes);
    value.extend_from_slice(&number.to_le_bytes());
    value.extend_from_slice(&term.to_le_bytes());
    if host.set_shared(name, &value, cas) { Ok(()) } else { Err(Deposed) }
}

/// Number and term behind each value: at its end, so that taking them off moves nothing.
const STAMPS: usize = 16;

fn stamps(bytes: &[u8]) -> Option<(u64, u64)> {
    let (rest, term) = bytes.split_last_chunk::<8>()?;
    let (_, number) = rest.split_last_chunk::<8>()?;
    Some((u64::from_le_bytes(*term), u64::from_le_bytes(*number)))
}
