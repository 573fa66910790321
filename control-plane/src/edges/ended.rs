//! How instances leave: by their own word, by an operator's, or forgotten.

use std::time::Duration;

use policy::UnixSeconds;
use tokio::time::sleep;

use super::rules::Bound;
use super::{Edges, Known, Refused};
use crate::store::{Acting, Changed, StoreError};

/// How long an instance that was connected when it retired still counts. The request that it has waiting is answered at once,
/// and tells it to deny; a worker that was held up for 2 s looks at what the others know before it decides.
const LEAVING: Duration = Duration::from_secs(3);

/// The least time after which a silent instance is forgotten; its bound, if that is longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(86_400);

impl Edges {
    /// The edge name of an instance.
    pub(crate) fn edge_of(&self, instance: &str) -> Option<String> {
        self.lock().get(instance).map(|known| known.instance.edge.clone())
    }

    /// Retires an instance, which says so itself. May be repeated. One that is connected counts for [`LEAVING`] more, and this
    /// takes as long: so no revision is called enforced while its table may still decide.
    pub(crate) async fn retire(&self, id: &str) -> Result<(), Refused> {
        let (is_saved, leaving) = {
            let mut all = self.lock();
            let known = all.get_mut(id).ok_or(Refused::Unknown)?;
            if known.instance.ended_at.is_none() {
                known.is_leaving = known.is_connected(self.clock.monotonic());
                known.end(self.clock.now());
                tracing::info!(edge.id = known.instance.edge, instance = id, "an instance retired");
            }
            (known.is_saved(), known.is_leaving)
        };
        // From here on its feed is refused. In a task of its own: whoever asked may go away.
        let left = leaving.then(|| tokio::spawn(self.clone().leave(id.to_owned())));
        self.wake();
        // Should the disk fail, it is asked to say it again.
        if !is_saved {
            self.save(id).await?;
        }
        if let Some(left) = left {
            // Fails only with the runtime.
            let _ = left.await;
        }
        Ok(())
    }

    /// Lets an instance that has retired count no more, after [`LEAVING`].
    async fn leave(self, id: String) {
        sleep(LEAVING).await;
        if let Some(known) = self.lock().get_mut(&id) {
            known.is_leaving = false;
        }
        self.wake();
    }

    /// Takes an operator's word that an instance is gone. Not while its lease runs.
    pub(crate) async fn remove(&self, id: &str, acting: Acting) -> Result<Changed<()>, Refused> {
        let instance = {
            let mut all = self.lock();
            let known = all.get_mut(id).filter(|known| known.instance.ended_at.is_none()).ok_or(Refused::Unknown)?;
            if known.is_connected(self.clock.monotonic()) {
                return Err(Refused::Connected);
            }
            // Refused from here on, so that none is answered that counts no more.
            known.end(acting.at);
            known.instance.clone()
        };
        match self.store.end_instance(instance, acting).await {
            Ok(changed) => {
                if let Some(known) = self.lock().get_mut(id) {
                    known.saved = known.version;
                }
                self.wake();
                Ok(changed)
            }
            Err(error) => {
                if let Some(known) = self.lock().get_mut(id) {
                    known.instance.ended_at = None;
                    known.gone.send_replace(false);
                }
                Err(error.into())
            }
        }
    }

    /// Forgets instances that were silent for longer than their bound, and than a day. Those without a bound that didn't say
    /// that they leave are kept: one day they could serve again.
    pub async fn forget_silent(&self) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        let due: Vec<_> =
            self.lock().iter().filter(|(_, known)| known.is_ghost(now)).map(|(id, _)| id.clone()).collect();
        if due.is_empty() {
            return Ok(());
        }
        self.store.forget_instances(due.clone()).await?;
        // One that was heard meanwhile is kept, and written again when it is heard next.
        self.lock().retain(|id, known| {
            let is_due = due.contains(id);
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

    fn is_connected(&self, now: Duration) -> bool {
        self.facts().is_some_and(|facts| facts.is_connected(now))
    }

    fn is_ghost(&self, now: Duration) -> bool {
        let silent = now.saturating_sub(self.heard_at);
        let bound_has_passed = match (self.facts(), self.instance.bound) {
            (Some(facts), Bound::Secs(_)) => facts.denies_at().is_some_and(|at| at < now),
            (Some(_), Bound::Never) => false,
            // It retired, or is gone.
            (None, _) => true,
        };
        silent > FORGOTTEN_AFTER && bound_has_passed
    }
}
