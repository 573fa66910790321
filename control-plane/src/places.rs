//! Limits connections: in all, and by address those that have presented no valid token yet.
//!
//! When all unreserved places are taken, a connection is on trial: it has a moment to present a valid token, for which
//! places are reserved, and is refused otherwise. So clients without a token can't keep out those that have one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Extensions;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::guesses::counted_as;
use crate::problem::{Limit, Problem};

/// The least time between two warnings that places are short.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Who presents a valid token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    /// A client of REST or the console.
    Admin,
    Edge,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// In all. The last twentieth is reserved for edges, and the one before it for anybody with a valid token.
    pub(crate) all: usize,
    /// On trial, in addition to those; the oldest makes room for a new one.
    pub(crate) trials: usize,
    /// Of one address that have presented no valid token; `None`: as many as there are places.
    pub(crate) of_address: Option<Limit>,
}

impl Most {
    fn for_anybody(&self) -> usize {
        self.all - self.all / 10
    }

    fn with_token(&self, bearer: Bearer) -> usize {
        match bearer {
            Bearer::Admin => self.all - self.all / 20,
            Bearer::Edge => self.all,
        }
    }
}

/// The places of one listener. Clones share them.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    most: Most,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// Without those on trial.
    all: usize,
    /// Those that have presented no valid token.
    of_address: HashMap<IpAddr, u64>,
    /// Dropping a sender ends its trial. The lowest number is the oldest.
    trials: BTreeMap<u64, oneshot::Sender<()>>,
    next_trial: u64,
    warned_at: Option<Instant>,
}

/// A connection's place, in the extensions of each of its requests. Dropping it frees the place.
pub(crate) struct Place {
    places: Places,
    address: Option<IpAddr>,
    standing: Mutex<Standing>,
    evicted: Mutex<Option<oneshot::Receiver<()>>>,
}

#[derive(Clone, Copy)]
enum Standing {
    /// No valid token was presented.
    Unproven,
    /// None was presented, and this limit is reached.
    OnTrial {
        number: u64,
        limit: Limit,
    },
    Proven,
}

impl Places {
    pub(crate) fn new(most: Most) -> Self {
        Self(Arc::new(Shared { most, taken: Mutex::default() }))
    }

    /// A place for a connection from this address, perhaps only on trial. `None`: a proxy, whose address has no limit.
    pub(crate) fn take(&self, from: Option<IpAddr>) -> Arc<Place> {
        let address = from.map(|from| counted_as(Some(from.to_canonical())));
        let mut taken = self.taken();
        let (standing, evicted) = match self.reached(&taken, address) {
            None => {
                taken.all += 1;
                if let Some(address) = address {
                    *taken.of_address.entry(address).or_default() += 1;
                }
                (Standing::Unproven, None)
            }
            Some(limit) => {
                if taken.trials.len() >= self.0.most.trials.max(1) {
                    taken.trials.pop_first();
                }
                let (sender, evicted) = oneshot::channel();
                let number = taken.next_trial;
                taken.next_trial += 1;
                taken.trials.insert(number, sender);
                taken.warn(limit, address);
                (Standing::OnTrial { number, limit }, Some(evicted))
            }
        };
        drop(taken);
        let (standing, evicted) = (Mutex::new(standing), Mutex::new(evicted));
        Arc::new(Place { places: self.clone(), address, standing, evicted })
    }

    /// The limit that keeps out a connection from this address, as long as it presents no valid token.
    fn reached(&self, taken: &Taken, address: Option<IpAddr>) -> Option<Limit> {
        let of_address = address.and_then(|address| taken.of_address.get(&address)).copied().unwrap_or_default();
        let own = self.0.most.of_address.filter(|limit| of_address >= limit.maximum);
        own.or_else(|| (taken.all >= self.0.most.for_anybody()).then(|| self.all()))
    }

    fn all(&self) -> Limit {
        Limit { name: "connections", maximum: u64::try_from(self.0.most.all).unwrap_or(u64::MAX) }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn leave(&mut self, address: Option<IpAddr>) {
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
            warn!(limit, maximum, address, "connections without a right token are refused: a limit is reached");
        }
    }
}

impl Place {
    /// Notes that a request has presented a valid token. `Err`: there is no place left for its bearer either.
    fn show(&self, bearer: Bearer) -> Result<(), Limit> {
        let mut standing = self.standing();
        match *standing {
            Standing::Proven => return Ok(()),
            Standing::Unproven => self.places.taken().leave(self.address),
            Standing::OnTrial { number, limit } => {
                let mut taken = self.places.taken();
                if taken.all >= self.places.0.most.with_token(bearer) {
                    return Err(self.places.all());
                }
                // If this trial was the oldest, it has made room for another: the connection ends.
                taken.trials.remove(&number).ok_or(limit)?;
                taken.all += 1;
            }
        }
        *standing = Standing::Proven;
        Ok(())
    }

