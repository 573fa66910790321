//! Waiting for a condition instead of sleeping for a time.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// How long anything may take that has no promise of its own.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks again and again until the answer is `Ok`; fails with what was seen last.
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(DEADLINE, what, condition)
}

/// As [`eventually`], with a deadline that is itself a promise: what comes true later has broken it.
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

/// Lets the others work before the next look.
pub(crate) fn pause() {
    pause_after(Duration::ZERO);
}

/// The same, for the longer the longer it takes already: a look every 5 ms is a load of its own.
fn pause_after(waited: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout((waited / 20).clamp(Duration::from_millis(5), Duration::from_millis(50)));
}
