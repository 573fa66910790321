//! The instances that use the feed: what each has reported, and whether a revision is enforced on all of them.
//!
//! What must survive a restart is on disk before the answer; what each request changes is in memory only. See
//! `docs/decisions/enforced.md`.

mod acknowledged;
mod admission;
mod ended;
mod removed;
mod replicas;
mod rules;
mod waiting;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::Revision;
use policy::wire::FORMAT;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;

pub(crate) use acknowledged::Acknowledgement;
pub(crate) use removed::Removed;
pub use rules::{Bound, Bounded, Enforcement, Facts, State};

use self::admission::Near;
use self::replicas::Shared;

use crate::clock::Clock;
use crate::config::Limits;
use crate::problem::Limit;
use crate::store::{Instance, Says, Store, StoreError};

/// The id of the token file's token in an instance's list of tokens.
pub(crate) const START_TOKEN: &str = "token-file";

/// Histogram buckets of the time from commit to enforced, in seconds: from a loopback to a bound of a day.
const TIMES: [f64; 14] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0];

/// All known instances. Clones share them.
#[derive(Clone)]
pub struct Edges {
    store: Store,
    clock: Clock,
    limits: Limits,
    known: Arc<Mutex<HashMap<String, Known>>>,
    /// Wakes the requests that wait for a revision to be enforced.
    changed: watch::Sender<()>,
    /// The newest revision as of which all instances were read. Only where replicas share the database.
    read_at: Arc<AtomicU64>,
    /// True when waiting must end.
    ending: watch::Receiver<bool>,
    time_to_enforced: Histogram,
    /// How long each of the last revisions took, oldest first.
    took: Arc<Mutex<VecDeque<(Revision, Duration)>>>,
    /// Tokens whose instances come near their limit.
    near: Arc<Mutex<Near>>,
}

/// An instance, with its state that is only in memory.
#[derive(Clone, Debug)]
struct Known {
    instance: Instance,
    /// When its last request was received, by the monotonic clock.
    heard_at: Duration,
    /// The revision that each worker reported; empty until the instance has acknowledged since the control plane
    /// started.
    applied: BTreeMap<String, Revision>,
    /// Grows with each change of `instance` that has to be on disk.
    version: u64,
    /// The version that is on disk.
    saved: u64,
    /// It retired a moment ago, and may still decide by its table.
    is_leaving: bool,
    /// What concerns other replicas.
    shared: Shared,
    /// Becomes true when the instance ends, to wake its waiting request.
    gone: watch::Sender<bool>,
}

/// What a request states about the instance that sent it.
pub(crate) struct Contact<'a> {
    pub(crate) edge: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) token: &'a str,
    pub(crate) address: Option<IpAddr>,
    pub(crate) bound: Bound,
    /// When it was received, by the monotonic clock.
    pub(crate) at: Duration,
}

/// Why an instance, or a report about one, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the instance belongs to another edge")]
    Foreign,
    #[error("the instance has retired, or an operator said that it is gone")]
    Retired,
    #[error("the token has as many instances as it may have")]
    TooMany(Limit),
    #[error("the instance has more workers than it may have")]
    TooManyWorkers(Limit),
    #[error("no such instance is known")]
    Unknown,
    #[error("the epoch is another one")]
    UnknownEpoch,
    #[error("revision {0} is not there yet")]
    Ahead(Revision),
    #[error("worker `{0}` is missing, and was not named `ended`")]
    MissingWorker(String),
    #[error("the instance is connected")]
    Connected,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An instance, as people see it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) instance: Instance,
    pub(crate) facts: Facts,
    /// The revision that each worker has, in the order of `instance.workers`.
    pub(crate) applied: Vec<Option<Revision>>,
    pub(crate) state: State,
    pub(crate) is_enforced: bool,
}

impl Edges {
    /// Loads the instances in `store`. The bound of each restarts now, because it isn't known when the instance was
    /// last heard. Waiting ends when `ending` becomes true.
    pub async fn load(
        store: Store,
        clock: Clock,
        limits: Limits,
        ending: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let heard_at = clock.monotonic();
        let known = |instance: Instance| {
            let id = instance.id.clone();
            (id, Known::new(instance, heard_at, 0))
        };
        // Where replicas share the database, the instances are read below, with what concerns other replicas.
        let instances = if store.is_shared() { Vec::new() } else { store.instances().await? };
        let known: HashMap<_, _> = instances.into_iter().map(known).collect();
        let edges = Self {
            store,
            clock,
            limits,
            known: Arc::new(Mutex::new(known)),
            changed: watch::Sender::new(()),
            read_at: Arc::default(),
            ending,
            time_to_enforced: Histogram::new(TIMES),
            took: Arc::default(),
            near: Arc::default(),
        };
        edges.store.listen(edges.ear()).await?;
        Ok(edges)
    }