    /// Why this connection is refused; `None` for one that isn't on trial.
    pub(crate) fn refused(&self) -> Option<Limit> {
        match *self.standing() {
            Standing::OnTrial { limit, .. } => Some(limit),
            Standing::Unproven | Standing::Proven => None,
        }
    }

    /// Waits until this connection has been on trial for `time`, or has to make room. Never completes for any other.
    pub(crate) async fn trial_is_over(&self, time: Duration) {
        let evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(evicted) = evicted {
            // Whatever the reason: it may also be that a token was presented.
            let _ = timeout(time, evicted).await;
            if self.refused().is_some() {
                return;
            }
        }
        std::future::pending().await
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let standing = *self.standing();
        let mut taken = self.places.taken();
        match standing {
            Standing::OnTrial { number, .. } => {
                taken.trials.remove(&number);
                return;
            }
            Standing::Unproven => taken.leave(self.address),
            Standing::Proven => {}
        }
        taken.all -= 1;
    }
}

/// Notes that a request has presented a valid token, before anything is done for it. 503 if there is no place for its
/// connection.
pub(crate) fn shown(request: &Extensions, bearer: Bearer) -> Result<(), Problem> {
    // Only requests that came over no connection have no place.
    request.get::<Arc<Place>>().map_or(Ok(()), |place| place.show(bearer).map_err(Problem::too_many_connections))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_ADDRESS: Limit = Limit { name: "connections_per_address", maximum: 3 };

    fn places(all: usize, trials: usize) -> Places {
        Places::new(Most { all, trials, of_address: Some(OF_ADDRESS) })
    }

    fn address(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    #[test]
    fn an_address_has_places_for_connections_without_a_token_and_any_number_with_one() {
        let places = places(1_000, 10);
        let mut all: Vec<_> = (0..3).map(|_| places.take(address(1))).collect();
        assert!(all.iter().all(|place| place.refused().is_none()));
        assert_eq!(places.take(address(1)).refused(), Some(OF_ADDRESS));
        assert_eq!(places.take("::ffff:192.0.2.1".parse().ok()).refused(), Some(OF_ADDRESS));
        assert_eq!(places.take(address(2)).refused(), None, "another address");
        let of_a_proxy: Vec<_> = (0..100).map(|_| places.take(None)).collect();
        assert!(of_a_proxy.iter().all(|place| place.refused().is_none()));
        drop(of_a_proxy);
        for _ in 0..100 {
            let place = places.take(address(1));
            assert_eq!(place.show(Bearer::Edge), Ok(()), "on trial, and with a right token");
            assert_eq!(place.refused(), None);
            all.push(place);
        }
        assert_eq!(all[0].show(Bearer::Admin), Ok(()));
        let unproven = places.take(address(1));
        assert_eq!(unproven.refused(), None, "one that has shown a token doesn't count any more");
        all.pop();
        assert_eq!(places.take(address(1)).refused(), Some(OF_ADDRESS), "nor does one that was closed");
    }

    #[test]
    fn the_last_places_are_for_those_with_a_token_and_the_very_last_for_edges() {
        let (places, number) = (places(40, 10), std::cell::Cell::new(0));
        let take = || {
            number.set(number.get() + 1);
            places.take(address(number.get()))
        };
        let anybody: Vec<_> = (0..36).map(|_| take()).collect();
        assert!(anybody.iter().all(|place| place.refused().is_none()));
        let all = places.all();
        let mut proven = Vec::new();
        for (bearer, expected) in [
            (Bearer::Admin, Ok(())),
            (Bearer::Admin, Ok(())),
            (Bearer::Admin, Err(all)),
            (Bearer::Edge, Ok(())),
            (Bearer::Edge, Ok(())),
            (Bearer::Edge, Err(all)),
        ] {
            let place = take();
            assert_eq!(place.refused(), Some(all));
            assert_eq!(place.show(bearer), expected, "{bearer:?} after {}", proven.len());
            proven.extend(expected.is_ok().then_some(place));
        }
        drop((anybody, proven));
        let taken = places.taken();
        assert!((taken.all, taken.of_address.len(), taken.trials.len()) == (0, 0, 0), "all places are free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_ends_in_time_or_for_a_newer_one_but_not_with_a_token() {
        let places = places(0, 2);
        let is_over = async |place: &Place| timeout(Duration::ZERO, place.trial_is_over(Duration::MAX)).await.is_ok();
        let [oldest, newer, newest] = [1, 2, 3].map(|number| places.take(address(number)));
        assert_eq!(oldest.show(Bearer::Edge), Err(places.all()));
        assert!(is_over(&oldest).await);
        assert!(!is_over(&newest).await);
        newer.trial_is_over(Duration::from_secs(5)).await;

        let proven = self::places(10, 2);
        let _others: Vec<_> = (0..9).map(|number| proven.take(address(number))).collect();
        let place = proven.take(address(9));
        assert!(place.refused().is_some());
        assert_eq!(place.show(Bearer::Edge), Ok(()));
        assert!(timeout(Duration::from_secs(60), place.trial_is_over(Duration::from_secs(5))).await.is_err());
    }
}
