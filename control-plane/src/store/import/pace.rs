//! How fast an import is carried out: edges have to apply it, beside the requests and changes of everybody else.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Bytes of steps a second, as they are written down; what edges get of one is about as long. Chosen by `make bench`: a worker of
/// Envoy is busy with it for a fifth of its time.
const BYTES_A_SECOND: u64 = 8 << 20;

/// Bytes that don't wait, so that a small import takes no longer than it must.
const AT_ONCE_BYTES: u64 = 512 << 10;

/// How what is decided is carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Haste {
    /// At a pace that edges keep up with.
    Paced,
    /// At once: nobody is served yet.
    AtOnce,
}

/// The pace of one carrying-out.
pub(super) struct Pace {
    haste: Haste,
    /// When all that was carried out so far is paid for.
    until: Instant,
}

impl Pace {
    pub(super) fn begin(haste: Haste) -> Self {
        Self { haste, until: Instant::now() }
    }

    /// Notes that a step of so many bytes was carried out; waits as long as the next one must.
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
    async fn an_import_takes_its_bytes_time_and_a_small_one_none() {
        let second = Duration::from_secs(1);
        assert_eq!(takes(Haste::Paced, 8, AT_ONCE_BYTES / 8).await, Duration::ZERO);
        let paced = takes(Haste::Paced, 160, BYTES_A_SECOND / 16).await;
        assert!((9 * second..=10 * second).contains(&paced), "{paced:?} for ten seconds' worth");
        assert_eq!(takes(Haste::AtOnce, 160, BYTES_A_SECOND / 16).await, Duration::ZERO);
    }
}
