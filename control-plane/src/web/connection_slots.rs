//! Limits connections: their total, and for each address those that have presented no valid token yet.
//!
//! When all unreserved slots are in use, a new connection is on trial: it has a moment to present a valid token, for
//! which slots are reserved, and is refused otherwise. So clients without a token can't keep out clients that have one.

use crate::base::limit::Limit;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Extensions;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::web::auth_failures::rate_limit_address;
use crate::web::problem::Problem;

/// The minimum time between two warnings that a limit is reached.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What kind of client presents a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// An admin's client of REST or the console.
    Admin,
    Edge,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotLimits {
    /// In total. The last twentieth is reserved for edges, and the twentieth before it for any client with a valid
    /// token.
    pub(crate) all: usize,
    /// On trial, in addition to those. A new trial evicts the oldest one.
    pub(crate) trials: usize,
    /// Of one address, without a valid token so far; `None`: as many as there are slots.
    pub(crate) of_address: Option<Limit>,
}

impl SlotLimits {
    fn without_token(&self) -> usize {
        self.all - self.all / 10
    }

    fn with_token(&self, client: ClientKind) -> usize {
        match client {
            ClientKind::Admin => self.all - self.all / 20,
            ClientKind::Edge => self.all,
        }
    }
}

/// The slots of one listener. Clones share them.
#[derive(Clone)]
pub(crate) struct ConnectionSlots(Arc<Shared>);

struct Shared {
    limits: SlotLimits,
    in_use: Mutex<SlotsInUse>,
}

#[derive(Default)]
struct SlotsInUse {
    /// All but those on trial.
    all: usize,
    /// Those that have presented no valid token.
    of_address: HashMap<IpAddr, u64>,
    /// Dropping a sender ends its trial. The lowest number is the oldest.
    trials: BTreeMap<u64, oneshot::Sender<()>>,
    next_trial: u64,
    warned_at: Option<Instant>,
}

/// A connection's slot, in the extensions of each of its requests. Dropping it frees the slot.
pub(crate) struct ConnectionSlot {
    slots: ConnectionSlots,
    address: Option<IpAddr>,
    state: Mutex<SlotState>,
    evicted: Mutex<Option<oneshot::Receiver<()>>>,
}

#[derive(Clone, Copy)]
enum SlotState {
    /// No valid token was presented yet.
    Unauthenticated,
    /// No valid token was presented yet, and this limit is reached.
    OnTrial {
        number: u64,
        limit: Limit,
    },
    Authenticated,
}

impl ConnectionSlots {
    pub(crate) fn new(limits: SlotLimits) -> Self {
        Self(Arc::new(Shared { limits, in_use: Mutex::default() }))
    }

    /// A slot for a connection from this address, perhaps only on trial. `None`: a proxy, whose address has no limit.
    pub(crate) fn acquire(&self, from: Option<IpAddr>) -> Arc<ConnectionSlot> {
        let address = from.map(|from| rate_limit_address(Some(from.to_canonical())));
        let mut in_use = self.in_use();
        let (state, evicted) = match self.reached_limit(&in_use, address) {
            None => {
                in_use.all += 1;
                if let Some(address) = address {
                    *in_use.of_address.entry(address).or_default() += 1;
                }
                (SlotState::Unauthenticated, None)
            }
            Some(limit) => {
                if in_use.trials.len() >= self.0.limits.trials.max(1) {
                    in_use.trials.pop_first();
                }
                let (sender, evicted) = oneshot::channel();
                let number = in_use.next_trial;
                in_use.next_trial += 1;
                in_use.trials.insert(number, sender);
                in_use.warn(limit, address);
                (SlotState::OnTrial { number, limit }, Some(evicted))
            }
        };
        drop(in_use);
        let (state, evicted) = (Mutex::new(state), Mutex::new(evicted));
        Arc::new(ConnectionSlot { slots: self.clone(), address, state, evicted })
    }

