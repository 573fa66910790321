//! Waiting for conditions, with a deadline.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{sleep, timeout};

/// How long a test waits for what takes an instant on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The time between two checks.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until it holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    until_equal(what, true, holds).await;
}

/// Asks until the answer is `expected`.
pub(crate) async fn until_equal<T: PartialEq + Debug>(what: &str, expected: T, mut read_value: impl AsyncFnMut() -> T) {
    let mut seen = None;
    let reached = async {
        loop {
            let now = read_value().await;
            if now == expected {
                return;
            }
            seen = Some(now);
            sleep(PAUSE).await;
        }
    };
    if timeout(DEADLINE, reached).await.is_err() {
        panic!("never: {what}: {seen:?} instead of {expected:?}");
    }
}
