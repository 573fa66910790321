//! Instances that several replicas serve: what each replica reports about them, and until when each may answer them.
//!
//! With SQLite there are no other replicas, and this costs nothing. See `docs/decisions/replicas.md`.

use crate::base::staleness_bound::StalenessBound;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policy::{Epoch, Position, Revision};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::retirement::RETIREMENT_GRACE;
use super::{Edges, InstanceError, TrackedInstance};
use crate::store::{
    AcknowledgedState, Deployment, Instance, InstanceRow, RenewalResult, ReplicaEvent, ReplicaMessage, Replication,
    StoreError,
};

/// The longest that one write lets a replica answer an instance.
const MAX_WRITE_VALIDITY: Duration = Duration::from_secs(30);

/// One write is valid for an instance's bound divided by this, if that is less than [`MAX_WRITE_VALIDITY`]. Other
/// replicas learn that much later that the instance denies.
const BOUND_PART: u32 = 4;

/// An allowance for clock drift: a validity, divided by this, is subtracted for the replica that answers, and added for
/// the others.
const DRIFT_PART: u32 = 1_000;

/// How long a request that waits for its response waits for the database.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The part of an instance's state that concerns other replicas.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplicaState {
    /// The number of its row's last change that is known here; 0 before there is one.
    pub(super) row: i64,
    /// Until when its requests may be answered here because of what was written; `None`: it must be written first.
    answers_until: Option<Duration>,
    /// Until when other replicas may answer it.
    pub(super) others_answer_until: Duration,
    /// The revision that all of its workers have, as other replicas reported.
    pub(super) applied: Option<Revision>,
    /// What this replica last reported to the others about it.
    last_reported: Option<(Epoch, Revision)>,
    /// It has ended, and some replica has notified it of that.
    pub(super) is_notified: bool,
}

impl Edges {
    /// Whether a request that was received at `at` may be answered without a write. The row records who may answer, so
    /// that no replica counts an instance as silent while another one answers it.
    pub(super) fn may_answer_without_write(&self, tracked: &TrackedInstance, at: Duration) -> bool {
        match self.store.deployment() {
            Deployment::Single => true,
            Deployment::Replicated(_) => tracked.shared.answers_until.is_some_and(|until| at <= until),
        }
    }

    /// Reads the database if an instance isn't known here: other replicas may know it.
    pub(super) async fn load_if_unknown(&self, instance: &str) -> Result<(), InstanceError> {
        let is_unknown = || !self.lock().contains_key(instance);
        match self.store.deployment() {
            Deployment::Replicated(_) if is_unknown() => Ok(self.store.refresh().await?),
            Deployment::Replicated(_) | Deployment::Single => Ok(()),
        }
    }