    /// The limit that a connection from this address exceeds as long as it presents no valid token.
    fn reached_limit(&self, in_use: &SlotsInUse, address: Option<IpAddr>) -> Option<Limit> {
        let of_address = address.and_then(|address| in_use.of_address.get(&address)).copied().unwrap_or_default();
        let own = self.0.limits.of_address.filter(|limit| of_address >= limit.maximum);
        own.or_else(|| (in_use.all >= self.0.limits.without_token()).then(|| self.total_limit()))
    }

    fn total_limit(&self) -> Limit {
        Limit { name: "connections", maximum: u64::try_from(self.0.limits.all).unwrap_or(u64::MAX) }
    }

    fn in_use(&self) -> MutexGuard<'_, SlotsInUse> {
        self.0.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotsInUse {
    fn release_address(&mut self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        if let Some(number) = self.of_address.get_mut(&address) {
            *number -= 1;
            if *number == 0 {
                self.of_address.remove(&address);
            }
        }
    }

    fn warn(&mut self, limit: Limit, address: Option<IpAddr>) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            let Limit { name: limit, maximum } = limit;
            let address = address.map_or_else(|| "a proxy".to_owned(), |address| address.to_string());
            warn!(limit, maximum, address, "connections without a valid token are refused: a limit is reached");
        }
    }
}

impl ConnectionSlot {
    /// Records that a request has presented a valid token. `Err`: no slot is left for such a client either.
    fn authenticate(&self, client: ClientKind) -> Result<(), Limit> {
        let mut state = self.state();
        match *state {
            SlotState::Authenticated => return Ok(()),
            SlotState::Unauthenticated => self.slots.in_use().release_address(self.address),
            SlotState::OnTrial { number, limit } => {
                let mut in_use = self.slots.in_use();
                if in_use.all >= self.slots.0.limits.with_token(client) {
                    return Err(self.slots.total_limit());
                }
                // If a newer trial evicted this one, the connection ends.
                in_use.trials.remove(&number).ok_or(limit)?;
                in_use.all += 1;
            }
        }
        *state = SlotState::Authenticated;
        Ok(())
    }

    /// The limit for which this connection is refused; `None` for one that isn't on trial.
    pub(crate) fn refused_by(&self) -> Option<Limit> {
        match *self.state() {
            SlotState::OnTrial { limit, .. } => Some(limit),
            SlotState::Unauthenticated | SlotState::Authenticated => None,
        }
    }

    /// Waits until this connection has been on trial for `time`, or is evicted. Never completes for any other.
    pub(crate) async fn trial_is_over(&self, time: Duration) {
        let evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(evicted) = evicted {
            // This also ends when a token was presented, so the state decides.
            let _ = timeout(time, evicted).await;
            if self.refused_by().is_some() {
                return;
            }
        }
        std::future::pending().await
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let state = *self.state();
        let mut in_use = self.slots.in_use();
        match state {
            SlotState::OnTrial { number, .. } => {
                in_use.trials.remove(&number);
                return;
            }
            SlotState::Unauthenticated => in_use.release_address(self.address),
            SlotState::Authenticated => {}
        }
        in_use.all -= 1;
    }
}

