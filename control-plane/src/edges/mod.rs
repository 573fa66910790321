//! The instances that use the feed: what each has reported, and whether a revision is enforced on all of them.
//!
//! State that must survive a restart is on disk before the answer; what each request changes is in memory only. See
//! `docs/decisions/enforced.md`.

mod acknowledgements;
mod admission;
mod enforcement;
mod enforcement_wait;
mod removal;
mod replicas;
mod retirement;

use crate::base::staleness_bound::StalenessBound;
use crate::operations::choice::Choice as _;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::Revision;
use policy::wire::FORMAT;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;

pub(crate) use acknowledgements::Acknowledgement;
pub use enforcement::{Enforcement, EnforcementDeadline, Facts, State};
pub(crate) use removal::RemovalSummary;

use self::admission::WarnedTokens;
use self::replicas::ReplicaState;

use crate::base::clock::Clock;
use crate::base::config::Limits;
use crate::base::limit::Limit;
use crate::store::{AcknowledgedState, Deployment, Instance, Store, StoreError};

/// The id of the token file's token in an instance's list of tokens.
pub(crate) const TOKEN_FILE_ID: &str = "token-file";

/// Histogram buckets of the time from commit to enforced, in seconds: from a loopback to a bound of a day.
const ENFORCEMENT_BUCKETS: [f64; 14] =
    [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0];

/// All known instances. Clones share them.
#[derive(Clone)]
pub struct Edges {
    store: Store,
    clock: Clock,
    limits: Limits,
    instances: Arc<Mutex<HashMap<String, TrackedInstance>>>,
    /// Wakes the requests that wait for a revision to be enforced.
    changed: watch::Sender<()>,
    /// The newest revision at which all instances were read. Used only where replicas share the database.
    read_at: Arc<AtomicU64>,
    /// Becomes true at shutdown, when waiting must end.
    ending: watch::Receiver<bool>,
    time_to_enforced: Histogram,
    /// The time from commit to enforced of each of the last revisions, oldest first.
    enforcement_durations: Arc<Mutex<VecDeque<(Revision, Duration)>>>,
    /// Tokens that are near their limit of instances.
    warned_tokens: Arc<Mutex<WarnedTokens>>,
}

/// An instance, with its state that is only in memory.
#[derive(Clone, Debug)]
struct TrackedInstance {
    instance: Instance,
    /// When its last request was received, by the monotonic clock.
    last_contact_at: Duration,
    /// The revision that each worker reported; empty until the instance has acknowledged since the control plane
    /// started.
    applied: BTreeMap<String, Revision>,
    /// Grows with each change of `instance` that has to be on disk.
    version: u64,
    /// The version that is on disk.
    saved: u64,
    /// It has ended, but its grace period isn't over: it may still decide by its table.
    is_leaving: bool,
    /// The part that concerns other replicas.
    shared: ReplicaState,
    /// Becomes true when the instance ends, to wake its waiting request.
    ended: watch::Sender<bool>,
}

/// What a request states about the instance that sent it.
pub(crate) struct Contact<'a> {
    pub(crate) edge: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) token: &'a str,
    pub(crate) address: Option<IpAddr>,
    pub(crate) bound: StalenessBound,
    /// When it was received, by the monotonic clock.
    pub(crate) at: Duration,
}

/// Why an instance, or a report about one, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    #[error("the instance belongs to another edge")]
    Foreign,
    #[error("the instance has retired, or an operator has removed it")]
    Retired,
    #[error("the token has reached its limit of instances")]
    TooMany(Limit),
    #[error("the instance has more workers than its limit")]
    TooManyWorkers(Limit),
    #[error("the instance is unknown")]
    Unknown,
    #[error("the epoch differs from the control plane's")]
    UnknownEpoch,
    #[error("revision {0} is not committed")]
    Ahead(Revision),
    #[error("worker `{0}` is missing, and was not reported as `ended`")]
    MissingWorker(String),
    #[error("the instance is connected")]
    Connected,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An instance as the API and the console show it.
#[derive(Clone, Debug)]
pub(crate) struct InstanceView {
    pub(crate) instance: Instance,
    pub(crate) facts: Facts,
    /// The revision that each worker has, in the order of `instance.workers`.
    pub(crate) applied: Vec<Option<Revision>>,
    pub(crate) state: State,
    pub(crate) is_enforced: bool,
}

