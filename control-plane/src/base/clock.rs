//! The wall clock and the monotonic clock, passed as an argument.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use policy::UnixSeconds;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MILLISECOND: u64 = 1_000_000;

/// The source of the time. Tests pass their own.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// The machine's clock. A time before 1970 reads as 1970.
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    pub fn system() -> Self {
        Self::from_nanos(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
    }

    /// A clock with these nanoseconds since 1970; its monotonic clock is the machine's.
    pub fn from_nanos(nanos: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let start = Instant::now();
        Self { wall: Arc::new(nanos), monotonic: Arc::new(move || start.elapsed()) }
    }

    /// The same clock with another monotonic clock.
    pub fn with_monotonic(self, since: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { monotonic: Arc::new(since), ..self }
    }

    /// A clock that is stopped at `at`, in a process that started at `started_at`.
    #[cfg(test)]
    pub(crate) fn fixed_at(at: UnixSeconds, started_at: UnixSeconds) -> Self {
        let secs = |secs: i64| u64::try_from(secs).unwrap_or_default();
        let passed = Duration::from_secs(secs(at.0 - started_at.0));
        Self::from_nanos(move || secs(at.0) * NANOS_PER_SECOND).with_monotonic(move || passed)
    }

    /// Time since a fixed instant in this process. Unlike the wall clock, nobody can set it.
    pub fn monotonic(&self) -> Duration {
        (self.monotonic)()
    }

    /// Whole seconds since 1970.
    pub fn now(&self) -> UnixSeconds {
        UnixSeconds(i64::try_from(self.unix_nanos() / NANOS_PER_SECOND).unwrap_or(i64::MAX))
    }

    /// Whole milliseconds since 1970.
    pub fn unix_millis(&self) -> u64 {
        self.unix_nanos() / NANOS_PER_MILLISECOND
    }

    /// Nanoseconds since 1970; good until the year 2554.
    pub fn unix_nanos(&self) -> u64 {
        (self.wall)()
    }
}
