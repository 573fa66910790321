//! How instances leave: by their own word, by an operator's, or forgotten.

use std::time::Duration;

use policy::UnixSeconds;
use tokio::time::sleep;

use super::rules::Bound;
use super::{Edges, Known, Refused};
use crate::store::{Acting, Changed, StoreError};

/// How long an instance that was connected when it retired still counts. The request that it has waiting is answered at once,
/// and tells it to deny; a worker that was held up for 2 s looks at what the others know before it decides.
pub(super) const LEAVING: Duration = Duration::from_secs(3);

/// The longest that whoever says that it leaves waits until another replica has told it so.
const TOLD_BY_OTHERS: Duration = Duration::from_secs(10);

/// The least time after which a silent instance is forgotten; its bound, if that is longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(86_400);

impl Edges {
    /// The edge name of an instance.
    pub(crate) fn edge_of(&self, instance: &str) -> Option<String> {
        self.lock().get(instance).map(|known| known.instance.edge.clone())
    }

    /// Retires an instance, which says so itself. May be repeated. One that is connected counts for [`LEAVING`] more, and this
    /// takes as long: so no revision is called enforced while its table may still decide. One that another replica may answer
    /// counts until some replica has told it so.
    pub(crate) async fn retire(&self, id: &str) -> Result<(), Refused> {
        self.look_for(id).await?;
        let (is_saved, leaving, edge, is_others) = {
            let mut all = self.lock();
            let now = self.clock.monotonic();
            let known = all.get_mut(id).ok_or(Refused::Unknown)?;
            if known.instance.ended_at.is_none() {
                known.is_leaving = known.is_connected(now);
                known.end(self.clock.now());
                tracing::info!(edge.id = known.instance.edge, instance = id, "an instance retired");
            }
            let is_others = known.is_leaving && self.store.is_shared() && known.is_others(now);
            (known.is_saved(), known.is_leaving, known.instance.edge.clone(), is_others)
        };
        // From here on its feed is refused. In a task of its own: whoever asked may go away.
        let left = (leaving && !is_others).then(|| tokio::spawn(self.clone().leave(id.to_owned())));
        self.wake();
        // Should the disk fail, it is asked to say it again.
        if !is_saved {
            match self.save(id, &edge, None).await {
                Ok(()) | Err(Refused::Retired) => {}
                Err(error) => return Err(error),
            }
        }
        if !is_others {
            // None where there are no others.
            self.store.note_told(id.to_owned()).await?;
        }
        if let Some(left) = left {
            // Fails only with the runtime.
            let _ = left.await;
        } else if is_others {
            let mut changed = self.changed.subscribe();
            let is_leaving = |()| self.lock().get(id).is_some_and(|known| known.is_leaving);
            let left = async { while is_leaving(()) && changed.changed().await.is_ok() {} };
            // It is answered all the same: what counts is not this answer.
            let _ = tokio::time::timeout(TOLD_BY_OTHERS, left).await;
        }
        Ok(())
    }

    /// Lets an instance that has retired count no more, after [`LEAVING`].
    pub(super) async fn leave(self, id: String) {
        sleep(LEAVING).await;
        if let Some(known) = self.lock().get_mut(&id) {
            known.is_leaving = false;
        }
        self.wake();
    }

    /// Takes an operator's word that an instance is gone. Not while its lease runs.
    pub(crate) async fn remove(&self, id: &str, acting: Acting) -> Result<Changed<()>, Refused> {
        self.store.look().await?;
        let (instance, row, before) = {
            let mut all = self.lock();
            let counts = |known: &&mut Known| known.instance.ended_at.is_none() || !known.is_told();
            let known = all.get_mut(id).filter(counts).ok_or(Refused::Unknown)?;
            if known.is_connected(self.clock.monotonic()) {
                return Err(Refused::Connected);
            }
            let before = known.instance.ended_at;
            // Refused from here on, so that none is answered that counts no more.
            known.end(acting.at);
            (known.instance.clone(), known.shared.row, before)
        };
        let removed = self.store.end_instance(instance, row, acting).await;
        let mut all = self.lock();
        let known = all.get_mut(id);
        match removed {
            Ok(Some(changed)) => {
                if let Some(known) = known {
                    (known.saved, known.is_leaving) = (known.version, false);
                }
                drop(all);
                self.wake();
                Ok(changed)
            }
            refused => {
                if let Some(known) = known {
                    known.instance.ended_at = before;
                    known.gone.send_replace(before.is_some());
                }
                // Another replica has heard of it.
                Err(refused.err().map_or(Refused::Connected, Into::into))
            }
        }
    }

    /// Forgets instances that were silent for longer than their bound, and than a day. Those without a bound that didn't say
    /// that they leave are kept: one day they could serve again.
    pub async fn forget_silent(&self) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        let due: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, known)| known.is_ghost(now))
            .map(|(id, known)| (id.clone(), known.shared.row))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.store.forget_instances(due.clone()).await?;
        // One that was heard meanwhile is kept, and written again when it is heard next.
        self.lock().retain(|id, known| {
            let is_due = due.iter().any(|(due, _)| due == id);
            if is_due && !known.is_ghost(now) {
                known.must_save();
            }
            !is_due || !known.is_ghost(now)
        });
        tracing::info!(instances = due.len(), "forgot silent instances");
        self.wake();
        Ok(())
    }
}

impl Known {
    fn end(&mut self, at: UnixSeconds) {
        self.instance.ended_at = Some(at);
        self.must_save();
        self.gone.send_replace(true);
    }

    /// Whether it has ended and knows it: nothing of it counts.
    fn is_told(&self) -> bool {
        self.instance.ended_at.is_some() && !self.is_leaving
    }

    fn is_connected(&self, now: Duration) -> bool {
        self.facts().is_some_and(|facts| facts.is_connected(now))
    }

    fn is_ghost(&self, now: Duration) -> bool {
        let silent = now.saturating_sub(self.heard_at.max(self.shared.others_until));
        let bound_has_passed = match (self.facts(), self.instance.bound) {
            (Some(facts), Bound::Secs(_)) => facts.denies_at().is_some_and(|at| at < now),
            (Some(_), Bound::Never) => false,
            // It retired, or is gone.
            (None, _) => true,
        };
        silent > FORGOTTEN_AFTER && bound_has_passed
    }
}