impl Edges {
    /// Loads the instances in `store`. The bound of each restarts now, because it isn't known when the instance
    /// last sent a request. Waiting ends when `ending` becomes true.
    pub async fn load(
        store: Store,
        clock: Clock,
        limits: Limits,
        ending: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let last_contact_at = clock.monotonic();
        let track = |instance: Instance| {
            let id = instance.id.clone();
            (id, TrackedInstance::new(instance, last_contact_at, 0))
        };
        let instances = match store.deployment() {
            Deployment::Single => store.instances().await?,
            // The listener below reads them, with the other replicas' part.
            Deployment::Replicated(_) => Vec::new(),
        };
        let instances: HashMap<_, _> = instances.into_iter().map(track).collect();
        let edges = Self {
            store,
            clock,
            limits,
            instances: Arc::new(Mutex::new(instances)),
            changed: watch::Sender::new(()),
            read_at: Arc::default(),
            ending,
            time_to_enforced: Histogram::new(ENFORCEMENT_BUCKETS),
            enforcement_durations: Arc::default(),
            warned_tokens: Arc::default(),
        };
        if let Deployment::Replicated(replication) = edges.store.deployment() {
            edges.store.subscribe_replicas(replication, edges.replica_listener(replication)).await?;
        }
        Ok(edges)
    }

    /// Records a request of an instance, known or new. When this returns, everything that must be on disk is.
    pub(crate) async fn record_request(&self, contact: &Contact<'_>) -> Result<(), InstanceError> {
        self.load_if_unknown(contact.instance).await?;
        let (is_saved, surplus) = {
            let mut all = self.lock();
            let is_new = !all.contains_key(contact.instance);
            let surplus = if is_new { self.admit(&all, contact)? } else { Vec::new() };
            let tracked = all.entry(contact.instance.to_owned()).or_insert_with(|| self.new_instance(contact));
            if is_new {
                tracing::info!(edge.id = contact.edge, instance = contact.instance, "a new instance");
            }
            tracked.check_active(contact.edge)?;
            self.record_token(tracked, contact.token);
            tracked.record_contact(contact.at, contact.bound, self.clock.now());
            (tracked.is_saved() && self.may_answer_without_write(tracked, contact.at), surplus)
        };
        if !surplus.is_empty() {
            // The store has logged a failure; the next new instance tries again.
            let _ = self.forget(surplus, TrackedInstance::has_left).await;
        }
        if is_saved { Ok(()) } else { self.save(contact.instance, contact.edge, None).await }
    }

    /// Checks that an instance has not retired: its request may have waited since it was recorded.
    pub(crate) fn check_not_ended(&self, instance: &str) -> Result<(), InstanceError> {
        match self.lock().get(instance) {
            Some(tracked) if tracked.instance.ended_at.is_none() => Ok(()),
            Some(_) => Err(InstanceError::Retired),
            None => Err(InstanceError::Unknown),
        }
    }

    /// Checks that an instance is known, retired or not, and belongs to this edge.
    pub(crate) fn check_edge(&self, instance: &str, edge: &str) -> Result<(), InstanceError> {
        match self.lock().get(instance) {
            Some(tracked) if tracked.instance.edge == edge => Ok(()),
            Some(_) => Err(InstanceError::Foreign),
            None => Err(InstanceError::Unknown),
        }
    }

    /// Completes when the instance retires, or an operator removes it.
    pub(crate) async fn wait_until_ended(&self, instance: &str) {
        let Some(mut ended) = self.lock().get(instance).map(|tracked| tracked.ended.subscribe()) else { return };
        // Fails if the instance was forgotten.
        drop(ended.wait_for(|ended| *ended).await);
    }

    /// Whether a revision is enforced now. Costs a pass over all instances.
    pub(crate) fn enforcement(&self, revision: Revision) -> Enforcement {
        let now = self.clock.monotonic();
        let found = Enforcement::of(self.lock().values().filter_map(TrackedInstance::facts), revision, now);
        // Another program's write to the database may have reverted the revision.
        if self.store.has_foreign_commits() {
            Enforcement { deadline: EnforcementDeadline::Never, ..found }
        } else {
            found
        }
    }

    /// The known instances with their state for a revision, sorted by edge and id.
    pub(crate) fn views(&self, revision: Revision) -> Vec<InstanceView> {
        let now = self.clock.monotonic();
        let view = |tracked: &TrackedInstance| {
            let facts = tracked.facts()?;
            let (state, is_enforced) = (facts.state(revision, now), facts.is_enforced(revision, now));
            let applied = tracked.instance.workers.iter().map(|worker| tracked.applied_by(&worker.id)).collect();
            Some(InstanceView { instance: tracked.instance.clone(), facts, applied, state, is_enforced })
        };
        let mut all: Vec<_> = self.lock().values().filter_map(view).collect();
        all.sort_by(|a, b| (&a.instance.edge, &a.instance.id).cmp(&(&b.instance.edge, &b.instance.id)));
        all
    }

    /// How many known instances are in each state for the newest revision, and how many revisions the worst of the
    /// connected ones lacks.
    pub(crate) fn count_by_state(&self) -> (Vec<(State, usize)>, u64) {
        let head = self.store.head().borrow().revision;
        let now = self.clock.monotonic();
        let mut counts: Vec<_> = State::ALL.iter().map(|(state, _)| (*state, 0_usize)).collect();
        let mut worst = 0_u64;
        for facts in self.lock().values().filter_map(TrackedInstance::facts) {
            let state = facts.state(head, now);
            for (_, count) in counts.iter_mut().filter(|(of, _)| *of == state) {
                *count = count.saturating_add(1);
            }
            if facts.is_connected(now) {
                worst = worst.max(facts.lag(head));
            }
        }
        (counts, worst)
    }