/// Records that a request has presented a valid token, before it is processed. 503 if there is no slot for its
/// connection.
pub(crate) fn mark_authenticated(request: &Extensions, client: ClientKind) -> Result<(), Problem> {
    // Only requests that came over no connection have no slot, as in tests.
    let Some(slot) = request.get::<Arc<ConnectionSlot>>() else { return Ok(()) };
    slot.authenticate(client).map_err(Problem::too_many_connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ADDRESS: Limit = Limit { name: "connections_per_address", maximum: 3 };

    fn slots(all: usize, trials: usize) -> ConnectionSlots {
        ConnectionSlots::new(SlotLimits { all, trials, of_address: Some(OF_ADDRESS) })
    }

    fn address(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    #[test]
    fn an_address_has_a_limit_for_connections_without_a_token_and_none_with_one() {
        let slots = slots(1_000, 10);
        let mut all: Vec<_> = (0..3).map(|_| slots.acquire(address(1))).collect();
        assert!(all.iter().all(|slot| slot.refused_by().is_none()));
        assert_eq!(slots.acquire(address(1)).refused_by(), Some(OF_ADDRESS));
        assert_eq!(slots.acquire("::ffff:192.0.2.1".parse().ok()).refused_by(), Some(OF_ADDRESS));
        assert_eq!(slots.acquire(address(2)).refused_by(), None, "another address");
        let of_a_proxy: Vec<_> = (0..100).map(|_| slots.acquire(None)).collect();
        assert!(of_a_proxy.iter().all(|slot| slot.refused_by().is_none()));
        drop(of_a_proxy);
        for _ in 0..100 {
            let slot = slots.acquire(address(1));
            assert_eq!(slot.authenticate(ClientKind::Edge), Ok(()), "on trial, and with a valid token");
            assert_eq!(slot.refused_by(), None);
            all.push(slot);
        }
        assert_eq!(all[0].authenticate(ClientKind::Admin), Ok(()));
        let unauthenticated = slots.acquire(address(1));
        assert_eq!(unauthenticated.refused_by(), None, "a connection with a token doesn't count any more");
        all.pop();
        assert_eq!(slots.acquire(address(1)).refused_by(), Some(OF_ADDRESS), "nor does a closed one");
    }

    #[test]
    fn the_last_slots_are_reserved_for_clients_with_a_token_and_the_very_last_for_edges() {
        let (slots, number) = (slots(40, 10), std::cell::Cell::new(0));
        let take = || {
            number.set(number.get() + 1);
            slots.acquire(address(number.get()))
        };
        let anybody: Vec<_> = (0..36).map(|_| take()).collect();
        assert!(anybody.iter().all(|slot| slot.refused_by().is_none()));
        let all = slots.total_limit();
        let mut authenticated = Vec::new();
        for (client, expected) in [
            (ClientKind::Admin, Ok(())),
            (ClientKind::Admin, Ok(())),
            (ClientKind::Admin, Err(all)),
            (ClientKind::Edge, Ok(())),
            (ClientKind::Edge, Ok(())),
            (ClientKind::Edge, Err(all)),
        ] {
            let slot = take();
            assert_eq!(slot.refused_by(), Some(all));
            assert_eq!(slot.authenticate(client), expected, "{client:?} after {}", authenticated.len());
            authenticated.extend(expected.is_ok().then_some(slot));
        }
        drop((anybody, authenticated));
        let in_use = slots.in_use();
        assert!((in_use.all, in_use.of_address.len(), in_use.trials.len()) == (0, 0, 0), "all slots are free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_ends_in_time_or_for_a_newer_one_but_not_with_a_token() {
        let slots = slots(0, 2);
        let is_over =
            async |slot: &ConnectionSlot| timeout(Duration::ZERO, slot.trial_is_over(Duration::MAX)).await.is_ok();
        let [oldest, newer, newest] = [1, 2, 3].map(|number| slots.acquire(address(number)));
        assert_eq!(oldest.authenticate(ClientKind::Edge), Err(slots.total_limit()));
        assert!(is_over(&oldest).await);
        assert!(!is_over(&newest).await);
        newer.trial_is_over(Duration::from_secs(5)).await;

        let authenticated = self::slots(10, 2);
        let _others: Vec<_> = (0..9).map(|number| authenticated.acquire(address(number))).collect();
        let slot = authenticated.acquire(address(9));
        assert!(slot.refused_by().is_some());
        assert_eq!(slot.authenticate(ClientKind::Edge), Ok(()));
        assert!(timeout(Duration::from_secs(60), slot.trial_is_over(Duration::from_secs(5))).await.is_err());
    }
}
