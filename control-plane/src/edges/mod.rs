//! The instances that use the feed: what each has said, and whether a revision is enforced on all of them.
//!
//! What a restart must not forget is on disk before it is answered; what each request changes is in memory only. See
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

/// What stands for the file's token among the tokens that spoke for an instance.
pub(crate) const START_TOKEN: &str = "token-file";

/// Upper ends of the times from commit to enforced that are told apart, in seconds: from a loopback to a bound of a day.
const TIMES: [f64; 14] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0];

/// All instances that are known. Clones share them.
#[derive(Clone)]
pub struct Edges {
    store: Store,
    clock: Clock,
    limits: Limits,
    known: Arc<Mutex<HashMap<String, Known>>>,
    /// Wakes whoever waits for a revision to be enforced.
    changed: watch::Sender<()>,
    /// The newest revision at which all instances were read. Only where replicas share the database.
    read_at: Arc<AtomicU64>,
    /// True when waiting has to end.
    ending: watch::Receiver<bool>,
    time_to_enforced: Histogram,
    /// How long each of the last revisions took, oldest first.
    took: Arc<Mutex<VecDeque<(Revision, Duration)>>>,
    /// Tokens whose instances come near their limit.
    near: Arc<Mutex<Near>>,
}

/// An instance, with what is not on disk.
#[derive(Clone, Debug)]
struct Known {
    instance: Instance,
    /// Receipt of its last request, by the monotonic clock.
    heard_at: Duration,
    /// What each worker said that it has; empty until the instance acknowledged since the control plane started.
    applied: BTreeMap<String, Revision>,
    /// Grows with each change of `instance` that has to be on disk.
    version: u64,
    /// The version that is on disk.
    saved: u64,
    /// It was retired a moment ago, and may still decide by what it has.
    is_leaving: bool,
    /// What other replicas have to do with it.
    shared: Shared,
    /// Becomes true when it ends, for its request that waits.
    gone: watch::Sender<bool>,
}

/// A request of an instance, as far as it says something of the instance itself.
pub(crate) struct Contact<'a> {
    pub(crate) edge: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) token: &'a str,
    pub(crate) address: Option<IpAddr>,
    pub(crate) bound: Bound,
    /// Its receipt, by the monotonic clock.
    pub(crate) at: Duration,
}

/// Why an instance, or what is said of one, is refused.
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

/// An instance, for people.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) instance: Instance,
    pub(crate) facts: Facts,
    /// What each worker has, in the order of `instance.workers`.
    pub(crate) applied: Vec<Option<Revision>>,
    pub(crate) state: State,
    pub(crate) is_enforced: bool,
}

impl Edges {
    /// The instances in `store`. The bound of each starts again: what was heard of it before the start isn't known. Waiting
    /// ends when `ending` becomes true.
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
        // Where replicas share the database they are read below, with what others have to do with them.
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

    /// Notes a request of an instance, also of one that wasn't known. On disk, as far as it must be, when this returns.
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
            // The store has logged why, if it can't; the next new one tries again.
            let _ = self.forget(surplus, Known::is_told).await;
        }
        if is_saved { Ok(()) } else { self.save(contact.instance, contact.edge, None).await }
    }

    /// That an instance has not retired: a request may have waited since it was heard.
    pub(crate) fn still(&self, instance: &str) -> Result<(), Refused> {
        match self.lock().get(instance) {
            Some(known) if known.instance.ended_at.is_none() => Ok(()),
            Some(_) => Err(Refused::Retired),
            None => Err(Refused::Unknown),
        }
    }

    /// That an instance is known, also one that has retired, and is this edge's.
    pub(crate) fn is_of(&self, instance: &str, edge: &str) -> Result<(), Refused> {
        match self.lock().get(instance) {
            Some(known) if known.instance.edge == edge => Ok(()),
            Some(_) => Err(Refused::Foreign),
            None => Err(Refused::Unknown),
        }
    }

    /// Ends when the instance retires, or an operator says that it is gone.
    pub(crate) async fn gone(&self, instance: &str) {
        let Some(mut gone) = self.lock().get(instance).map(|known| known.gone.subscribe()) else { return };
        // Fails when it was forgotten.
        drop(gone.wait_for(|gone| *gone).await);
    }

    /// Whether a revision is enforced now. Costs a pass over all instances.
    pub(crate) fn enforcement(&self, revision: Revision) -> Enforcement {
        let now = self.clock.monotonic();
        let found = Enforcement::of(self.lock().values().filter_map(Known::facts), revision, now);
        // What another program wrote into the database may have undone it.
        if self.store.has_foreign_commits() { Enforcement { bounded: Bounded::Never, ..found } } else { found }
    }

    /// The known instances as to a revision, by edge and id.
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

    /// How many known instances are in each state, as to the newest revision, and how many revisions the worst of those that
    /// are connected lacks.
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

    /// The monotonic instant as the wall clock has it, in whole seconds: never too early, and less than a second too late.
    pub(crate) fn wall(&self, at: Duration) -> policy::UnixSeconds {
        let left = at.saturating_sub(self.clock.monotonic());
        let millis = self.clock.unix_millis().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        // The part of a millisecond that was cut off counts, too.
        let secs = millis.saturating_add(1).div_ceil(1_000);
        policy::UnixSeconds(i64::try_from(secs).unwrap_or(i64::MAX))
    }

    /// Times from commit to enforced.
    pub(crate) fn time_to_enforced(&self) -> Histogram {
        self.time_to_enforced.clone()
    }

    /// Writes an instance to disk, as it is when the store comes to it. Where replicas share the database, `says` is what it
    /// acknowledged, and another edge's instance is refused.
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
    /// One that has acknowledged nothing, of which `version` has to be on disk.
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

    /// That it may be spoken for in the name of this edge.
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

    /// `None` for one that counts no longer.
    fn facts(&self) -> Option<Facts> {
        let Self { instance, applied, shared, .. } = self;
        let facts = || {
            let applied = applied.values().min().copied().max(shared.applied);
            Facts { heard_at: self.last_heard(), bound: instance.bound, applied, workers: instance.workers.len() }
        };
        (instance.ended_at.is_none() || self.is_leaving).then(facts)
    }

    /// What a worker has.
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