    /// Converts a monotonic instant to the wall clock, in whole seconds: never too early, and less than a second too
    /// late.
    pub(crate) fn wall_clock(&self, at: Duration) -> policy::UnixSeconds {
        let left = at.saturating_sub(self.clock.monotonic());
        let millis = self.clock.unix_millis().saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        // One more, for the truncated fraction of a millisecond.
        let secs = millis.saturating_add(1).div_ceil(1_000);
        policy::UnixSeconds(i64::try_from(secs).unwrap_or(i64::MAX))
    }

    /// Times from commit to enforced.
    pub(crate) fn time_to_enforced(&self) -> Histogram {
        self.time_to_enforced.clone()
    }

    /// Writes an instance to disk, in its state at the time of the write. Where replicas share the database, an
    /// acknowledgement is written with it, and another edge's instance is refused.
    async fn save(&self, id: &str, edge: &str, acknowledged: Option<AcknowledgedState>) -> Result<(), InstanceError> {
        if let Deployment::Replicated(replication) = self.store.deployment() {
            return self.renew(replication, id, edge, acknowledged).await;
        }
        let (instances, of) = (Arc::clone(&self.instances), id.to_owned());
        let current = move || {
            let all = instances.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&of).map(|tracked| (tracked.instance.clone(), tracked.version))
        };
        let saved = self.store.save_instance(current).await?.ok_or(InstanceError::Unknown)?;
        if let Some(tracked) = self.lock().get_mut(id) {
            tracked.saved = tracked.saved.max(saved);
        }
        Ok(())
    }

    fn new_instance(&self, contact: &Contact<'_>) -> TrackedInstance {
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
        TrackedInstance::new(instance, contact.at, 1)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TrackedInstance>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_replace(());
    }
}

impl TrackedInstance {
    /// An instance that hasn't acknowledged anything. Its state has to be on disk up to `version`.
    fn new(instance: Instance, last_contact_at: Duration, version: u64) -> Self {
        Self {
            instance,
            last_contact_at,
            applied: BTreeMap::new(),
            version,
            saved: 0,
            is_leaving: false,
            shared: ReplicaState::default(),
            ended: watch::Sender::new(false),
        }
    }

    /// Checks that the instance belongs to this edge, and has not retired.
    fn check_active(&self, edge: &str) -> Result<(), InstanceError> {
        if self.instance.edge != edge {
            return Err(InstanceError::Foreign);
        }
        if self.instance.ended_at.is_some() { Err(InstanceError::Retired) } else { Ok(()) }
    }

    fn record_contact(&mut self, at: Duration, bound: StalenessBound, now: policy::UnixSeconds) {
        self.last_contact_at = self.last_contact_at.max(at);
        self.instance.last_seen_at = now;
        if bound > self.instance.bound {
            self.instance.bound = bound;
            self.mark_unsaved();
        }
    }

    fn mark_unsaved(&mut self) {
        self.version = self.version.saturating_add(1);
    }

    fn is_saved(&self) -> bool {
        self.saved == self.version
    }

    /// `None` for an instance that no longer counts.
    fn facts(&self) -> Option<Facts> {
        let Self { instance, applied, shared, .. } = self;
        let facts = || {
            let applied = applied.values().min().copied().max(shared.applied);
            Facts {
                last_contact_at: self.last_contact(),
                bound: instance.bound,
                applied,
                workers: instance.workers.len(),
            }
        };
        (instance.ended_at.is_none() || self.is_leaving).then(facts)
    }

    /// The revision that a worker has.
    fn applied_by(&self, worker: &str) -> Option<Revision> {
        self.applied.get(worker).copied().max(self.shared.applied)
    }
}

impl From<InstanceError> for super::web::problem::Problem {
    fn from(refused: InstanceError) -> Self {
        match refused {
            InstanceError::Foreign => Self::foreign_instance(),
            InstanceError::Retired => Self::retired_instance(),
            InstanceError::TooMany(limit) => Self::too_many_instances(limit),
            InstanceError::TooManyWorkers(limit) => Self::too_many_workers(limit),
            InstanceError::Unknown => Self::unknown_instance(),
            InstanceError::UnknownEpoch => Self::unknown_epoch(),
            InstanceError::Ahead(revision) => Self::revision_ahead(revision),
            InstanceError::MissingWorker(id) => Self::missing_worker(&id),
            InstanceError::Connected => Self::edge_connected(),
            InstanceError::Store(error) => error.into(),
        }
    }
}
