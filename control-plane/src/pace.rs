//! The pace of a request's body: whether its client keeps sending, and how long we have waited for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The minimum average rate of a body, once it has used up its initial allowance.
const BYTES_PER_SECOND: u64 = 1 << 10;

/// How slow a body may be. Only the time in which a handler waits for the client counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slowest {
    /// How long nothing may arrive.
    pub(crate) still: Duration,
    /// How far a body may be behind [`BYTES_PER_SECOND`].
    pub(crate) behind: Duration,
}

/// The pace of one body. Clones share it.
#[derive(Clone)]
pub(crate) struct Pace(Arc<Mutex<Progress>>);

impl Pace {
    pub(crate) fn new(slowest: Slowest) -> Self {
        Self(Arc::new(Mutex::new(Progress::new(slowest))))
    }

    /// Notes that a handler waits for more. Returns until when it may wait if nothing arrives.
    pub(crate) fn waits(&self, now: Instant) -> Instant {
        self.lock().waits(now)
    }

    /// Notes that this many bytes arrived.
    pub(crate) fn received(&self, now: Instant, bytes: usize) {
        self.lock().received(now, bytes);
    }

    /// Notes that nothing arrived until then.
    pub(crate) fn ran_out(&self) {
        self.lock().has_run_out = true;
    }

    pub(crate) fn has_run_out(&self) -> bool {
        self.lock().has_run_out
    }

    /// How long we have waited for the client, up to now.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        self.lock().waited(now)
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token bucket: each byte that arrives adds a part of a second, waiting spends it, and the bucket is full at the
/// start. So a body that keeps the average rate never runs out, however it is cut into pieces, and any slower one does
/// in the end.
#[derive(Debug)]
struct Progress {
    slowest: Slowest,
    /// How much longer we may wait for it; at most `slowest.behind`.
    left: Duration,
    waits_since: Option<Instant>,
    /// In all, without the current wait.
    waited: Duration,
    has_run_out: bool,
}

impl Progress {
    fn new(slowest: Slowest) -> Self {
        Self { slowest, left: slowest.behind, waits_since: None, waited: Duration::ZERO, has_run_out: false }
    }

    fn waits(&mut self, now: Instant) -> Instant {
        let since = *self.waits_since.get_or_insert(now);
        since + self.left.min(self.slowest.still)
    }

    fn received(&mut self, now: Instant, bytes: usize) {
        let waited = self.waits_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let paid = Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND);
        self.waited = self.waited.saturating_add(waited);
        self.left = self.left.saturating_sub(waited).saturating_add(paid).min(self.slowest.behind);
    }

    fn waited(&self, now: Instant) -> Duration {
        let goes_on = self.waits_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited.saturating_add(goes_on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOWEST: Slowest = Slowest { still: Duration::from_secs(30), behind: Duration::from_secs(60) };

    /// How many seconds a body lasts that sends `bytes` every `each_secs` seconds, up to an hour.
    fn lives(bytes: usize, each_secs: u64) -> u64 {
        let (start, mut progress) = (Instant::now(), Progress::new(SLOWEST));
        for sent in 1..=3_600 / each_secs {
            let [before, at] = [sent - 1, sent].map(|sent| start + Duration::from_secs(sent * each_secs));
            let until = progress.waits(before);
            if until < at {
                return (until - start).as_secs();
            }
            progress.received(at, bytes);
        }
        3_600
    }

    #[test]
    fn a_body_that_stalls_or_is_too_slow_runs_out() {
        for (name, bytes, each_secs, expected) in [
            ("1 KiB a second", 1 << 10, 1, 3_600),
            ("10 KiB each ten seconds", 10 << 10, 10, 3_600),
            ("29 KiB each 29 seconds", 29 << 10, 29, 3_600),
            ("fast", 1 << 20, 1, 3_600),
            ("nothing", 0, 31, 30),
            ("much, and then not for too long", 1 << 20, 31, 30),
            ("a byte a second", 1, 1, 60),
            ("a byte each 29 seconds", 1, 29, 60),
            ("100 bytes a second", 100, 1, 66),
            ("half of it", 512, 1, 119),
        ] {
            assert_eq!(lives(bytes, each_secs), expected, "{name}");
        }
    }

    #[test]
    fn a_fast_start_earns_no_more_than_the_initial_allowance() {
        let (start, mut progress) = (Instant::now(), Progress::new(SLOWEST));
        progress.received(start, 64 << 20);
        assert_eq!(progress.left, SLOWEST.behind);
    }

    #[test]
    fn a_handler_s_own_time_does_not_count_against_the_client() {
        let (start, mut progress) = (Instant::now(), Progress::new(SLOWEST));
        let at = |secs| start + Duration::from_secs(secs);
        progress.waits(at(0));
        // Asked again while it waits.
        assert_eq!(progress.waits(at(5)), at(30));
        assert_eq!(progress.waited(at(7)), Duration::from_secs(7));
        progress.received(at(10), 1);
        assert_eq!(progress.waited(at(500)), Duration::from_secs(10));
        assert_eq!(progress.waits(at(500)), at(530), "the handler's 490 seconds cost nothing");
    }
}
