//! The protocol between an edge and the control plane: paths, headers, messages and timings, once for both sides.
//!
//! `wire.rs` has the bytes of snapshots and deltas; `docs/feed-format.md` describes all of it for other programs. The
//! receiver ignores fields and query parameters that it doesn't know, so that either side can be updated first.

pub mod acknowledgement;
pub mod feed;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod usage;

use crate::id::Epoch;
use crate::position::Revision;

/// What all paths of the protocol begin with.
pub const PREFIX: &str = "/edge/v1";

/// GET with the query of a [`feed::FeedRequest`].
pub const FEED_PATH: &str = "/edge/v1/feed";

/// POST of an [`acknowledgement::Acknowledgement`].
pub const ACKNOWLEDGEMENTS_PATH: &str = "/edge/v1/acknowledgements";

/// POST of a [`usage::UsageBatch`].
pub const USAGE_PATH: &str = "/edge/v1/usage";

/// DELETE by an operator's script, when an instance is about to end.
pub const INSTANCE_PATH: &str = "/edge/v1/instances/{instance}";

/// GET of a page of a snapshot: see [`page_path`].
pub const PAGE_PATH: &str = "/edge/v1/snapshots/{epoch}/{revision}/{page}";

/// On each response: the control plane's clock, in milliseconds since 1970. A response without it comes from a proxy in
/// between.
pub const TIME_HEADER: &str = "latchkey-time";

/// On responses with keys: the newest revision at that moment. A message that leads to an older one makes no table
/// fresh.
pub const HEAD_HEADER: &str = "latchkey-head";

/// With 409: a worker that the acknowledgement omits and that the control plane counts.
pub const MISSING_WORKER_HEADER: &str = "latchkey-missing-worker";

/// With 503: in how many seconds a retry is worthwhile (RFC 9110, 10.2.3).
pub const RETRY_AFTER_HEADER: &str = "retry-after";

/// What [`is_name`] requires, for messages.
pub const NAME_EXPECTED: &str = "1 to 64 letters, digits, `-`, `_` or `.`";

/// The most characters of a name.
const MAX_NAME: usize = 64;

/// Whether this is a name of an edge, an instance, a worker or a version.
pub fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The path of a page of a snapshot.
pub fn page_path(epoch: Epoch, revision: Revision, page: usize) -> String {
    format!("{PREFIX}/snapshots/{epoch}/{revision}/{page}")
}
