//! The timer of a worker: how soon it runs again if there is more work than one event should do.

use std::time::Duration;

use crate::host::Host;

/// How often a worker checks for work without any other event.
pub const TICK: Duration = Duration::from_millis(100);

/// The period while there is more to do: requests are served in between.
const FAST_TICK: Duration = Duration::from_millis(1);

/// Which root context's timer runs fast.
#[derive(Default)]
pub(super) struct FastTimer(Option<u32>);

impl FastTimer {
    pub(super) fn is_of(&self, root: u32) -> bool {
        self.0 == Some(root)
    }

    pub(super) fn forget_root(&mut self, root: u32) {
        self.0.take_if(|own| *own == root);
    }

    /// Sets the timer of `root`, whose callback is running. A timer instead of a wake, because Envoy handles all wakes
    /// of a queue, including new ones, before it serves its sockets again.
    pub(super) fn set(&mut self, host: &dyn Host, root: u32, has_more: bool) {
        match (has_more, self.0) {
            (true, None) => {
                host.set_tick(FAST_TICK);
                self.0 = Some(root);
            }
            (false, Some(own)) if own == root => {
                host.set_tick(TICK);
                self.0 = None;
            }
            (true | false, _) => {}
        }
    }
}
