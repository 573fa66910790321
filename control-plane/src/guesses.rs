//! The auth-failure limiter: limits wrong tokens, and imports of digests that are taken. A right token is never
//! counted, so never refused.
//!
//! Replicas on one database report their counts to each other: see `docs/decisions/replicas.md`.

mod digests;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Extensions;
use policy::WorkspaceId;

use self::digests::{DigestGuesses, Guessed};
use crate::clock::Clock;
use crate::problem::Problem;
use crate::store::Store;

/// The burst of wrong tokens, then one in each [`EACH`]: more than a script with an old token needs, and nothing for an
/// attacker. Guessing 190 random bits is hopeless anyway; a 429 makes clients send fewer tokens, each of which costs a
/// look-up and a line of the log.
const AT_ONCE: u32 = 100;

const EACH: Duration = Duration::from_secs(1);

/// How many addresses have a count of their own; further ones share one.
const MAX_ADDRESSES: usize = 100_000;

/// Counts wrong tokens by address, including those that other replicas count. Clones share the counts.
#[derive(Clone)]
pub struct Guesses {
    counts: Arc<Mutex<Counts>>,
    digests: Arc<Mutex<DigestGuesses>>,
    store: Store,
    clock: Clock,
}

impl Guesses {
    /// Starts with no counts. From now on it receives those of the other replicas of the same database.
    pub fn new(store: Store, clock: Clock) -> Self {
        let counts = Arc::<Mutex<Counts>>::default();
        let (others, at) = (Arc::downgrade(&counts), clock.clone());
        store.hear_of_guesses(move |guesses| {
            // Weak, because the store holds this and we hold the store.
            let Some(counts) = others.upgrade() else { return };
            let (mut counts, now) = (counts.lock().unwrap_or_else(PoisonError::into_inner), at.monotonic());
            for (of, number) in guesses {
                counts.add(of, number, now);
            }
        });
        Self { counts, digests: Arc::default(), store, clock }
    }

    /// Counts a wrong token. Returns `problem`, or 429 if there were too many.
    pub(crate) fn wrong(&self, from: Option<IpAddr>, problem: Problem) -> Problem {
        let of = counted_as(from);
        let counted = self.lock().one_more(of, self.clock.monotonic());
        match counted {
            Ok(()) => {
                self.store.tell_guess(of);
                problem
            }
            Err(wait) => Problem::too_many_attempts(wait.as_secs().saturating_add(1)),
        }
    }

    /// 429 if this workspace's imports were refused too often for digests that are taken elsewhere.
    pub(crate) fn may_import(&self, workspace: WorkspaceId) -> Result<(), Problem> {
        let wait = self.lock_digests().wait(workspace, self.clock.monotonic());
        wait.map_or(Ok(()), |wait| Err(Problem::too_many_refused_imports(wait.as_secs().saturating_add(1))))
    }

    /// Counts an import that was refused for such a digest. Logs it for platform admins when there are too many.
    pub(crate) fn import_refused(&self, workspace: WorkspaceId) {
        if self.lock_digests().one_more(workspace, self.clock.monotonic()) == Guessed::TooOften {
            tracing::warn!(
                workspace.id = %workspace,
                "imports into this workspace were refused ten times within an hour for digests that are taken elsewhere: \
                 somebody may be trying out digests; its admins can't import for an hour, platform admins can"
            );
        }
    }

    /// Forgets addresses and workspaces that have been quiet for long enough.
    pub(crate) fn forget_quiet(&self) {
        let now = self.clock.monotonic();
        self.lock().forget_quiet(now);
        self.lock_digests().forget_quiet(now);
    }

