//! Faults that the end-to-end tests bring about in a build of their own.
//!
//! A request's `x-fault` says which: `trap` and `hang=<milliseconds>` happen to the worker that gets it, `leader-trap` and
//! `leader-hang=<milliseconds>` to the one that leads when its timer runs next.

use crate::host::{Envoy, Host as _};

/// Where a fault waits for the leader.
const WAITING: &str = "latchkey/fault";

/// Does what the request asks for.
pub fn on_request(host: &Envoy) {
    let headers = host.request_headers();
    let Some((_, fault)) = headers.iter().find(|(name, _)| name == "x-fault") else { return };
    match fault.strip_prefix(b"leader-") {
        Some(fault) => {
            let before = host.shared(WAITING).map(|(_, write)| write);
            host.set_shared(WAITING, fault, before);
        }
        None => happen(host, fault),
    }
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
    let hang = fault
        .strip_prefix(b"hang=")
        .and_then(|length| str::from_utf8(length).ok())
        .and_then(|length| length.parse().ok());
    match hang {
        Some(ms) => {
            let start = host.monotonic_ms();
            while host.monotonic_ms().saturating_sub(start) < ms {}
        }
        None => panic!("the fault that a test asked for"),
    }
}
