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
    #[error("the message ends early")]
    Truncated,
    #[error("the message is not in Latchkey's format: its first bytes differ")]
    NotOurs,
    #[error("the message has format {0}, and this side reads format {FORMAT}")]
    Format(u16),
    #[error("the message is of another kind than was requested")]
    Kind,
    #[error("the message's length differs from the one in its header")]
    Length,
    #[error("the message's checksum does not match its bytes")]
    Checksum,
    #[error("the message belongs to another epoch or revision")]
    Position,
    #[error("the changes do not lead from this table's chain hash to the one in the header")]
    Chain,
    #[error("a page's digests are out of order or belong to another page")]
    Order,
    #[error("a record, an operation or a name is not valid in this format")]
    Content,
}

/// Why something can't be put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("a key has more than 255 scopes")]
    TooManyScopes,
    #[error("a workspace's slug has more than 255 bytes")]
    SlugTooLong,
    #[error("a number of the catalogue means two things, or a scope's is above 32,767")]
    Number,
    #[error("digests must be added in ascending order, each once")]
    Order,
    #[error("a message would be longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLarge,
}
