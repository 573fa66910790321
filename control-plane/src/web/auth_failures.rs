//! The auth-failure limiter: limits wrong tokens, and imports that conflict with existing digests. A valid token is
//! never counted, so it is never refused.
//!
//! Replicas on one database report their counts to each other: see `docs/decisions/replicas.md`.

mod digest_conflicts;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use policy::WorkspaceId;

use self::digest_conflicts::{ConflictCount, DigestConflictLimiter};
use crate::base::clock::Clock;
use crate::store::Store;
use crate::web::problem::Problem;

/// The burst of wrong tokens; after it, one in each [`REFILL_INTERVAL`]. That is more than a script with an old token
/// needs, and of no use to an attacker: guessing 190 random bits is hopeless anyway. A 429 makes clients send fewer
/// tokens, each of which costs a look-up and a line of the log.
const BURST: u32 = 100;

const REFILL_INTERVAL: Duration = Duration::from_secs(1);

/// How many addresses have a count of their own. All others share one.
const MAX_ADDRESSES: usize = 100_000;

/// Counts wrong tokens by client address, including those that other replicas count. Clones share the counts.
#[derive(Clone)]
pub struct AuthFailureLimiter {
    counts: Arc<Mutex<Counts>>,
    digest_conflicts: Arc<Mutex<DigestConflictLimiter>>,
    store: Store,
    clock: Clock,
}

impl AuthFailureLimiter {
    /// Starts with no counts. From now on it receives the counts of the other replicas of the same database.
    pub fn new(store: Store, clock: Clock) -> Self {
        let counts = Arc::<Mutex<Counts>>::default();
        let (shared_counts, shared_clock) = (Arc::downgrade(&counts), clock.clone());
        store.subscribe_auth_failures(move |failures| {
            // Weak, because the store holds this closure and we hold the store.
            let Some(counts) = shared_counts.upgrade() else { return };
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let now = shared_clock.monotonic();
            for (address, number) in failures {
                counts.add_from_replica(address, number, now);
            }
        });
        Self { counts, digest_conflicts: Arc::default(), store, clock }
    }

    /// Counts a wrong token. Returns `problem`, or 429 if there were too many from this address.
    pub(crate) fn record_failure(&self, from: Option<IpAddr>, problem: Problem) -> Problem {
        let address = rate_limit_address(from);
        let recorded = self.lock().try_record(address, self.clock.monotonic());
        match recorded {
            Ok(()) => {
                self.store.report_auth_failure(address);
                problem
            }
            Err(wait) => Problem::too_many_attempts(wait.as_secs().saturating_add(1)),
        }
    }

    /// 429 if this workspace's imports were refused too often because a digest exists in another workspace.
    pub(crate) fn check_import(&self, workspace: WorkspaceId) -> Result<(), Problem> {
        let wait = self.lock_digests().wait(workspace, self.clock.monotonic());
        wait.map_or(Ok(()), |wait| Err(Problem::too_many_refused_imports(wait.as_secs().saturating_add(1))))
    }

    /// Counts an import that was refused for such a digest. Logs a warning for platform admins at the limit.
    pub(crate) fn record_refused_import(&self, workspace: WorkspaceId) {
        if self.lock_digests().record(workspace, self.clock.monotonic()) == ConflictCount::LimitReached {
            tracing::warn!(
                workspace.id = %workspace,
                "ten imports into this workspace were refused within an hour because another workspace has one of \
                 their digests: somebody may be probing for digests; its admins can't import for an hour, platform \
                 admins can"
            );
        }
    }

    /// Removes the counts of addresses and workspaces without recent failures.
    pub(crate) fn evict_idle(&self) {
        let now = self.clock.monotonic();
        self.lock().evict_idle(now);
        self.lock_digests().evict_idle(now);
    }

