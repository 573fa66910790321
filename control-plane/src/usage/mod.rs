//! Usage: what workers report of the keys that they decided by, and how it is added up.
//!
//! `folding.rs` takes batches and folds all that wait into the store, a round at a time; `round.rs` merges them. See
//! `docs/decisions/usage.md`.

mod folding;
mod left_out;
mod round;

use std::net::IpAddr;

use policy::protocol::usage::SecretUse;
use policy::{KeyId, UnixSeconds};
use serde::{Deserialize, Serialize};

pub(crate) use folding::{Folding, NotFolded};
pub(crate) use left_out::{LeftOut, LeftOutCounts};
pub(crate) use round::{KeyDelta, LATEST};

/// What counts of allowed requests stand under.
pub(crate) const ALLOWED: &str = "allowed";

/// What a code counts as that this version doesn't know.
pub(crate) const OTHER: &str = "other";

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;

/// What one worker counted since its batch before.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) name: BatchName,
    pub(crate) counts: Vec<Counts>,
    pub(crate) denials: Vec<(KeyId, Denial)>,
    /// Denials without a right secret, by code.
    pub(crate) denied: Vec<(&'static str, u64)>,
    /// Requests that found no room in the worker's table.
    pub(crate) dropped: u64,
    /// Entries that don't count.
    pub(crate) left_out: LeftOutCounts,
}

/// What an entry takes of memory, in units of about 100 bytes.
const A_COUNT: usize = 1;
const A_DENIAL: usize = 4;

/// Codes and secrets that a unit has room for.
const A_UNIT: usize = 4;

impl Batch {
    /// What its entries take of memory, in units of about 100 bytes.
    pub(crate) fn size(&self) -> usize {
        let of =
            |counts: &Counts| A_COUNT.saturating_add(counts.denied.len().saturating_add(counts.used.len()) / A_UNIT);
        let counts = self.counts.iter().map(of).fold(0_usize, usize::saturating_add);
        counts.saturating_add(self.denials.len().saturating_mul(A_DENIAL))
    }
}

/// Which batch it is. A worker has one of each sequence, and sends the next one when the last was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BatchName {
    pub(crate) instance: String,
    pub(crate) worker: String,
    pub(crate) sequence: u64,
}

/// What a worker counted of one key in one hour.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) key: KeyId,
    /// Its start.
    pub(crate) hour: UnixSeconds,
    pub(crate) allowed: u64,
    pub(crate) denied: Vec<(&'static str, u64)>,
    /// Which secrets were allowed, and when last.
    pub(crate) used: Vec<SecretUse>,
    pub(crate) address: Option<IpAddr>,
}

/// A request with a right secret that was denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Denial {
    pub(crate) code: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) at: UnixSeconds,
    pub(crate) method: String,
    /// Without its query.
    pub(crate) path: String,
}
