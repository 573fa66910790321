//! The rate limit of an import, which edges apply while they serve requests and other changes.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Bytes of stored steps per second; the changes for edges are about as long. Chosen by `make bench`: at this rate a
/// worker of Envoy spends a fifth of its time on the import.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// The burst: bytes that aren't delayed, so that a small import doesn't wait.
const BURST_BYTES: u64 = 512 << 10;

/// How fast a decided import is carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImportSpeed {
    /// At a rate that edges can apply.
    Paced,
    /// Immediately: no edge is served yet.
    AtOnce,
}

/// The rate limiter of one run.
pub(super) struct RateLimiter {
    speed: ImportSpeed,
    /// The instant at which the rate allows all bytes that were carried out so far.
    until: Instant,
}

impl RateLimiter {
    pub(super) fn begin(speed: ImportSpeed) -> Self {
        Self { speed, until: Instant::now() }
    }

    /// Records a step of this many bytes, and waits until the next one may run.
    pub(super) async fn wait_after(&mut self, bytes: usize) {
        let (now, bytes) = (Instant::now(), u64::try_from(bytes).unwrap_or(u64::MAX));
        self.until = self.until.max(now) + duration_of(bytes);
        if let (ImportSpeed::Paced, Some(begins)) = (self.speed, self.until.checked_sub(duration_of(BURST_BYTES))) {
            sleep_until(begins).await;
        }
    }
}

fn duration_of(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn takes(speed: ImportSpeed, steps: u64, bytes: u64) -> Duration {
        let (began, mut limiter) = (Instant::now(), RateLimiter::begin(speed));
        for _ in 0..steps {
            limiter.wait_after(usize::try_from(bytes).unwrap()).await;
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_import_is_paced_and_a_small_one_is_not_delayed() {
        let second = Duration::from_secs(1);
        assert_eq!(takes(ImportSpeed::Paced, 8, BURST_BYTES / 8).await, Duration::ZERO);
        let paced = takes(ImportSpeed::Paced, 160, BYTES_PER_SECOND / 16).await;
        assert!((9 * second..=10 * second).contains(&paced), "{paced:?} for ten seconds' worth");
        assert_eq!(takes(ImportSpeed::AtOnce, 160, BYTES_PER_SECOND / 16).await, Duration::ZERO);
    }
}
