//! Usage: workers report how keys are used, and the control plane adds it up.
//!
//! `folding.rs` queues batches and folds all queued ones into the store, a round at a time; `merge.rs` merges them. See
//! `docs/decisions/usage.md`.

mod folding;
mod merge;
mod skipped;

use std::net::IpAddr;

use policy::protocol::usage::SecretUse;
use policy::{KeyId, UnixSeconds};

pub(crate) use crate::store::{ALLOWED, BatchName, DAY_SECS, Denial, KeyDelta};
pub(crate) use folding::{FoldError, UsageFolder};
pub(crate) use skipped::{SkipCounts, SkipReason};

/// The outcome under which codes that this version doesn't know are counted.
pub(crate) const OTHER_CODE: &str = "other";

/// What one worker has counted since its last batch.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) name: BatchName,
    pub(crate) counts: Vec<KeyCounts>,
    pub(crate) denials: Vec<(KeyId, Denial)>,
    /// Denials without a valid secret, by code.
    pub(crate) denied: Vec<(&'static str, u64)>,
    /// Requests that were not counted because the worker's table was full.
    pub(crate) dropped: u64,
    /// Entries that were skipped.
    pub(crate) skipped: SkipCounts,
}

/// The memory that an entry takes, in units of about 100 bytes.
const UNITS_PER_COUNT: usize = 1;
const UNITS_PER_DENIAL: usize = 4;

/// How many codes and secrets fit into a unit.
const CODES_PER_UNIT: usize = 4;

impl Batch {
    /// The memory that its entries take, in units of about 100 bytes.
    pub(crate) fn size(&self) -> usize {
        let of = |counts: &KeyCounts| {
            UNITS_PER_COUNT.saturating_add(counts.denied.len().saturating_add(counts.used.len()) / CODES_PER_UNIT)
        };
        let counts = self.counts.iter().map(of).fold(0_usize, usize::saturating_add);
        counts.saturating_add(self.denials.len().saturating_mul(UNITS_PER_DENIAL))
    }
}

/// What a worker counted of one key in one hour.
#[derive(Clone, Debug)]
pub(crate) struct KeyCounts {
    pub(crate) key: KeyId,
    /// Its start.
    pub(crate) hour: UnixSeconds,
    pub(crate) allowed: u64,
    pub(crate) denied: Vec<(&'static str, u64)>,
    /// The secrets that were allowed, each with the time of its last use.
    pub(crate) used: Vec<SecretUse>,
    pub(crate) address: Option<IpAddr>,
}
