//! Fault injection, in a separate build for the end-to-end tests.
//!
//! A request's `x-fault` selects the fault: `trap` and `hang=<milliseconds>` hit the worker that receives it,
//! `leader-trap` and `leader-hang=<milliseconds>` the leader when its timer runs next. `count=<keys>` is no fault: it
//! logs the cost of counting, for `make bench`.

use std::hint::black_box;

use edge::host::{Host as _, LogLevel};
use edge::usage::{LazyAddress, Usage};
use policy::{Digest, KeyId, UnixSeconds};

use crate::host::Envoy;

/// The shared value that holds a fault for the leader.
const LEADER_FAULT: &str = "latchkey/fault";

/// How many requests are counted to measure the cost.
const COUNT_ITERATIONS: u64 = 4_000_000;

/// Injects the fault that the request selects.
pub(crate) fn on_request(host: &Envoy) {
    let headers = host.request_headers();
    let Some((_, fault)) = headers.iter().find(|(name, _)| name == "x-fault") else { return };
    if let Some(fault) = fault.strip_prefix(b"leader-") {
        let before = host.shared(LEADER_FAULT).map(|(_, write)| write);
        host.set_shared(LEADER_FAULT, fault, before);
    } else if let Some(keys) = number(fault, b"count=") {
        count(host, keys);
    } else {
        inject(host, fault);
    }
}

/// Counts requests of `keys` keys in turn, in a separate table, like allowed requests.
fn count(host: &Envoy, keys: u64) {
    let (usage, digest, address) = (Usage::default(), Digest([7; 32]), host.source_address());
    let start = host.monotonic_ms();
    for iteration in 0..COUNT_ITERATIONS {
        // Spread like ids, whose last half is random.
        let half = (iteration % keys.max(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let mut id = [0; 16];
        id.iter_mut().rev().zip(half).for_each(|(byte, random)| *byte = random);
        let read = || address.as_ref().and_then(|text| str::from_utf8(text).ok()?.parse().ok());
        usage.count_allowed(
            KeyId::from_bytes(id),
            &digest,
            black_box(UnixSeconds(1)),
            LazyAddress { known: None, read },
        );
    }
    let ms = host.monotonic_ms().saturating_sub(start);
    black_box(&usage);
    let ns = ms.saturating_mul(1_000_000) / COUNT_ITERATIONS;
    host.log(LogLevel::Warn, &format!("counting a request of one of {keys} keys took {ns} ns"));
}

fn number(fault: &[u8], name: &[u8]) -> Option<u64> {
    fault.strip_prefix(name).and_then(|number| str::from_utf8(number).ok()).and_then(|number| number.parse().ok())
}

/// Injects a waiting fault, if this worker is the leader.
pub(crate) fn on_tick(host: &Envoy, is_leader: bool) {
    if !is_leader {
        return;
    }
    if let Some((fault, write)) = host.shared(LEADER_FAULT)
        && !fault.is_empty()
        && host.set_shared(LEADER_FAULT, b"", Some(write))
    {
        inject(host, &fault);
    }
}

#[expect(clippy::panic, reason = "the fault is a trap")]
fn inject(host: &Envoy, fault: &[u8]) {
    match number(fault, b"hang=") {
        Some(ms) => {
            let start = host.monotonic_ms();
            while host.monotonic_ms().saturating_sub(start) < ms {}
        }
        None => panic!("the fault that a test asked for"),
    }
}
