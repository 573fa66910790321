//! What a worker counts of each request, until the control plane has it.
//!
//! Counting is a look-up and an addition in the VM's memory: no call, and no allocation for a key that was counted before.
//! See `docs/decisions/usage.md`.

mod denials;
mod reporting;
mod slot;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;

use policy::decide::CODES;
use policy::protocol::usage::{DroppedUsage, MAX_KEYS, UsageBatch};
use policy::{Digest, KeyId, UnixSeconds};

use denials::{A_KEY, Denials};
pub use reporting::{BatchOutcome, UsageReporter};
use slot::{Slot, SlotHasher, SlotName};

/// Keys that are counted at a time, each hour separately: about 1 MB when all are used.
const SLOTS: usize = 4_096;

/// What was counted and not yet put into a batch.
#[derive(Default)]
pub struct Usage {
    counters: RefCell<Counters>,
}

#[derive(Default)]
struct Counters {
    slots: HashMap<SlotName, Slot, BuildHasherDefault<SlotHasher>>,
    denials: Denials,
    /// Denials without a right secret, as [`CODES`] are ordered.
    nobody: [u64; CODES.len()],
    dropped: DroppedUsage,
    /// Of these, what the metric doesn't have yet.
    unreported: u64,
    /// Grows every 10 s: a key's address is read once in each.
    period: u32,
}

/// The client's address: as the decision has read it, and how to read it.
pub struct Address<R> {
    pub known: Option<IpAddr>,
    pub read: R,
}

/// A request with a right secret that was denied.
pub struct Denied<'a> {
    pub key: KeyId,
    pub code: &'static str,
    pub method: &'a [u8],
    pub path: &'a [u8],
    /// What the client presented.
    pub secret: Option<&'a [u8]>,
}

impl Usage {
    /// Counts a request that was allowed. The address is read only where it must be.
    pub fn allowed(
        &self,
        key: KeyId,
        digest: &Digest,
        now: UnixSeconds,
        address: Address<impl FnOnce() -> Option<IpAddr>>,
    ) {
        // Never borrowed elsewhere: a VM has one thread, and nothing called in between returns here.
        let Ok(mut counters) = self.counters.try_borrow_mut() else { return };
        let period = counters.period;
        let Some(slot) = counters.slot(key, now) else { return };
        slot.allow(digest, now);
        if address.known.is_some() {
            slot.came_from(address.known, period);
        } else if !slot.has_address_of(period) {
            slot.came_from((address.read)(), period);
        }
    }

    /// Counts a denial of a right secret, and keeps it if it is one of the key's first in this period.
    pub fn denied(&self, denied: &Denied<'_>, now: UnixSeconds, address: Address<impl FnOnce() -> Option<IpAddr>>) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else { return };
        let period = counters.period;
        let Some(slot) = counters.slot(denied.key, now) else { return };
        slot.deny(denied.code);
        if slot.keeps_denial(period, A_KEY) {
            let address = address.known.or_else(address.read);
            let is_older_gone = counters.denials.keep(denied, now, address);
            counters.dropped.denials = counters.dropped.denials.saturating_add(u64::from(is_older_gone));
        }
    }

    /// Counts a denial without a right secret: nothing is known of it but why.
    pub fn denied_nobody(&self, code: &'static str) {
        let Ok(mut counters) = self.counters.try_borrow_mut() else { return };
        if let Some((count, _)) = counters.nobody.iter_mut().zip(CODES).find(|(_, own)| *own == code) {
            *count = count.saturating_add(1);
        }
    }

    /// A new period: addresses are read again.
    pub fn next_period(&self) {
        if let Ok(mut counters) = self.counters.try_borrow_mut() {
            counters.period = counters.period.wrapping_add(1);
        }
    }

    /// How many requests found no room since the last call, for the metric.
    pub fn take_dropped(&self) -> u64 {
        self.counters.try_borrow_mut().map(|mut counters| std::mem::take(&mut counters.unreported)).unwrap_or_default()
    }

    /// Takes out what makes the next batch, which still lacks its names; `None` when nothing was counted.
    fn take(&self) -> Option<UsageBatch> {
        let mut counters = self.counters.try_borrow_mut().ok()?;
        let denied = CODES.into_iter().zip(std::mem::take(&mut counters.nobody)).filter(|(_, count)| *count > 0);
        let batch = UsageBatch {
            edge: String::new(),
            instance: String::new(),
            worker: String::new(),
            sequence: 0,
            keys: counters.slots.extract_if(|_, _| true).take(MAX_KEYS).map(|(name, slot)| slot.report(name)).collect(),
            denials: counters.denials.take(),
            denied: denied.map(|(code, count)| (code.into(), count)).collect(),
            dropped: Some(std::mem::take(&mut counters.dropped)),
        };
        let is_empty = batch.keys.is_empty()
            && batch.denials.is_empty()
            && batch.denied.is_empty()
            && batch.dropped == Some(DroppedUsage::default());
        (!is_empty).then_some(batch)
    }

    /// The control plane will never take this batch: its requests count as dropped.
    fn lose(&self, batch: &UsageBatch) {
        if let Ok(mut counters) = self.counters.try_borrow_mut() {
            counters.drop_requests(batch.keys.iter().fold(0, |sum, key| key.requests().saturating_add(sum)));
        }
    }
}

impl Counters {
    /// The slot of a key in this hour; `None` when there is no room for another.
    fn slot(&mut self, key: KeyId, now: UnixSeconds) -> Option<&mut Slot> {
        let name = SlotName::of(key, now);
        // Looked up once where the key is known, which is nearly always.
        if self.slots.len() >= SLOTS && !self.slots.contains_key(&name) {
            self.drop_requests(1);
            return None;
        }
        Some(self.slots.entry(name).or_default())
    }

    fn drop_requests(&mut self, requests: u64) {
        self.dropped.requests = self.dropped.requests.saturating_add(requests);
        self.unreported = self.unreported.saturating_add(requests);
    }
}