    /// Writes an instance to the database, and takes over what others wrote there. From then on this replica may answer
    /// it for a while. Its answers are never older than what the others knew when they counted the instance as silent.
    pub(super) async fn renew(
        &self,
        replication: &Replication,
        id: &str,
        edge: &str,
        acknowledged: Option<AcknowledgedState>,
    ) -> Result<(), InstanceError> {
        // Not tried while the database doesn't respond: the instance should soon turn to another replica.
        self.store.check_freshness()?;
        let began = self.clock.monotonic();
        let (instances, of) = (Arc::clone(&self.instances), id.to_owned());
        let current = move || {
            let all = instances.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&of).map(|tracked| (tracked.instance.clone(), tracked.shared.row, tracked.version))
        };
        let (renewed, version) =
            self.store.renew_instance(replication, acknowledged, current).await?.ok_or(InstanceError::Unknown)?;
        let RenewalResult { row, others_wrote, missing } = renewed;
        let notice = {
            let mut all = self.lock();
            let tracked = all.get_mut(id).ok_or(InstanceError::Unknown)?;
            let now = self.clock.monotonic();
            let bound = row.instance.bound;
            if others_wrote {
                tracked.shared.others_answer_until =
                    tracked.shared.others_answer_until.max(others_answer_until(now, bound));
            }
            if row.instance.ended_at.is_none() {
                tracked.shared.answers_until = tracked.shared.answers_until.max(Some(answers_until(began, bound)));
            }
            tracked.saved = tracked.saved.max(version);
            let notice = tracked.merge_row(row, RowWriter::ThisReplica, now);
            tracked.check_active(edge)?;
            notice
        };
        if notice == Some(EndNotice::Sent) {
            tokio::spawn(self.clone().end_grace_period(id.to_owned()));
        }
        missing.map_or(Ok(()), |id| Err(InstanceError::MissingWorker(id)))
    }

    /// Records, once requests are no longer answered, that this replica answers no instance, so that the others, and
    /// the next start, needn't wait for it.
    pub async fn release(&self) {
        let Deployment::Replicated(replication) = self.store.deployment() else { return };
        let now = self.clock.monotonic();
        let release = |(id, tracked): (&String, &mut TrackedInstance)| {
            tracked.shared.answers_until = None;
            // An instance that other replicas may answer must stay claimed.
            (!tracked.may_others_answer(now)).then(|| id.clone())
        };
        let ids: Vec<_> = self.lock().iter_mut().filter_map(release).collect();
        // The store has logged a failure; then the others wait.
        let _ = self.store.release_instances(replication, ids).await;
    }

    /// Records that an instance is being notified of its end. Other replicas wait for that.
    pub(crate) fn record_end_notice(&self, id: &str) {
        let is_news = self.lock().get(id).is_some_and(|tracked| tracked.is_leaving && !tracked.shared.is_notified);
        if is_news && self.store.deployment().is_replicated() {
            let (store, id) = (self.store.clone(), id.to_owned());
            // The store has logged a failure; then the instance is notified again.
            tokio::spawn(async move { store.record_end_notice(id).await });
        }
    }

    /// Reports to the others which revision all workers of an instance have, if it changed.
    pub(super) fn report_applied(&self, id: &str, epoch: Epoch) {
        let Deployment::Replicated(replication) = self.store.deployment() else { return };
        if let Some(tracked) = self.lock().get_mut(id)
            && let Some(revision) = tracked.applied.values().min().copied()
            && tracked.shared.last_reported != Some((epoch, revision))
        {
            tracked.shared.last_reported = Some((epoch, revision));
            replication.send(ReplicaMessage::Applied { instance: id.to_owned(), epoch, revision });
        }
    }

    /// Checks that the instances in memory were read at an instant at which the revision was committed: then one that
    /// isn't known here, or counts as silent, gets nothing older from any replica.
    pub(crate) async fn check_complete_at(&self, revision: Revision) -> Result<(), StoreError> {
        if self.store.has_foreign_commits() {
            return Err(StoreError::Unavailable("another program has committed to the database".to_owned()));
        }
        let is_known = || match self.store.deployment() {
            Deployment::Single => true,
            Deployment::Replicated(_) => self.read_at.load(Ordering::SeqCst) >= revision.0,
        };
        if is_known() {
            return Ok(());
        }
        let unknown = || StoreError::Unavailable("this replica hasn't read the other replicas' changes yet".to_owned());
        timeout(DATABASE_TIMEOUT, self.store.refresh()).await.map_err(|_| unknown())??;
        if is_known() { Ok(()) } else { Err(unknown()) }
    }

    /// The handler of events from the database and other replicas.
    pub(super) fn replica_listener(
        &self,
        replication: &Replication,
    ) -> impl Fn(ReplicaEvent) -> Vec<ReplicaMessage> + Send + Sync + use<> {
        let (weak_instances, this_replica) = (Arc::downgrade(&self.instances), replication.id().to_owned());
        let (clock, changed, read_at) = (self.clock.clone(), self.changed.clone(), Arc::clone(&self.read_at));
        let (head, runtime) = (self.store.head(), Handle::current());
        move |event| {
            // Weak, because the store holds this handler, and the handler's owner holds the store.
            let Some(tracked_instances) = weak_instances.upgrade() else { return Vec::new() };
            let mut all = tracked_instances.lock().unwrap_or_else(PoisonError::into_inner);
            let replies = match event {
                ReplicaEvent::StateRead { position, instances, is_whole, went_back } => {
                    let scope = if is_whole { ReadScope::All } else { ReadScope::Changes };
                    for id in merge_rows(&mut all, instances, scope, &this_replica, clock.monotonic()) {
                        runtime.spawn(end_grace_period(Arc::clone(&tracked_instances), changed.clone(), id));
                    }
                    if went_back {
                        // Reports about the lost history prove nothing. Instances report again.
                        all.values_mut().for_each(TrackedInstance::clear_applied);
                        read_at.store(position.revision.0, Ordering::SeqCst);
                    } else {
                        read_at.fetch_max(position.revision.0, Ordering::SeqCst);
                    }
                    let messages = std::iter::once(ReplicaMessage::ResendRequest).chain(last_reports(&all));
                    if is_whole { messages.collect() } else { Vec::new() }
                }
                ReplicaEvent::Messages(messages) => {
                    let head = *head.borrow();
                    messages.into_iter().flat_map(|message| receive_message(&mut all, message, head)).collect()
                }
            };
            drop(all);
            changed.send_replace(());
            replies
        }
    }
}

/// Processes another replica's message. Returns the messages to send.
fn receive_message(
    all: &mut HashMap<String, TrackedInstance>,
    message: ReplicaMessage,
    head: Position,
) -> Vec<ReplicaMessage> {
    match message {
        // A report of another epoch, or of a revision that isn't known here, is ignored.
        ReplicaMessage::Applied { instance, epoch, revision } if epoch == head.epoch && revision <= head.revision => {
            if let Some(tracked) = all.get_mut(&instance) {
                tracked.shared.applied = tracked.shared.applied.max(Some(revision));
            }
            Vec::new()
        }
        ReplicaMessage::ResendRequest => last_reports(all).collect(),
        ReplicaMessage::Applied { .. } => Vec::new(),
    }
}

