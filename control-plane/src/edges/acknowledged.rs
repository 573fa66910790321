//! Acknowledgements: what each worker of an instance has applied.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::{Epoch, Position, Revision};

use super::{Bound, Edges, Known, Refused};
use crate::store::{Says, StoreError, Worker};

/// What an instance reports about itself and its workers.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledgement {
    pub(crate) edge: String,
    pub(crate) instance: String,
    pub(crate) epoch: Epoch,
    pub(crate) version: Option<String>,
    pub(crate) bound: Bound,
    /// The live workers, and what each has applied.
    pub(crate) workers: BTreeMap<String, (Worker, Revision)>,
    /// The ids of workers that ended.
    pub(crate) ended: Vec<String>,
}

impl Edges {
    /// Takes an acknowledgement that was received at `at` with `token`, all of it or nothing. Returns the head as of
    /// the answer: an instance whose table is there is fresh.
    pub(crate) async fn acknowledge(
        &self,
        said: &Acknowledgement,
        token: &str,
        at: Duration,
    ) -> Result<Position, Refused> {
        if let Some(limit) = self.limits.workers()
            && u64::try_from(said.workers.len()).is_ok_and(|workers| workers > limit.maximum)
        {
            return Err(Refused::TooManyWorkers(limit));
        }
        self.look_for(&said.instance).await?;
        if let Some(applied) = said.workers.values().map(|(_, applied)| *applied).max() {
            self.store.newest(Some(applied)).await?;
        }
        let taken = match self.take(said, token, at) {
            // Another replica may have received the report of that worker's end.
            Err(Refused::MissingWorker(_)) if self.store.is_shared() => {
                self.store.look().await?;
                self.take(said, token, at)
            }
            taken => taken,
        };
        if let Some(says) = taken? {
            self.save(&said.instance, &said.edge, says).await?;
        }
        self.tell_applied(&said.instance, said.epoch);
        self.wake();
        self.store.fresh()?;
        Ok(*self.store.head().borrow())
    }

    /// Takes the acknowledgement into memory. `None`: nothing has to be written. `Some(None)`: only that the instance
    /// was heard. `Some(Some(_))`: this as well.
    #[expect(clippy::option_option, reason = "whether to write, and what besides")]
    fn take(&self, said: &Acknowledgement, token: &str, at: Duration) -> Result<Option<Option<Says>>, Refused> {
        let head = *self.store.head().borrow();
        let mut all = self.lock();
        let known = all.get_mut(&said.instance).ok_or(Refused::Unknown)?;
        known.admits(&said.edge)?;
        if said.epoch != head.epoch {
            return Err(Refused::UnknownEpoch);
        }
        if let Some((_, ahead)) = said.workers.values().find(|(_, applied)| *applied > head.revision) {
            return Err(Refused::Ahead(*ahead));
        }
        let is_named = |id: &String| said.workers.contains_key(id) || said.ended.contains(id);
        if let Some(missing) = known.instance.workers.iter().find(|worker| !is_named(&worker.id)) {
            return Err(Refused::MissingWorker(missing.id.clone()));
        }
        self.vouch(known, token);
        known.hear(at, said.bound, self.clock.now());
        let workers: Vec<_> = said.workers.values().map(|(worker, _)| worker.clone()).collect();
        let instance = &mut known.instance;
        // An empty list states nothing about what any worker decides by.
        let acknowledged = instance.acknowledged || !workers.is_empty();
        let is_as_before =
            instance.acknowledged == acknowledged && instance.workers == workers && instance.version == said.version;
        if !is_as_before {
            (instance.acknowledged, instance.workers) = (acknowledged, workers);
            instance.version.clone_from(&said.version);
            known.must_save();
        }
        // As reported, not the maximum: a worker that loads an older history has less than before.
        known.applied = said.workers.iter().map(|(id, (_, applied))| (id.clone(), *applied)).collect();
        // What couldn't be written last time still has to be. And an ended worker is named only once: other replicas
        // may know that worker from a row that this one hasn't read yet.
        let is_news = !known.is_saved() || (self.store.is_shared() && !said.ended.is_empty());
        Ok((is_news || !self.may_answer(known, at)).then(|| is_news.then(|| known.says(&said.ended))))
    }

    /// Takes the report of an instance, whose request was just recorded, that each worker of its last acknowledgement
    /// has `applied` this revision. Ignored if the instance never acknowledged, if the epoch is another one, or if the
    /// revision isn't committed. Fails if only the database could tell and doesn't answer, because an instance doesn't
    /// repeat a dropped report before the next change.
    pub(crate) async fn applied(&self, instance: &str, epoch: Epoch, applied: Revision) -> Result<(), StoreError> {
        let is_of_this_history = || self.store.head().borrow().epoch == epoch;
        // Another replica may have sent the instance a revision that isn't known here yet.
        if !is_of_this_history() || applied > self.store.newest(Some(applied)).await? || !is_of_this_history() {
            return Ok(());
        }
        if let Some(known) = self.lock().get_mut(instance).filter(|known| known.instance.acknowledged) {
            let Known { applied: own, instance, .. } = known;
            if own.is_empty() {
                // Its first report since the control plane started.
                own.extend(instance.workers.iter().map(|worker| (worker.id.clone(), applied)));
            } else {
                own.values_mut().for_each(|own| *own = applied);
            }
            tracing::debug!(edge.id = instance.edge, instance = instance.id, revision = applied.0, "acknowledged");
        }
        self.tell_applied(instance, epoch);
        self.wake();
        Ok(())
    }
}
