//! How instances leave: by their own word, with their token, or forgotten.

use std::time::Duration;

use policy::UnixSeconds;
use policy::protocol::timing::RETIRING_MS;
use tokio::time::sleep;

use super::rules::Bound;
use super::{Edges, Known, Refused};
use crate::store::StoreError;

/// How long an instance that was connected when it retired still counts.
pub(super) const LEAVING: Duration = Duration::from_millis(RETIRING_MS);

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
            // It is answered nevertheless: this answer is not what counts.
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

    /// Ends an instance that only revoked tokens spoke for, `token` among them; the caller answers its request by saying
    /// so. It counts for [`LEAVING`] more, as one that retires does. `Unknown`: it is not for this token to say anything of.
    pub(crate) async fn disown(&self, id: &str, edge: &str, token: &str) -> Result<(), Refused> {
        // Another replica may have heard another token speak for it.
        self.store.look().await?;
        let (is_saved, is_news) = {
            let mut all = self.lock();
            let spoke = |known: &&mut Known| {
                known.instance.edge == edge && known.instance.tokens.iter().any(|own| own == token)
            };
            let known = all.get_mut(id).filter(spoke).ok_or(Refused::Unknown)?;
            if known.instance.tokens.iter().any(|own| self.is_live(own)) {
                return Err(Refused::Unknown);
            }
            let is_news = known.instance.ended_at.is_none();
            if is_news {
                // However long it was silent: it decides until it has read this.
                known.is_leaving = true;
                known.end(self.clock.now());
                tracing::info!(edge.id = edge, instance = id, "an instance ended with its token");
            }
            (known.is_saved(), is_news)
        };
        if is_news {
            tokio::spawn(self.clone().leave(id.to_owned()));
            self.wake();
        }
        if !is_saved {
            match self.save(id, edge, None).await {
                Ok(()) | Err(Refused::Retired) => {}
                Err(error) => return Err(error),
            }
        }
        self.tells(id);
        Ok(())
    }

    /// Forgets instances that were silent for longer than their bound, and than a day. Those without a bound that didn't say
    /// that they leave are kept: one day they could serve again.
    pub async fn forget_silent(&self) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        let due: Vec<_> =
            self.lock().iter().filter(|(_, known)| known.is_ghost(now)).map(|(_, known)| known.name()).collect();
        if due.is_empty() {
            return Ok(());
        }
        tracing::info!(instances = due.len(), "forgets silent instances");
        self.forget(due, move |known| known.is_ghost(now)).await
    }

    /// Forgets these instances, each of which comes with the number of its row's last change, as long as they are `due`.
    pub(super) async fn forget(
        &self,
        instances: Vec<(String, i64)>,
        due: impl Fn(&Known) -> bool,
    ) -> Result<(), StoreError> {
        self.store.forget_instances(instances.clone()).await?;
        let mut all = self.lock();
        for (id, _) in instances {
            // One that was heard meanwhile is kept, and written again when it is heard next.
            match all.get_mut(&id) {
                Some(known) if !due(known) => known.must_save(),
                Some(_) => drop(all.remove(&id)),
                None => {}
            }
        }
        drop(all);
        self.wake();
        Ok(())
    }
}

impl Known {
    pub(super) fn end(&mut self, at: UnixSeconds) {
        self.instance.ended_at = Some(at);
        self.must_save();
        self.gone.send_replace(true);
    }

    /// Whether it has ended and knows it: nothing of it counts.
    pub(super) fn is_told(&self) -> bool {
        self.instance.ended_at.is_some() && !self.is_leaving
    }

    pub(super) fn is_connected(&self, now: Duration) -> bool {
        self.facts().is_some_and(|facts| facts.is_connected(now))
    }

    fn is_ghost(&self, now: Duration) -> bool {
        let silent = now.saturating_sub(self.last_heard());
        let bound_has_passed = match (self.facts(), self.instance.bound) {
            (Some(facts), Bound::Secs(_)) => facts.denies_at().is_some_and(|at| at < now),
            (Some(_), Bound::Never) => false,
            // It retired, or is gone.
            (None, _) => true,
        };
        silent > FORGOTTEN_AFTER && bound_has_passed
    }
}
