//! Limits the rate of an import, because edges must apply it in addition to all other requests and changes.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Bytes of stored steps per second; the changes for edges are about as long. Chosen by `make bench`: at this rate a
/// worker of Envoy spends a fifth of its time on the import.
const BYTES_A_SECOND: u64 = 8 << 20;

/// The burst: bytes that don't wait, so that a small import isn't delayed.
const AT_ONCE_BYTES: u64 = 512 << 10;

/// How fast a decided import is carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Haste {
    /// At a rate that edges keep up with.
    Paced,
    /// Immediately: no edge is served yet.
    AtOnce,
}

/// The rate limiter of one run.
pub(super) struct Pace {
    haste: Haste,
    /// The instant at which the rate allows all bytes that were carried out so far.
    until: Instant,
}

impl Pace {
    pub(super) fn begin(haste: Haste) -> Self {
        Self { haste, until: Instant::now() }
    }

    /// Records a step of this many bytes, and waits until the next one may run.
    pub(super) async fn carried_out(&mut self, bytes: usize) {
        let (now, bytes) = (Instant::now(), u64::try_from(bytes).unwrap_or(u64::MAX));
        self.until = self.until.max(now) + length_of(bytes);
        if let (Haste::Paced, Some(begins)) = (self.haste, self.until.checked_sub(length_of(AT_ONCE_BYTES))) {
            sleep_until(begins).await;
        }
    }
}

fn length_of(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn takes(haste: Haste, steps: u64, bytes: u64) -> Duration {
        let (began, mut pace) = (Instant::now(), Pace::begin(haste));
        for _ in 0..steps {
            pace.carried_out(usize::try_from(bytes).unwrap()).await;
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_import_is_paced_and_a_small_one_is_not_delayed() {
        let second = Duration::from_secs(1);
        assert_eq!(takes(Haste::Paced, 8, AT_ONCE_BYTES / 8).await, Duration::ZERO);
        let paced = takes(Haste::Paced, 160, BYTES_A_SECOND / 16).await;
        assert!((9 * second..=10 * second).contains(&paced), "{paced:?} for ten seconds' worth");
        assert_eq!(takes(Haste::AtOnce, 160, BYTES_A_SECOND / 16).await, Duration::ZERO);
    }
}
