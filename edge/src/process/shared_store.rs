//! The shared store: a source's part of Envoy's shared data, its keys, and how values are written.
//!
//! Every value ends with the term of the leader that wrote it, which fences off a leader that was replaced while it was held
//! up: it finds a newer term, or a write between its read and its own, and writes nothing.

use policy::wire::{FORMAT, PageId};

use crate::host::Host;
use crate::source::SourceName;

/// Grows with each change of the layout: a new build of the filter leaves an old one's values alone.
const LAYOUT: u16 = 3;

/// Slots for deltas that a table has at least, each page of it brings, and it has at most.
pub const MIN_SLOTS: u64 = if cfg!(any(test, feature = "model")) { 16 } else { 1_024 };
const SLOTS_A_PAGE: u64 = if cfg!(any(test, feature = "model")) { 4 } else { 32 };
const MAX_SLOTS: u64 = 65_536;

/// How many deltas the ring buffer keeps for workers that load or lag, beside a table of so many pages; each has the slot of its
/// number modulo this. Publishing the pages again costs as much as the table is large, so it must be the rarer.
pub fn slots(pages: usize) -> u64 {
    SLOTS_A_PAGE.saturating_mul(pages as u64).clamp(MIN_SLOTS, MAX_SLOTS)
}

/// A worker with a newer term writes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deposed;

/// The keys of one source's values.
pub struct SharedStore {
    prefix: String,
}

/// A value and its stamp.
pub struct Stamped {
    /// The generation of a page or a cut, or the number of a delta.
    pub number: u64,
    pub bytes: Vec<u8>,
}

impl SharedStore {
    /// The keys of this source: no other source has them.
    pub fn of(source: &SourceName) -> Self {
        // In quotes, so that no two sources make the same text.
        Self { prefix: format!("latchkey/{FORMAT}.{LAYOUT}/{source:?}/") }
    }

    pub fn membership(&self) -> String {
        // The key's text is part of the layout.
        format!("{}roster", self.prefix)
    }

    pub fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    /// How the published pages are cut.
    pub fn cut(&self) -> String {
        format!("{}cut", self.prefix)
    }

    pub fn page(&self, id: PageId) -> String {
        format!("{}page/{}.{}", self.prefix, id.bits(), id.number())
    }

    /// The slot of delta `number`, in a ring of `slots`.
    pub fn delta(&self, number: u64, slots: u64) -> String {
        format!("{}delta/{}", self.prefix, number % slots.max(MIN_SLOTS))
    }

    /// A unique name for a worker's queue.
    pub fn queue(&self, worker: &str, root: u32) -> String {
        format!("{}queue/{worker}/{root}", self.prefix)
    }
}

/// Reads a value; `None` when there is none.
pub fn read(host: &dyn Host, name: &str) -> Option<Stamped> {
    let (mut bytes, _) = host.shared(name)?;
    let (_, number) = stamps(&bytes)?;
    bytes.truncate(bytes.len().saturating_sub(STAMPS));
    Some(Stamped { number, bytes })
}

/// Writes a value as the leader of `term`. Costs a copy of the value before.
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

/// Number and term, at the end of each value, so that removing them moves nothing.
const STAMPS: usize = 16;

fn stamps(bytes: &[u8]) -> Option<(u64, u64)> {
    let (rest, term) = bytes.split_last_chunk::<8>()?;
    let (_, number) = rest.split_last_chunk::<8>()?;
    Some((u64::from_le_bytes(*term), u64::from_le_bytes(*number)))
}
