//! Outages of calls to the control plane, for Envoy's log: each failure is logged once, and so is the recovery.

use crate::keys::Clocks;
use crate::subscription::Failure;

/// How many different failures of one outage are logged: without a limit, changing statuses could fill the log.
const MAX_LOGGED: usize = 16;

/// The outage of one kind of calls. Each kind fails and recovers by itself.
#[derive(Debug)]
pub(super) struct Outage {
    /// The log message for the recovery.
    recovery_message: &'static str,
    /// The failures that were logged since the last success.
    logged: Vec<Failure>,
    since_ms: u64,
}

/// The outages of all kinds of calls.
#[derive(Debug)]
pub(super) struct Outages {
    pub(super) feed: Outage,
    pub(super) acknowledgements: Outage,
    pub(super) usage: Outage,
}

impl Default for Outages {
    fn default() -> Self {
        let outage = |recovery_message| Outage { recovery_message, logged: Vec::new(), since_ms: 0 };
        Self {
            feed: outage("the control plane answers again"),
            acknowledgements: outage("the control plane accepts acknowledgements again"),
            usage: outage("the control plane accepts usage again"),
        }
    }
}

impl Outage {
    /// The log line for a failure; `None` if it was logged before in this outage.
    pub(super) fn failed(&mut self, failure: &Failure, now: Clocks) -> Option<String> {
        if self.logged.len() >= MAX_LOGGED || self.logged.contains(failure) {
            return None;
        }
        if self.logged.is_empty() {
            self.since_ms = now.monotonic_ms;
        }
        self.logged.push(failure.clone());
        Some(failure.to_string())
    }

    /// The log line for a success; `None` if there was no outage.
    pub(super) fn succeeded(&mut self, now: Clocks) -> Option<String> {
        if self.logged.is_empty() {
            return None;
        }
        self.logged.clear();
        let secs = now.monotonic_ms.saturating_sub(self.since_ms).div_ceil(1_000);
        Some(format!("{}, after {secs} s", self.recovery_message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(monotonic_ms: u64) -> Clocks {
        Clocks { wall_ms: 0, monotonic_ms }
    }

    #[test]
    fn a_failure_is_logged_once_an_outage_and_its_end_once() {
        let mut feed = Outages::default().feed;
        assert_eq!(feed.succeeded(at(0)), None, "nothing had failed");
        assert_eq!(feed.failed(&Failure::NoAnswer, at(1_000)), Some(Failure::NoAnswer.to_string()));
        assert_eq!(feed.failed(&Failure::Unreachable(503), at(2_000)), Some(Failure::Unreachable(503).to_string()));
        for failure in [Failure::NoAnswer, Failure::Unreachable(503)] {
            assert_eq!(feed.failed(&failure, at(3_000)), None, "{failure} again");
        }
        assert_eq!(feed.succeeded(at(43_500)), Some("the control plane answers again, after 43 s".to_owned()));
        assert_eq!(feed.succeeded(at(44_000)), None, "its end was logged");
        assert_eq!(feed.failed(&Failure::NoAnswer, at(45_000)), Some(Failure::NoAnswer.to_string()), "another outage");
    }

    #[test]
    fn changing_failures_do_not_fill_the_log() {
        let mut feed = Outages::default().feed;
        let lines = (400..600).filter_map(|status| feed.failed(&Failure::Status(status), at(0))).count();
        assert_eq!(lines, MAX_LOGGED);
    }
}
