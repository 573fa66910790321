//! A time slice: how long a worker works before its event loop serves its sockets again.

use crate::host::Host;

/// The length of a time slice, in microseconds: requests wait meanwhile.
const TIME_SLICE_US: u64 = 1_000;

/// Bytes of work between two clock readings: about ten microseconds, of which a reading takes less than one.
const CHECK_BYTES: usize = if cfg!(any(test, feature = "model")) { 1 } else { 4 << 10 };

/// A time slice that has begun.
pub(super) struct TimeSlice {
    ends_us: u64,
    /// Bytes of work since the last clock reading.
    unchecked: usize,
    is_over: bool,
}

impl TimeSlice {
    pub(super) fn begin(host: &dyn Host) -> Self {
        Self { ends_us: host.monotonic_us().saturating_add(TIME_SLICE_US), unchecked: 0, is_over: false }
    }

    /// Counts bytes of work. Returns whether the time slice is over.
    pub(super) fn is_over_after(&mut self, host: &dyn Host, bytes: usize) -> bool {
        self.unchecked = self.unchecked.saturating_add(bytes);
        if self.unchecked >= CHECK_BYTES {
            self.unchecked = 0;
            self.is_over = host.monotonic_us() >= self.ends_us;
        }
        self.is_over
    }
}
