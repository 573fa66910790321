//! Faults that the end-to-end tests bring about in a build of their own.
//!
//! A request's `x-fault` says which: `trap` and `hang=<milliseconds>` happen to the worker that gets it, `leader-trap` and
//! `leader-hang=<milliseconds>` to the one that leads when its timer runs next. `count=<keys>` is none: it has the log say
//! what counting costs, for `make bench`.

use std::hint::black_box;

use edge::host::{Host as _, LogLevel};
use edge::usage::{Address, Usage};
use policy::{Digest, KeyId, UnixSeconds};

use crate::host::Envoy;

/// Where a fault waits for the leader.
const WAITING: &str = "latchkey/fault";

/// How often is counted to learn what it costs.
const COUNTED: u64 = 4_000_000;

/// Does what the request asks for.
pub fn on_request(host: &Envoy) {
    let headers = host.request_headers();
    let Some((_, fault)) = headers.iter().find(|(name, _)| name == "x-fault") else { return };
    if let Some(fault) = fault.strip_prefix(b"leader-") {
        let before = host.shared(WAITING).map(|(_, write)| write);
        host.set_shared(WAITING, fault, before);
    } else if let Some(keys) = number(fault, b"count=") {
        count(host, keys);
    } else {
        happen(host, fault);
    }
}

/// Counts requests of so many keys in turn, in a table of its own, as each allowed request does.
fn count(host: &Envoy, keys: u64) {
    let (usage, digest, address) = (Usage::default(), Digest([7; 32]), host.source_address());
    let start = host.monotonic_ms();
    for turn in 0..COUNTED {
        // Spread as ids are, whose last half is random.
        let half = (turn % keys.max(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let mut id = [0; 16];
        id.iter_mut().rev().zip(half).for_each(|(byte, random)| *byte = random);
        let read = || address.as_ref().and_then(|text| str::from_utf8(text).ok()?.parse().ok());
        usage.allowed(KeyId::from_bytes(id), &digest, black_box(UnixSeconds(1)), Address { known: None, read });
    }
    let ms = host.monotonic_ms().saturating_sub(start);
    black_box(&usage);
    let ns = ms.saturating_mul(1_000_000) / COUNTED;
    host.log(LogLevel::Warn, &format!("counting a request of one of {keys} keys took {ns} ns"));
}

fn number(fault: &[u8], name: &[u8]) -> Option<u64> {
    fault.strip_prefix(name).and_then(|number| str::from_utf8(number).ok()).and_then(|number| number.parse().ok())
}

/// Does to the leader what a request asked for.
pub fn on_tick(host: &Envoy, leads: bool) {
    if !leads {
        return;
    }
    if let Some((fault, write)) = host.shared(WAITING)
        && !fault.is_empty()
        && host.set_shared(WAITING, b"", Some(write))
    {
        happen(host, &fault);
    }
}

#[expect(clippy::panic, reason = "a trap is what was asked for")]
fn happen(host: &Envoy, fault: &[u8]) {
    match number(fault, b"hang=") {
        Some(ms) => {
            let start = host.monotonic_ms();
            while host.monotonic_ms().saturating_sub(start) < ms {}
        }
        None => panic!("the fault that a test asked for"),
    }
}
