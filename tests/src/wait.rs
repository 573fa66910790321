//! Waiting for a condition instead of sleeping for a time.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// How long anything without its own deadline may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Checks a condition repeatedly until it is `Ok`; fails with what was seen last.
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(DEADLINE, what, condition)
}

/// As [`eventually`], with a deadline that is itself a promise: a condition that becomes true later fails.
pub fn eventually_within<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        let answer = condition();
        let elapsed = start.elapsed();
        match answer {
            Ok(value) if elapsed <= deadline => return value,
            Ok(_) => panic!("expected within {deadline:?}: {what}; seen after {elapsed:?}"),
            Err(seen) if elapsed > deadline => panic!("expected within {deadline:?}: {what}; seen: {seen}"),
            Err(_) => pause_after(elapsed),
        }
    }
}

/// The wall clock, which Envoy and the control plane of a test share.
#[expect(clippy::disallowed_methods, reason = "the one place where the tests read the clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Waits a moment before the next check.
pub(crate) fn pause() {
    pause_after(Duration::ZERO);
}

/// Waits longer the longer it has taken already: a check every 5 ms would be a load of its own.
fn pause_after(waited: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout((waited / 20).clamp(Duration::from_millis(5), Duration::from_millis(50)));
}