    /// Records a request of an instance, known or new. What must be on disk is there when this returns.
    pub(crate) async fn heard(&self, contact: &Contact<'_>) -> Result<(), Refused> {
        self.look_for(contact.instance).await?;
        let (is_saved, surplus) = {
            let mut all = self.lock();
            let is_new = !all.contains_key(contact.instance);
            let surplus = if is_new { self.admit(&all, contact)? } else { Vec::new() };
            let known = all.entry(contact.instance.to_owned()).or_insert_with(|| self.first_seen(contact));
            if is_new {
                tracing::info!(edge.id = contact.edge, instance = contact.instance, "a new instance");
            }
            known.admits(contact.edge)?;
            self.vouch(known, contact.token);
            known.hear(contact.at, contact.bound, self.clock.now());
            (known.is_saved() && self.may_answer(known, contact.at), surplus)
        };
        if !surplus.is_empty() {
            // The store has logged a failure; the next new instance tries again.
            let _ = self.forget(surplus, Known::is_told).await;
        }
        if is_saved { Ok(()) } else { self.save(contact.instance, contact.edge, None).await }
    }

    /// Checks that an instance has not retired: its request may have waited since it was recorded.
    pub(crate) fn still(&self, instance: &str) -> Result<(), Refused> {
        match self.lock().get(instance) {
            Some(known) if known.instance.ended_at.is_none() => Ok(()),
            Some(_) => Err(Refused::Retired),
            None => Err(Refused::Unknown),
        }
    }

    /// Checks that an instance is known, retired or not, and belongs to this edge.
    pub(crate) fn is_of(&self, instance: &str, edge: &str) -> Result<(), Refused> {
        match self.lock().get(instance) {
            Some(known) if known.instance.edge == edge => Ok(()),
            Some(_) => Err(Refused::Foreign),
            None => Err(Refused::Unknown),
        }
    }

    /// Completes when the instance retires, or an operator removes it.
    pub(crate) async fn gone(&self, instance: &str) {
        let Some(mut gone) = self.lock().get(instance).map(|known| known.gone.subscribe()) else { return };
        // Fails if the instance was forgotten.
        drop(gone.wait_for(|gone| *gone).await);
    }

    /// Whether a revision is enforced now. Costs a pass over all instances.
    pub(crate) fn enforcement(&self, revision: Revision) -> Enforcement {
        let now = self.clock.monotonic();
        let found = Enforcement::of(self.lock().values().filter_map(Known::facts), revision, now);
        // Another program's write to the database may have undone it.
        if self.store.has_foreign_commits() { Enforcement { bounded: Bounded::Never, ..found } } else { found }
    }

    /// The known instances with their state for a revision, sorted by edge and id.
    pub(crate) fn seen(&self, revision: Revision) -> Vec<Seen> {
        let now = self.clock.monotonic();
        let seen = |known: &Known| {
            let facts = known.facts()?;
            let (state, is_enforced) = (facts.state(revision, now), facts.is_enforced(revision, now));
            let applied = known.instance.workers.iter().map(|worker| known.applied_by(&worker.id)).collect();
            Some(Seen { instance: known.instance.clone(), facts, applied, state, is_enforced })
        };
        let mut all: Vec<_> = self.lock().values().filter_map(seen).collect();
        all.sort_by(|a, b| (&a.instance.edge, &a.instance.id).cmp(&(&b.instance.edge, &b.instance.id)));
        all
    }

    /// How many known instances are in each state for the newest revision, and how many revisions the worst of the
    /// connected ones lacks.
    pub(crate) fn counted(&self) -> ([usize; State::ALL.len()], u64) {
        let head = self.store.head().borrow().revision;
        let now = self.clock.monotonic();
        let (mut counts, mut worst) = ([0_usize; State::ALL.len()], 0_u64);
        for facts in self.lock().values().filter_map(Known::facts) {
            let state = facts.state(head, now);
            for (count, of) in counts.iter_mut().zip(State::ALL) {
                *count = count.saturating_add(usize::from(of == state));
            }
            if facts.is_connected(now) {
                worst = worst.max(facts.lag(head));
            }
        }
        (counts, worst)
    }

