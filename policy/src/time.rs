//! Instants, as whole seconds since 1970.

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// Before every other instant: the end of a secret that was ended immediately, whatever an edge's clock shows.
    pub const DISTANT_PAST: Self = Self(i64::MIN);

    /// After every other instant: the end of a key that never expires.
    pub const DISTANT_FUTURE: Self = Self(i64::MAX);

    /// True from this instant on, its own second included.
    pub fn is_reached(self, now: Self) -> bool {
        self <= now
    }

    /// This instant plus `secs`, clamped to the range instead of overflowing.
    pub fn saturating_add_secs(self, secs: i64) -> Self {
        Self(self.0.saturating_add(secs))
    }
}

#[cfg(test)]
mod tests {
    use super::UnixSeconds;
    use crate::fixtures::test;

    #[test]
    fn an_instant_is_reached_in_its_own_second() {
        let at = UnixSeconds(1_000);
        assert!(!at.is_reached(UnixSeconds(999)));
        assert!(at.is_reached(UnixSeconds(1_000)));
        assert!(at.is_reached(UnixSeconds(1_001)));
    }

    #[test]
    fn the_distant_instants_hold_at_any_clock() {
        assert!(UnixSeconds::DISTANT_PAST.is_reached(UnixSeconds(i64::MIN)));
        assert!(!UnixSeconds::DISTANT_FUTURE.is_reached(UnixSeconds(i64::MAX - 1)));
        assert_eq!(UnixSeconds::DISTANT_FUTURE.saturating_add_secs(1), UnixSeconds::DISTANT_FUTURE);
    }
}