/// The last report of this replica about each instance.
fn last_reports(all: &HashMap<String, TrackedInstance>) -> impl Iterator<Item = ReplicaMessage> {
    all.iter().filter_map(|(id, tracked)| {
        let (epoch, revision) = tracked.shared.last_reported?;
        Some(ReplicaMessage::Applied { instance: id.clone(), epoch, revision })
    })
}

/// Which rows were read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadScope {
    Changes,
    All,
}

/// Who wrote a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowWriter {
    /// This replica, or one that no longer answers.
    ThisReplica,
    Others,
}

/// What a row states about the end of an instance, if that wasn't known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EndNotice {
    /// It was notified, and counts until its grace period is over.
    Sent,
    /// It counts until it is notified.
    Pending,
}

/// Merges rows that were read from the database. Returns the instances whose grace period begins.
fn merge_rows(
    all: &mut HashMap<String, TrackedInstance>,
    rows: Vec<InstanceRow>,
    scope: ReadScope,
    this_replica: &str,
    now: Duration,
) -> Vec<String> {
    if scope == ReadScope::All {
        let found: HashMap<_, _> = rows.iter().map(|row| (row.instance.id.as_str(), row.changed)).collect();
        // This replica knows a later change, which was lost with a server: the instance is written again.
        for (id, tracked) in &mut *all {
            let found = found.get(id.as_str()).copied().unwrap_or_default();
            if found < tracked.shared.row {
                (tracked.shared.answers_until, tracked.shared.row) = (None, found);
                tracked.mark_unsaved();
            }
        }
    }
    let mut leaving = Vec::new();
    for row in rows {
        let id = row.instance.id.clone();
        let writer = if row.is_by_another(this_replica) { RowWriter::Others } else { RowWriter::ThisReplica };
        let tracked = all.entry(id.clone()).or_insert_with(|| {
            let living = Instance { ended_at: None, ..row.instance.clone() };
            TrackedInstance::new(living, now, 0)
        });
        if tracked.merge_row(row, writer, now) == Some(EndNotice::Sent) {
            leaving.push(id);
        }
    }
    leaving
}

/// How long one write lets a replica answer an instance.
fn write_validity(bound: StalenessBound) -> Duration {
    match bound {
        StalenessBound::Secs(secs) => MAX_WRITE_VALIDITY.min(Duration::from_secs(secs) / BOUND_PART),
        StalenessBound::Never => MAX_WRITE_VALIDITY,
    }
}

/// Until when a replica may answer if it began its write at `began`.
fn answers_until(began: Duration, bound: StalenessBound) -> Duration {
    let length = write_validity(bound);
    began.saturating_add(length.saturating_sub(length / DRIFT_PART))
}

/// Until when other replicas may answer if their write was read at `now`.
fn others_answer_until(now: Duration, bound: StalenessBound) -> Duration {
    let length = write_validity(bound);
    now.saturating_add(length).saturating_add(length / DRIFT_PART)
}

/// Stops counting an instance that has ended, after [`RETIREMENT_GRACE`].
async fn end_grace_period(
    instances: Arc<Mutex<HashMap<String, TrackedInstance>>>,
    changed: watch::Sender<()>,
    id: String,
) {
    sleep(RETIREMENT_GRACE).await;
    if let Some(tracked) = instances.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
        tracked.is_leaving = false;
    }
    changed.send_replace(());
}

impl TrackedInstance {
    /// What it acknowledged.
    pub(super) fn acknowledged_state(&self, ended: &[String]) -> AcknowledgedState {
        let (workers, version) = (self.instance.workers.clone(), self.instance.version.clone());
        AcknowledgedState { workers, ended: ended.to_vec(), version }
    }

    /// Whether another replica may answer its requests.
    pub(super) fn may_others_answer(&self, now: Duration) -> bool {
        now < self.shared.others_answer_until
    }

    fn clear_applied(&mut self) {
        self.applied.clear();
        (self.shared.applied, self.shared.last_reported) = (None, None);
    }

    /// Merges its row. An older row changes nothing.
    fn merge_row(&mut self, row: InstanceRow, writer: RowWriter, now: Duration) -> Option<EndNotice> {
        let InstanceRow { instance, changed, is_notified, .. } = row;
        if changed < self.shared.row || (changed == self.shared.row && changed > 0) {
            return None;
        }
        self.shared.row = changed;
        if writer == RowWriter::Others && instance.ended_at.is_none() {
            self.shared.others_answer_until =
                self.shared.others_answer_until.max(others_answer_until(now, instance.bound));
        }
        let (was_living, was_notified) = (self.instance.ended_at.is_none(), self.shared.is_notified);
        let has_ended = instance.ended_at.is_some();
        // Changes that this replica still has to write are kept.
        let (bound, ended_at) = (instance.bound.max(self.instance.bound), instance.ended_at.or(self.instance.ended_at));
        self.instance = Instance { bound, ended_at, ..instance };
        if !has_ended {
            return None;
        }
        self.shared.is_notified = is_notified;
        self.is_leaving |= was_living;
        self.ended.send_replace(true);
        match is_notified {
            true if !was_notified && self.is_leaving => Some(EndNotice::Sent),
            true => None,
            false => Some(EndNotice::Pending),
        }
    }
}