    /// Converts a monotonic instant to the wall clock, in whole seconds: never too early, and less than a second too
    /// late.
    pub(crate) fn wall(&self, at: Duration) -> policy::UnixSeconds {
        let left = at.saturating_sub(self.clock.monotonic());
        let millis = self.clock.unix_millis().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        // One more, for the fraction of a millisecond that was cut off.
        let secs = millis.saturating_add(1).div_ceil(1_000);
        policy::UnixSeconds(i64::try_from(secs).unwrap_or(i64::MAX))
    }

    /// Times from commit to enforced.
    pub(crate) fn time_to_enforced(&self) -> Histogram {
        self.time_to_enforced.clone()
    }

    /// Writes an instance to disk, in its state when the store gets to it. Where replicas share the database, an
    /// acknowledgement is written with it, and another edge's instance is refused.
    async fn save(&self, id: &str, edge: &str, says: Option<Says>) -> Result<(), Refused> {
        if self.store.is_shared() {
            return self.renew(id, edge, says).await;
        }
        let (known, of) = (Arc::clone(&self.known), id.to_owned());
        let current = move || {
            let all = known.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&of).map(|known| (known.instance.clone(), known.version))
        };
        let saved = self.store.save_instance(current).await?.ok_or(Refused::Unknown)?;
        if let Some(known) = self.lock().get_mut(id) {
            known.saved = known.saved.max(saved);
        }
        Ok(())
    }

    fn first_seen(&self, contact: &Contact<'_>) -> Known {
        let now = self.clock.now();
        let instance = Instance {
            id: contact.instance.to_owned(),
            edge: contact.edge.to_owned(),
            tokens: vec![contact.token.to_owned()],
            address: contact.address,
            version: None,
            format: FORMAT,
            acknowledged: false,
            bound: contact.bound,
            workers: Vec::new(),
            first_seen_at: now,
            last_seen_at: now,
            ended_at: None,
        };
        Known::new(instance, contact.at, 1)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_replace(());
    }
}

impl Known {
    /// An instance that has acknowledged nothing. Its state has to be on disk up to `version`.
    fn new(instance: Instance, heard_at: Duration, version: u64) -> Self {
        Self {
            instance,
            heard_at,
            applied: BTreeMap::new(),
            version,
            saved: 0,
            is_leaving: false,
            shared: Shared::default(),
            gone: watch::Sender::new(false),
        }
    }

    /// Checks that the instance belongs to this edge, and has not retired.
    fn admits(&self, edge: &str) -> Result<(), Refused> {
        if self.instance.edge != edge {
            return Err(Refused::Foreign);
        }
        if self.instance.ended_at.is_some() { Err(Refused::Retired) } else { Ok(()) }
    }

    fn hear(&mut self, at: Duration, bound: Bound, now: policy::UnixSeconds) {
        self.heard_at = self.heard_at.max(at);
        self.instance.last_seen_at = now;
        if bound > self.instance.bound {
            self.instance.bound = bound;
            self.must_save();
        }
    }

    fn must_save(&mut self) {
        self.version = self.version.saturating_add(1);
    }

    fn is_saved(&self) -> bool {
        self.saved == self.version
    }

    /// `None` for one that no longer counts.
    fn facts(&self) -> Option<Facts> {
        let Self { instance, applied, shared, .. } = self;
        let facts = || {
            let applied = applied.values().min().copied().max(shared.applied);
            Facts { heard_at: self.last_heard(), bound: instance.bound, applied, workers: instance.workers.len() }
        };
        (instance.ended_at.is_none() || self.is_leaving).then(facts)
    }

    /// The revision that a worker has.
    fn applied_by(&self, worker: &str) -> Option<Revision> {
        self.applied.get(worker).copied().max(self.shared.applied)
    }
}

impl From<Refused> for crate::problem::Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Foreign => Self::foreign_instance(),
            Refused::Retired => Self::retired_instance(),
            Refused::TooMany(limit) => Self::too_many_instances(limit),
            Refused::TooManyWorkers(limit) => Self::too_many_workers(limit),
            Refused::Unknown => Self::unknown_instance(),
            Refused::UnknownEpoch => Self::unknown_epoch(),
            Refused::Ahead(revision) => Self::revision_ahead(revision),
            Refused::MissingWorker(id) => Self::missing_worker(&id),
            Refused::Connected => Self::edge_connected(),
            Refused::Store(error) => error.into(),
        }
    }
}