    fn lock_digests(&self) -> MutexGuard<'_, DigestGuesses> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For each address, until when its wrong tokens are not yet paid for. Each costs [`EACH`]. An address owes at most
/// [`AT_ONCE`], plus what other replicas let through before they received the count.
#[derive(Default)]
struct Counts(HashMap<IpAddr, Duration>);

impl Counts {
    /// Counts one that is let through, or returns how long to wait for the next.
    fn one_more(&mut self, of: IpAddr, now: Duration) -> Result<(), Duration> {
        let until = self.of(of, now);
        let owed = until.saturating_add(EACH).saturating_sub(now);
        match owed.checked_sub(EACH.saturating_mul(AT_ONCE)) {
            None | Some(Duration::ZERO) => {
                *until = until.saturating_add(EACH);
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }

    /// Counts what another replica let through, at most [`AT_ONCE`]: a late report covers a time in which older ones
    /// were paid for.
    fn add(&mut self, of: IpAddr, number: u32, now: Duration) {
        let until = self.of(of, now);
        *until = until.saturating_add(EACH.saturating_mul(number.min(AT_ONCE)));
    }

    fn forget_quiet(&mut self, now: Duration) {
        self.0.retain(|_, until| *until > now);
        self.0.shrink_to_fit();
    }

    fn of(&mut self, of: IpAddr, now: Duration) -> &mut Duration {
        let has_place = self.0.len() < MAX_ADDRESSES || self.0.contains_key(&of);
        let until = self.0.entry(if has_place { of } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }).or_default();
        *until = now.max(*until);
        until
    }
}

/// The address that a request comes from: the other end of its connection, or the client that a trusted proxy there
/// names. `None`: from a Unix socket, whose peers have no address.
pub(crate) fn address(request: &Extensions) -> Option<IpAddr> {
    request.get::<ConnectInfo<IpAddr>>().map(|ConnectInfo(address)| address.to_canonical())
}

/// A client that has one address of a /64 has all of them. All clients without an address count as one.
pub(crate) fn counted_as(from: Option<IpAddr>) -> IpAddr {
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

    fn counts_one(counts: &mut Counts, from: &str, now: Duration) -> bool {
        counts.one_more(counted_as(Some(from.parse().unwrap())), now).is_ok()
    }

    #[test]
    fn wrong_tokens_are_counted_by_address() {
        let mut counts = Counts::default();
        for _ in 0..AT_ONCE {
            assert!(counts_one(&mut counts, "192.0.2.1", NOW));
            assert!(counts_one(&mut counts, "2001:db8::1", NOW));
        }
        assert!(!counts_one(&mut counts, "192.0.2.1", NOW));
        assert!(counts_one(&mut counts, "192.0.2.2", NOW));
        assert!(!counts_one(&mut counts, "2001:db8::2", NOW), "the same /64");
        assert!(counts_one(&mut counts, "2001:db8:0:1::1", NOW));
    }

    #[test]
    fn each_second_of_waiting_allows_one_more_attempt() {
        let mut counts = Counts::default();
        let mut tries = |secs, of: u32| {
            let now = NOW.saturating_add(Duration::from_secs(secs));
            (0..of).filter(|_| counts_one(&mut counts, "192.0.2.1", now)).count()
        };
        for (secs, let_through) in [(0, 100), (0, 0), (1, 1), (5, 4), (1_000, 100)] {
            assert_eq!(tries(secs, 200), let_through, "after {secs} s");
        }
    }

    #[test]
    fn what_replicas_let_through_before_they_exchange_counts_is_owed() {
        let from: IpAddr = "192.0.2.1".parse().unwrap();
        let mut replicas = [Counts::default(), Counts::default(), Counts::default()];
        let mut let_through = 0;
        // Each is asked as often as it lets through, and receives the others' counts a tenth of a second later.
        for tenths in 0..10_000_u32 {
            let now = NOW.saturating_add(Duration::from_millis(u64::from(tenths) * 100));
            let told: Vec<_> = replicas
                .iter_mut()
                .map(|counts| std::iter::from_fn(|| counts.one_more(from, now).ok()).count())
                .collect();
            let_through += told.iter().sum::<usize>();
            for (at, counts) in replicas.iter_mut().enumerate() {
                let others = told.iter().enumerate().filter(|(other, _)| *other != at);
                others.for_each(|(_, number)| counts.add(from, u32::try_from(*number).unwrap(), now));
            }
        }
        // In 1,000 seconds: the burst, one a second, and what the others let through at the last moment.
        assert!((1_000..=1_103).contains(&let_through), "{let_through}");
    }

    #[test]
    fn memory_is_bounded_and_addresses_that_are_quiet_are_forgotten() {
        let mut counts = Counts::default();
        for number in 0..200_000 {
            let _ = counts.one_more(IpAddr::V4(Ipv4Addr::from_bits(number)), NOW);
            counts.add(IpAddr::V4(Ipv4Addr::from_bits(u32::MAX - number)), 1, NOW);
        }
        assert_eq!(counts.0.len(), MAX_ADDRESSES + 1);
        assert!(!counts_one(&mut counts, "192.0.2.1", NOW), "it shares the count of those without a place");
        counts.forget_quiet(NOW.saturating_add(EACH));
        assert_eq!(counts.0.len(), 1);
        assert!(counts_one(&mut counts, "192.0.2.1", NOW));
    }
}
