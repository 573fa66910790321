//! How often a client may show a wrong token. A right one is never counted, so never refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::problem::Problem;

/// Wrong tokens at once, then one a second: more than a script with an old token needs, and nothing for a guesser. What this
/// spares is look-ups and lines of the log; guessing 190 random bits is hopeless anyway.
const AT_ONCE: NonZeroU32 = match NonZeroU32::new(100) {
    Some(number) => number,
    None => NonZeroU32::MIN,
};

/// Addresses that are told apart; further ones share a count.
const MAX_ADDRESSES: usize = 100_000;

/// Counts wrong tokens by address. Clones share the counts.
#[derive(Clone)]
pub struct Guesses(Arc<Limiter>);

type Limiter = RateLimiter<IpAddr, DashMapStateStore<IpAddr>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

impl Default for Guesses {
    fn default() -> Self {
        let quota = Quota::per_second(NonZeroU32::MIN).allow_burst(AT_ONCE);
        Self(Arc::new(RateLimiter::dashmap_with_clock(quota, MonotonicClock)))
    }
}

impl Guesses {
    /// Counts a wrong token: answers with `problem`, or, where there were too many, with 429.
    pub(crate) fn wrong(&self, from: Option<IpAddr>, problem: Problem) -> Problem {
        let of = if self.0.len() < MAX_ADDRESSES { counted_as(from) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        match self.0.check_key(&of) {
            Ok(()) => problem,
            Err(until) => {
                let wait = until.wait_time_from(MonotonicClock.now());
                Problem::too_many_attempts(wait.as_secs().saturating_add(1))
            }
        }
    }

    /// Forgets addresses that have been quiet for long enough.
    pub(crate) fn forget_quiet(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}

/// The other end of a request's connection. Behind a proxy it is the proxy's: a header could say anything.
pub(crate) fn address(request: &Extensions) -> Option<IpAddr> {
    request.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical())
}

/// Who has one address of a /64 has all of them.
fn counted_as(from: Option<IpAddr>) -> IpAddr {
    match from {
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V4(address)) => IpAddr::V4(address),
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_are_counted_by_address() {
        let guesses = Guesses::default();
        let code = |from: &str| {
            let from = Some(from.parse().unwrap());
            guesses.wrong(from, Problem::unauthenticated("bad-token", "")).code()
        };
        for _ in 0..AT_ONCE.get() {
            assert_eq!(code("192.0.2.1"), "bad-token");
            assert_eq!(code("2001:db8::1"), "bad-token");
        }
        assert_eq!(code("192.0.2.1"), "too-many-attempts");
        assert_eq!(code("192.0.2.2"), "bad-token");
        assert_eq!(code("2001:db8::2"), "too-many-attempts", "the same /64");
        assert_eq!(code("2001:db8:0:1::1"), "bad-token");
    }
}
