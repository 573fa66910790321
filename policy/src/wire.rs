//! The bytes between control plane and edge: a header, followed by a delta, a manifest or a page.
//!
//! All numbers are little-endian, no field is aligned, and records are read in place. `docs/feed-format.md` describes
//! each byte. Reading never panics and trusts nothing: bytes that are truncated, flipped, out of order or unknown are a
//! [`WireError`].

mod change;
#[cfg(test)]
mod damage;
mod delta;
#[cfg(test)]
mod golden;
mod header;
mod manifest;
mod page;
mod page_id;
mod page_layout;
mod reader;
mod record;
mod snapshot;

pub use change::{Op, encode_change};
pub use delta::{Delta, encode_delta};
pub use header::FORMAT;
pub use manifest::{Catalogue, IdTaken, Manifest, PageSummary};
pub use page::{Page, page_of};
pub use page_id::PageId;
pub use page_layout::PageLayout;
pub use record::{KeyRecord, RecordView, record_bytes};
pub use snapshot::{Snapshot, SnapshotBuilder};

pub(crate) use change::OpView;
pub(crate) use page::PageWriter;
pub(crate) use page_id::pages_by_bits;

/// The most bytes a snapshot's page should have; only digests that share their first 16 bits make a larger one.
pub const PAGE_BYTES: usize = 1 << 20;

/// The most bytes that any message may have. Envoy passes no answer above 32 MiB to a filter.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// Why bytes are refused. The existing table stays unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes are left than the next part needs, or a record points past its heap. Also for a part that a worker
    /// doesn't find in the shared store.
    #[error("the message ends early")]
    Truncated,
    /// The magic is wrong: probably the answer is from Envoy or a proxy.
    #[error("the message is not in Latchkey's format: its first bytes differ")]
    NotOurs,
    /// The header has this format instead of [`FORMAT`].
    #[error("the message has format {0}, and this side reads format {FORMAT}")]
    Format(u16),
    /// A message that should be a delta, a manifest, a page or a layout is one of the others.
    #[error("the message is of another kind than was requested")]
    Kind,
    /// Also for a message above [`MAX_MESSAGE_BYTES`], and for bytes after the last part.
    #[error("the message's length differs from the one in its header")]
    Length,
    /// The CRC-32 in the header doesn't fit, or the page isn't the one in the manifest.
    #[error("the message's checksum does not match its bytes")]
    Checksum,
    /// The epoch isn't the table's, a delta starts at another revision than the table's, or there is no table yet.
    #[error("the message belongs to another epoch or revision")]
    Position,
    /// A revision was skipped, repeated, changed or reordered, or comes from another history.
    #[error("the changes do not lead from this table's chain hash to the one in the header")]
    Chain,
    /// Also for a page that was not requested, or is for another place than the next one.
    #[error("a page's digests are out of order or belong to another page")]
    Order,
    /// An unknown operation, flag or address family, an invalid name, a number with two meanings, or pages that don't
    /// cover each digest once.
    #[error("a record, an operation or a name is not valid in this format")]
    Content,
}

/// Why something can't be put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A record has one byte for their count.
    #[error("a key has more than 255 scopes")]
    TooManyScopes,
    /// A short text has one byte for its length.
    #[error("a workspace's slug has more than 255 bytes")]
    SlugTooLong,
    /// See [`IdTaken`].
    #[error("a number of the catalogue means two things, or a scope's is above 32,767")]
    Number,
    /// Also when a table's page is missing, or can't be rebuilt.
    #[error("digests must be added in ascending order, each once")]
    Order,
    /// Also for a count, a length or an offset that is too large for its field.
    #[error("a message would be longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLarge,
}