    fn lock_digests(&self) -> MutexGuard<'_, DigestConflictLimiter> {
        self.digest_conflicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token bucket for each address, as the instant at which it is full again. A wrong token costs [`REFILL_INTERVAL`].
/// An address owes at most [`BURST`], plus what other replicas let through before they received the count.
#[derive(Default)]
struct Counts(HashMap<IpAddr, Duration>);

impl Counts {
    /// Counts a wrong token that is let through, or returns how long to wait for the next one.
    fn try_record(&mut self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at(address, now);
        let owed = full_at.saturating_add(REFILL_INTERVAL).saturating_sub(now);
        match owed.checked_sub(REFILL_INTERVAL.saturating_mul(BURST)) {
            None | Some(Duration::ZERO) => {
                *full_at = full_at.saturating_add(REFILL_INTERVAL);
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }

    /// Counts what another replica let through, at most [`BURST`]: a late report covers a time in which the bucket was
    /// refilled.
    fn add_from_replica(&mut self, address: IpAddr, number: u32, now: Duration) {
        let full_at = self.full_at(address, now);
        *full_at = full_at.saturating_add(REFILL_INTERVAL.saturating_mul(number.min(BURST)));
    }

    fn evict_idle(&mut self, now: Duration) {
        self.0.retain(|_, full_at| *full_at > now);
        self.0.shrink_to_fit();
    }

    fn full_at(&mut self, address: IpAddr, now: Duration) -> &mut Duration {
        let has_own_count = self.0.len() < MAX_ADDRESSES || self.0.contains_key(&address);
        let counted = if has_own_count { address } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let full_at = self.0.entry(counted).or_default();
        *full_at = now.max(*full_at);
        full_at
    }
}

/// The address that a request comes from: the other end of its connection, or the client that a trusted proxy there
/// names. `None`: from a Unix socket, whose peers have no address.
pub(crate) fn address(request: &Extensions) -> Option<IpAddr> {
    request.get::<ConnectInfo<IpAddr>>().map(|ConnectInfo(address)| address.to_canonical())
}

/// The address that failures are counted by. A client that has one address of a /64 has all of them. All clients
/// without an address count as one.
pub(crate) fn rate_limit_address(from: Option<IpAddr>) -> IpAddr {
    match from {
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V4(address)) => IpAddr::V4(address),
        Some(IpAddr::V6(address)) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn is_let_through(counts: &mut Counts, from: &str, now: Duration) -> bool {
        counts.try_record(rate_limit_address(Some(from.parse().unwrap())), now).is_ok()
    }

    #[test]
    fn wrong_tokens_are_counted_by_address() {
        let mut counts = Counts::default();
        for _ in 0..BURST {
            assert!(is_let_through(&mut counts, "192.0.2.1", NOW));
            assert!(is_let_through(&mut counts, "2001:db8::1", NOW));
        }
        assert!(!is_let_through(&mut counts, "192.0.2.1", NOW));
        assert!(is_let_through(&mut counts, "192.0.2.2", NOW));
        assert!(!is_let_through(&mut counts, "2001:db8::2", NOW), "the same /64");
        assert!(is_let_through(&mut counts, "2001:db8:0:1::1", NOW));
    }

    #[test]
    fn each_second_of_waiting_allows_one_more_attempt() {
        let mut counts = Counts::default();
        let mut tries = |secs, of: u32| {
            let now = NOW.saturating_add(Duration::from_secs(secs));
            (0..of).filter(|_| is_let_through(&mut counts, "192.0.2.1", now)).count()
        };
        for (secs, let_through) in [(0, 100), (0, 0), (1, 1), (5, 4), (1_000, 100)] {
            assert_eq!(tries(secs, 200), let_through, "after {secs} s");
        }
    }

    #[test]
    fn wrong_tokens_at_several_replicas_share_one_limit() {
        let from: IpAddr = "192.0.2.1".parse().unwrap();
        let mut replicas = [Counts::default(), Counts::default(), Counts::default()];
        let mut let_through = 0;
        // Each replica gets as many wrong tokens as it lets through, and the others' counts a tenth of a second later.
        for tenths in 0..10_000_u32 {
            let now = NOW.saturating_add(Duration::from_millis(u64::from(tenths) * 100));
            let reported: Vec<_> = replicas
                .iter_mut()
                .map(|counts| std::iter::from_fn(|| counts.try_record(from, now).ok()).count())
                .collect();
            let_through += reported.iter().sum::<usize>();
            for (at, counts) in replicas.iter_mut().enumerate() {
                let others = reported.iter().enumerate().filter(|(other, _)| *other != at);
                others.for_each(|(_, number)| counts.add_from_replica(from, u32::try_from(*number).unwrap(), now));
            }
        }
        // In 1,000 seconds: the burst, one a second, and what the others let through at the last moment.
        assert!((1_000..=1_103).contains(&let_through), "{let_through}");
    }

    #[test]
    fn memory_is_bounded_and_idle_addresses_are_evicted() {
        let mut counts = Counts::default();
        for number in 0..200_000 {
            let _ = counts.try_record(IpAddr::V4(Ipv4Addr::from_bits(number)), NOW);
            counts.add_from_replica(IpAddr::V4(Ipv4Addr::from_bits(u32::MAX - number)), 1, NOW);
        }
        assert_eq!(counts.0.len(), MAX_ADDRESSES + 1);
        assert!(!is_let_through(&mut counts, "192.0.2.1", NOW), "it shares the count of all others");
        counts.evict_idle(NOW.saturating_add(REFILL_INTERVAL));
        assert_eq!(counts.0.len(), 1);
        assert!(is_let_through(&mut counts, "192.0.2.1", NOW));
    }
}
