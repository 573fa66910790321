//! Usage: a worker's counts of requests by key, until the control plane has acknowledged them.
//!
//! Counting is a look-up and an addition in the VM's memory: no host call, and no allocation for a key that has counts.
//! See `docs/decisions/usage.md`.

mod denial_counts;
mod denials;
mod key_hour;
mod reporting;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;

use policy::protocol::usage::{DroppedUsage, MAX_KEYS, UsageBatch};
use policy::{DenyReason, Digest, KeyId, UnixSeconds};

use denial_counts::DenialCounts;
use denials::{Denials, MAX_DENIALS_PER_KEY};
use key_hour::{KeyHour, KeyHourCounts, KeyHourHasher};
pub use reporting::{BatchOutcome, UsageReporter};

/// How many pairs of key and hour are counted at a time: about 1 MB when all are used.
const MAX_KEY_HOURS: usize = 4_096;

/// Counts that are not in a batch yet.
#[derive(Default)]
pub struct Usage {
    counters: RefCell<Counters>,
}

#[derive(Default)]
struct Counters {
    key_hours: HashMap<KeyHour, KeyHourCounts, BuildHasherDefault<KeyHourHasher>>,
    denials: Denials,
    /// Denials without a valid secret.
    keyless_denials: DenialCounts<u64>,
    dropped: DroppedUsage,
    /// Dropped requests that were not added to the metric yet.
    unreported: u64,
    /// Grows every 10 s: a key's address is read once in each period.
    period: u32,
}

/// The client's address: known if the decision has read it, else read on demand.
pub struct LazyAddress<R> {
    /// The address that the decision has read; `None` if it read none.
    pub known: Option<IpAddr>,
    /// Reads the address, which may be a host call; its own `None` is an address that can't be trusted.
    pub read: R,
}

/// A denied request with a valid secret.
pub struct DeniedRequest<'a> {
    /// The key that the secret belongs to.
    pub key: KeyId,
    /// Why it was denied.
    pub reason: DenyReason,
    /// As received. It is cut and made printable before it is stored.
    pub method: &'a [u8],
    /// As received. Its query is never stored, nor is a path that contains a key.
    pub path: &'a [u8],
    /// The text that the client presented.
    pub secret: Option<&'a [u8]>,
}

impl Usage {
    /// Counts an allowed request. The address is read at most once for each key and period.
    pub fn count_allowed(
        &self,
        key: KeyId,
        digest: &Digest,
        now: UnixSeconds,
        address: LazyAddress<impl FnOnce() -> Option<IpAddr>>,
    ) {
        // Never borrowed elsewhere: a VM has one thread, and nothing that is called while borrowed comes back here.
        let Ok(mut counters) = self.counters.try_borrow_mut() else { return };
        let period = counters.period;
        let Some(counts) = counters.counts(key, now) else { return };
        counts.allow(digest, now);
        if address.known.is_some() {
            counts.set_address(address.known, period);
        } else if !counts.has_address_of(period) {
            counts.set_address((address.read)(), period);
        }
    }

    /// Counts a denied request, and stores its details if it is one of the key's first denials in this period.
    pub fn count_denied(
        &self,
        denied: &DeniedRequest<'_>,
        now: UnixSeconds,
        address: LazyAddress<impl FnOnce() -> Option<IpAddr>>,
    ) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else { return };
        let period = counters.period;
        let Some(counts) = counters.counts(denied.key, now) else { return };
        counts.deny(denied.reason);
        if counts.admit_denial(period, MAX_DENIALS_PER_KEY) {
            let address = address.known.or_else(address.read);
            let has_dropped_one = counters.denials.push(denied, now, address);
            counters.dropped.denials = counters.dropped.denials.saturating_add(u64::from(has_dropped_one));
        }
    }

    /// Counts a denial without a valid secret: only its reason is known.
    pub fn count_denied_without_key(&self, reason: DenyReason) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else { return };
        counters.keyless_denials.add_one(reason);
    }

    /// Begins a new period: addresses are read again.
    pub fn next_period(&self) {
        if let Ok(mut counters) = self.counters.try_borrow_mut() {
            counters.period = counters.period.wrapping_add(1);
        }
    }

    /// How many requests could not be counted since the last call, for the metric.
    pub fn take_dropped(&self) -> u64 {
        self.counters.try_borrow_mut().map(|mut counters| std::mem::take(&mut counters.unreported)).unwrap_or_default()
    }

    /// Removes and returns the counts for the next batch, without its ids; `None` if there are none.
    fn take(&self) -> Option<UsageBatch> {
        let mut counters = self.counters.try_borrow_mut().ok()?;
        let batch = UsageBatch {
            edge: String::new(),
            instance: String::new(),
            worker: String::new(),
            sequence: 0,
            keys: counters
                .key_hours
                .extract_if(|_, _| true)
                .take(MAX_KEYS)
                .map(|(name, counts)| counts.report(name))
                .collect(),
            denials: counters.denials.take(),
            denied: std::mem::take(&mut counters.keyless_denials).by_code(),
            dropped: Some(std::mem::take(&mut counters.dropped)),
        };
        let is_empty = batch.keys.is_empty()
            && batch.denials.is_empty()
            && batch.denied.is_empty()
            && batch.dropped == Some(DroppedUsage::default());
        (!is_empty).then_some(batch)
    }

    /// The control plane will never accept this batch: its requests count as dropped.
    fn drop_batch(&self, batch: &UsageBatch) {
        if let Ok(mut counters) = self.counters.try_borrow_mut() {
            counters.drop_requests(batch.keys.iter().fold(0, |sum, key| key.requests().saturating_add(sum)));
            // What it reported as dropped hasn't arrived either. The filter's own metric has it already.
            let DroppedUsage { requests, denials } = batch.dropped.unwrap_or_default();
            let dropped = &mut counters.dropped;
            dropped.requests = dropped.requests.saturating_add(requests);
            let details = u64::try_from(batch.denials.len()).unwrap_or(u64::MAX);
            dropped.denials = dropped.denials.saturating_add(denials).saturating_add(details);
        }
    }
}

impl Counters {
    /// The counts of a key in this hour; `None` if there is no space for another key.
    fn counts(&mut self, key: KeyId, now: UnixSeconds) -> Option<&mut KeyHourCounts> {
        let name = KeyHour::of(key, now);
        // One look-up if there is space, which is nearly always.
        if self.key_hours.len() >= MAX_KEY_HOURS && !self.key_hours.contains_key(&name) {
            self.drop_requests(1);
            return None;
        }
        Some(self.key_hours.entry(name).or_default())
    }

    fn drop_requests(&mut self, requests: u64) {
        self.dropped.requests = self.dropped.requests.saturating_add(requests);
        self.unreported = self.unreported.saturating_add(requests);
    }
}
