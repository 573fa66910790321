//! A worker's turn: how long it works before its event loop looks at sockets again.

use crate::host::Host;

/// The time that a turn takes, in microseconds: requests wait meanwhile.
const TURN_US: u64 = 1_000;

/// Bytes of work between two looks at the clock: some ten microseconds, of which a look takes less than one.
const LOOK_BYTES: usize = if cfg!(any(test, feature = "model")) { 1 } else { 4 << 10 };

/// A turn that has begun.
pub struct Turn {
    ends_us: u64,
    /// Bytes of work since the last look at the clock.
    unseen: usize,
    is_over: bool,
}

impl Turn {
    pub fn begin(host: &dyn Host) -> Self {
        Self { ends_us: host.monotonic_us().saturating_add(TURN_US), unseen: 0, is_over: false }
    }

    /// Notes that so many bytes were worked on. Answers whether the turn is over.
    pub fn is_over_after(&mut self, host: &dyn Host, bytes: usize) -> bool {
        self.unseen = self.unseen.saturating_add(bytes);
        if self.unseen >= LOOK_BYTES {
            self.unseen = 0;
            self.is_over = host.monotonic_us() >= self.ends_us;
        }
        self.is_over
    }
}
