//! The simulated time of a run: one clock, which only the run moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use latchkey::base::clock::Clock;
use policy::UnixSeconds;

/// Milliseconds since 1970 at which a run begins.
const START_MS: u64 = 1_795_420_800_000;

/// Clones share one time.
#[derive(Clone, Default)]
pub(crate) struct Time {
    elapsed_ms: Arc<AtomicU64>,
    readings: Arc<AtomicU64>,
}

/// A runtime whose timers move only with [`Time::advance`].
pub(crate) struct Runtime {
    /// Dropped first: the blocking task ends with it.
    _guard: Sender<()>,
    pub tokio: tokio::runtime::Runtime,
}

impl Runtime {
    pub(crate) fn new() -> Self {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let tokio = tokio.expect("there is a runtime");
        let (guard, released) = channel::<()>();
        // While a blocking task runs, tokio doesn't advance a paused clock to the next timer.
        tokio.spawn_blocking(move || released.recv());
        Self { _guard: guard, tokio }
    }
}

impl Time {
    /// Advances all clocks.
    pub(crate) async fn advance(&self, ms: u64) {
        self.elapsed_ms.fetch_add(ms, Ordering::SeqCst);
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms.load(Ordering::SeqCst)
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        START_MS + self.elapsed_ms()
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        UnixSeconds((self.wall_ms() / 1_000).try_into().expect("a time"))
    }

    /// The control plane's clock. Ids are ordered by it, so each reading is a microsecond later.
    pub(crate) fn clock(&self) -> Clock {
        let (own, monotonic) = (self.clone(), self.clone());
        let nanos = move || own.wall_ms() * 1_000_000 + own.readings.fetch_add(1, Ordering::SeqCst) * 1_000;
        Clock::from_nanos(nanos).with_monotonic(move || Duration::from_millis(monotonic.elapsed_ms()))
    }
}
