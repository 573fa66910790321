//! The shared store: a source's part of Envoy's shared data, its keys, and how values are written.
//!
//! Every value ends with a fencing token, the term of the leader that wrote it. A leader that was replaced while it was
//! held up finds a newer term, or its compare-and-swap fails, and it writes nothing.

use policy::wire::{FORMAT, PageId};

use crate::host::Host;
use crate::source_name::SourceName;

/// Grows with each change of the format, so that a new build of the filter ignores an old one's values.
const STORE_FORMAT: u16 = 3;

/// Slots for deltas: the minimum for a table, how many each page adds, and the maximum.
pub const MIN_SLOTS: u64 = if cfg!(any(test, feature = "model")) { 16 } else { 1_024 };
const SLOTS_PER_PAGE: u64 = if cfg!(any(test, feature = "model")) { 4 } else { 32 };
const MAX_SLOTS: u64 = 65_536;

/// The size of the ring buffer of deltas, for workers that load or lag, beside a table with this many pages. A delta's
/// slot is its number modulo this size. Publishing the pages again costs in proportion to the table, so a larger table
/// must do it less often.
pub fn slots(pages: usize) -> u64 {
    SLOTS_PER_PAGE.saturating_mul(pages as u64).clamp(MIN_SLOTS, MAX_SLOTS)
}

/// This worker is no longer the leader: another one writes with a newer term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderDeposed;

/// The keys of one source's values.
pub struct SharedStore {
    prefix: String,
}

/// A value, and the number in its stamp.
pub struct StampedValue {
    /// The generation of a page or a layout, or the number of a delta.
    pub number: u64,
    /// The value without its stamp; empty if the leader has freed it.
    pub bytes: Vec<u8>,
}

impl SharedStore {
    /// The keys of this source: no other source has them.
    pub fn of(source: &SourceName) -> Self {
        // Quoted, so that no two sources have the same prefix.
        Self { prefix: format!("latchkey/{FORMAT}.{STORE_FORMAT}/{source:?}/") }
    }

    /// The [`Membership`](super::membership::Membership), as JSON without a stamp: all workers write it.
    pub fn membership(&self) -> String {
        // The texts of the keys are part of the format.
        format!("{}roster", self.prefix)
    }

    /// The [`Head`](super::head::Head), as JSON that contains its term in place of a stamp.
    pub fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    /// The layout of the published pages.
    pub fn layout(&self) -> String {
        format!("{}cut", self.prefix)
    }

    /// A page. Its key is the same in each generation, so a new snapshot overwrites the pages of the old one.
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
pub fn read(host: &dyn Host, name: &str) -> Option<StampedValue> {
    let (mut bytes, _) = host.shared(name)?;
    let (_, number) = read_stamp(&bytes)?;
    bytes.truncate(bytes.len().saturating_sub(STAMP_BYTES));
    Some(StampedValue { number, bytes })
}

/// Writes a value as the leader of `term`. Costs a copy of the previous value.
pub fn write(host: &dyn Host, name: &str, term: u64, number: u64, bytes: &[u8]) -> Result<(), LeaderDeposed> {
    let (current, cas) = host.shared(name).map_or((None, None), |(bytes, cas)| (read_stamp(&bytes), Some(cas)));
    if current.is_some_and(|(current_term, _)| current_term > term) {
        return Err(LeaderDeposed);
    }
    let mut value = Vec::with_capacity(STAMP_BYTES.saturating_add(bytes.len()));
    value.extend_from_slice(bytes);
    value.extend_from_slice(&number.to_le_bytes());
    value.extend_from_slice(&term.to_le_bytes());
    if host.set_shared(name, &value, cas) { Ok(()) } else { Err(LeaderDeposed) }
}

/// The length of a stamp, number and term. It is at the end of a value, so that removing it moves no bytes.
const STAMP_BYTES: usize = 16;

fn read_stamp(bytes: &[u8]) -> Option<(u64, u64)> {
    let (rest, term) = bytes.split_last_chunk::<8>()?;
    let (_, number) = rest.split_last_chunk::<8>()?;
    Some((u64::from_le_bytes(*term), u64::from_le_bytes(*number)))
}
