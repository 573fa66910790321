//! The pace of a request's body: whether its client sends fast enough, and how long we have waited for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The minimum average rate of a body, once it has used up its initial allowance.
const BYTES_PER_SECOND: u64 = 1 << 10;

/// How slow a body may be. Only the time in which a handler waits for the client counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaceLimits {
    /// How long the client may send nothing.
    pub(crate) max_idle: Duration,
    /// How far a body may be behind [`BYTES_PER_SECOND`].
    pub(crate) max_lag: Duration,
}

/// The pace of one body. Clones share it.
#[derive(Clone)]
pub(crate) struct Pace(Arc<Mutex<Progress>>);

impl Pace {
    pub(crate) fn new(limits: PaceLimits) -> Self {
        Self(Arc::new(Mutex::new(Progress::new(limits))))
    }

    /// Records that a handler starts to wait for more. Returns until when it may wait if nothing arrives.
    pub(crate) fn start_wait(&self, now: Instant) -> Instant {
        self.lock().start_wait(now)
    }

    /// Records that this many bytes arrived.
    pub(crate) fn received(&self, now: Instant, bytes: usize) {
        self.lock().received(now, bytes);
    }

    /// Records that nothing arrived until then.
    pub(crate) fn mark_expired(&self) {
        self.lock().is_expired = true;
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.lock().is_expired
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
/// start. So a body that keeps the average rate never runs out, however it is split into pieces, and any slower one
/// eventually does.
#[derive(Debug)]
struct Progress {
    limits: PaceLimits,
    /// How much longer we may wait for it; at most `limits.max_lag`.
    left: Duration,
    waiting_since: Option<Instant>,
    /// In total, without the current wait.
    waited: Duration,
    is_expired: bool,
}

impl Progress {
    fn new(limits: PaceLimits) -> Self {
        Self { limits, left: limits.max_lag, waiting_since: None, waited: Duration::ZERO, is_expired: false }
    }

    fn start_wait(&mut self, now: Instant) -> Instant {
        let since = *self.waiting_since.get_or_insert(now);
        since + self.left.min(self.limits.max_idle)
    }

    fn received(&mut self, now: Instant, bytes: usize) {
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let earned = Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND);
        self.waited = self.waited.saturating_add(waited);
        self.left = self.left.saturating_sub(waited).saturating_add(earned).min(self.limits.max_lag);
    }

    fn waited(&self, now: Instant) -> Duration {
        let current = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.waited.saturating_add(current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PaceLimits = PaceLimits { max_idle: Duration::from_secs(30), max_lag: Duration::from_secs(60) };

    /// How many seconds a body lasts that sends `bytes` every `each_secs` seconds, up to an hour.
    fn lasts_secs(bytes: usize, each_secs: u64) -> u64 {
        let (start, mut progress) = (Instant::now(), Progress::new(LIMITS));
        for sent in 1..=3_600 / each_secs {
            let [before, at] = [sent - 1, sent].map(|sent| start + Duration::from_secs(sent * each_secs));
            let until = progress.start_wait(before);
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
            ("half the minimum rate", 512, 1, 119),
        ] {
            assert_eq!(lasts_secs(bytes, each_secs), expected, "{name}");
        }
    }

    #[test]
    fn a_fast_start_earns_no_more_than_the_initial_allowance() {
        let (start, mut progress) = (Instant::now(), Progress::new(LIMITS));
        progress.received(start, 64 << 20);
        assert_eq!(progress.left, LIMITS.max_lag);
    }

    #[test]
    fn a_handler_s_own_time_does_not_count_against_the_client() {
        let (start, mut progress) = (Instant::now(), Progress::new(LIMITS));
        let at = |secs| start + Duration::from_secs(secs);
        progress.start_wait(at(0));
        // Another call while it waits.
        assert_eq!(progress.start_wait(at(5)), at(30));
        assert_eq!(progress.waited(at(7)), Duration::from_secs(7));
        progress.received(at(10), 1);
        assert_eq!(progress.waited(at(500)), Duration::from_secs(10));
        assert_eq!(progress.start_wait(at(500)), at(530), "the handler's 490 seconds cost nothing");
    }
}
