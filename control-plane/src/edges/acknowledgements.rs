//! Acknowledgements: what each worker of an instance has applied.

use crate::base::staleness_bound::StalenessBound;
use std::collections::BTreeMap;
use std::time::Duration;

use policy::{Epoch, Position, Revision};

use super::{Edges, InstanceError, TrackedInstance};
use crate::store::{AcknowledgedState, StoreError, Worker};

/// What an instance reports about itself and its workers.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledgement {
    pub(crate) edge: String,
    pub(crate) instance: String,
    pub(crate) epoch: Epoch,
    pub(crate) version: Option<String>,
    pub(crate) bound: StalenessBound,
    /// The live workers, and what each has applied.
    pub(crate) workers: BTreeMap<String, (Worker, Revision)>,
    /// The ids of workers that ended.
    pub(crate) ended: Vec<String>,
}

impl Edges {
    /// Records an acknowledgement that was received at `at` with `token`, all of it or nothing. Returns the head as of
    /// the answer: an instance whose table is at the head is fresh.
    pub(crate) async fn acknowledge(
        &self,
        report: &Acknowledgement,
        token: &str,
        at: Duration,
    ) -> Result<Position, InstanceError> {
        if let Some(limit) = self.limits.workers()
            && u64::try_from(report.workers.len()).is_ok_and(|workers| workers > limit.maximum)
        {
            return Err(InstanceError::TooManyWorkers(limit));
        }
        self.load_if_unknown(&report.instance).await?;
        if let Some(applied) = report.workers.values().map(|(_, applied)| *applied).max() {
            self.store.newest(Some(applied)).await?;
        }
        let recorded = match self.record(report, token, at) {
            // Another replica may have received the report of that worker's end.
            Err(InstanceError::MissingWorker(_)) if self.store.deployment().is_replicated() => {
                self.store.refresh().await?;
                self.record(report, token, at)
            }
            recorded => recorded,
        };
        if let Some(acknowledged) = recorded? {
            self.save(&report.instance, &report.edge, acknowledged).await?;
        }
        self.report_applied(&report.instance, report.epoch);
        self.wake();
        self.store.check_freshness()?;
        Ok(*self.store.head().borrow())
    }

    /// Records the acknowledgement in memory. `None`: nothing has to be written. `Some(None)`: only the time of this
    /// contact. `Some(Some(_))`: this as well.
    #[expect(clippy::option_option, reason = "whether to write, and what else")]
    fn record(
        &self,
        report: &Acknowledgement,
        token: &str,
        at: Duration,
    ) -> Result<Option<Option<AcknowledgedState>>, InstanceError> {
        let head = *self.store.head().borrow();
        let mut all = self.lock();
        let tracked = all.get_mut(&report.instance).ok_or(InstanceError::Unknown)?;
        tracked.check_active(&report.edge)?;
        if report.epoch != head.epoch {
            return Err(InstanceError::UnknownEpoch);
        }
        if let Some((_, ahead)) = report.workers.values().find(|(_, applied)| *applied > head.revision) {
            return Err(InstanceError::Ahead(*ahead));
        }
        let is_named = |id: &String| report.workers.contains_key(id) || report.ended.contains(id);
        if let Some(missing) = tracked.instance.workers.iter().find(|worker| !is_named(&worker.id)) {
            return Err(InstanceError::MissingWorker(missing.id.clone()));
        }
        self.record_token(tracked, token);
        tracked.record_contact(at, report.bound, self.clock.now());
        let workers: Vec<_> = report.workers.values().map(|(worker, _)| worker.clone()).collect();
        let instance = &mut tracked.instance;
        // An empty list states nothing about any worker's table.
        let acknowledged = instance.acknowledged || !workers.is_empty();
        let is_unchanged =
            instance.acknowledged == acknowledged && instance.workers == workers && instance.version == report.version;
        if !is_unchanged {
            (instance.acknowledged, instance.workers) = (acknowledged, workers);
            instance.version.clone_from(&report.version);
            tracked.mark_unsaved();
        }
        // As reported, not the maximum: a worker that loads an older history has less than before.
        tracked.applied = report.workers.iter().map(|(id, (_, applied))| (id.clone(), *applied)).collect();
        // An earlier write that failed is still pending. And an ended worker is named only once: other replicas may
        // know that worker from a row that this one hasn't read yet.
        let has_changes = !tracked.is_saved() || (self.store.deployment().is_replicated() && !report.ended.is_empty());
        Ok((has_changes || !self.may_answer_without_write(tracked, at))
            .then(|| has_changes.then(|| tracked.acknowledged_state(&report.ended))))
    }

    /// Records that all workers that an instance last acknowledged have applied the revision `applied`, as its feed
    /// request reports. Ignored if the instance never acknowledged, if the epoch is another one, or if the revision
    /// isn't committed. Fails if the database has to be read for that and doesn't respond, because an instance doesn't
    /// repeat a dropped report before the next change.
    pub(crate) async fn applied(&self, instance: &str, epoch: Epoch, applied: Revision) -> Result<(), StoreError> {
        let is_of_this_history = || self.store.head().borrow().epoch == epoch;
        // Another replica may have sent the instance a revision that isn't known here yet.
        if !is_of_this_history() || applied > self.store.newest(Some(applied)).await? || !is_of_this_history() {
            return Ok(());
        }
        if let Some(tracked) = self.lock().get_mut(instance).filter(|tracked| tracked.instance.acknowledged) {
            let TrackedInstance { applied: own, instance, .. } = tracked;
            if own.is_empty() {
                // Its first report since the control plane started.
                own.extend(instance.workers.iter().map(|worker| (worker.id.clone(), applied)));
            } else {
                own.values_mut().for_each(|own| *own = applied);
            }
            tracing::debug!(edge.id = instance.edge, instance = instance.id, revision = applied.0, "acknowledged");
        }
        self.report_applied(instance, epoch);
        self.wake();
        Ok(())
    }
}
