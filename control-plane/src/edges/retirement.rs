//! The end of instances: they retire, their token is revoked, or they are forgotten after a long silence.

use crate::base::staleness_bound::StalenessBound;
use std::time::Duration;

use policy::UnixSeconds;
use policy::protocol::timing::RETIRING_MS;
use tokio::time::sleep;

use super::{Edges, InstanceError, TrackedInstance};
use crate::store::StoreError;

/// How long an instance that was connected when it retired still counts.
pub(super) const RETIREMENT_GRACE: Duration = Duration::from_millis(RETIRING_MS);

/// The longest that a retiring instance waits until another replica has notified it.
const OTHER_REPLICA_TIMEOUT: Duration = Duration::from_secs(10);

/// The least time after which a silent instance is forgotten; its bound, if that is longer.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(86_400);

impl Edges {
    /// The edge name of an instance.
    pub(crate) fn edge_of(&self, instance: &str) -> Option<String> {
        self.lock().get(instance).map(|tracked| tracked.instance.edge.clone())
    }

    /// Retires an instance at its own request. May be repeated. A connected instance counts for another
    /// [`RETIREMENT_GRACE`], and this returns after it, so that no revision counts as enforced while the instance's
    /// table may still decide. An instance that another replica may answer counts until some replica has notified it.
    pub(crate) async fn retire(&self, id: &str) -> Result<(), InstanceError> {
        self.load_if_unknown(id).await?;
        let (is_saved, is_leaving, edge, may_others_answer) = {
            let mut all = self.lock();
            let now = self.clock.monotonic();
            let tracked = all.get_mut(id).ok_or(InstanceError::Unknown)?;
            if tracked.instance.ended_at.is_none() {
                tracked.is_leaving = tracked.is_connected(now);
                tracked.end(self.clock.now());
                tracing::info!(edge.id = tracked.instance.edge, instance = id, "an instance retired");
            }
            let may_others_answer =
                tracked.is_leaving && self.store.deployment().is_replicated() && tracked.may_others_answer(now);
            (tracked.is_saved(), tracked.is_leaving, tracked.instance.edge.clone(), may_others_answer)
        };
        // From now on its feed requests are refused. In a task of its own, because the client may disconnect.
        let left =
            (is_leaving && !may_others_answer).then(|| tokio::spawn(self.clone().end_grace_period(id.to_owned())));
        self.wake();
        // If the disk fails, the instance gets an error and repeats its request.
        if !is_saved {
            match self.save(id, &edge, None).await {
                Ok(()) | Err(InstanceError::Retired) => {}
                Err(error) => return Err(error),
            }
        }
        if !may_others_answer {
            // Does nothing where there are no other replicas.
            self.store.record_end_notice(id.to_owned()).await?;
        }
        if let Some(left) = left {
            // Fails only with the runtime.
            let _ = left.await;
        } else if may_others_answer {
            let mut changed = self.changed.subscribe();
            let still_leaving = |()| self.lock().get(id).is_some_and(|tracked| tracked.is_leaving);
            let left = async { while still_leaving(()) && changed.changed().await.is_ok() {} };
            // It is answered even after the timeout: the notice counts, not this answer.
            let _ = tokio::time::timeout(OTHER_REPLICA_TIMEOUT, left).await;
        }
        Ok(())
    }

    /// Stops counting an instance that has retired, after [`RETIREMENT_GRACE`].
    pub(super) async fn end_grace_period(self, id: String) {
        sleep(RETIREMENT_GRACE).await;
        if let Some(tracked) = self.lock().get_mut(&id) {
            tracked.is_leaving = false;
        }
        self.wake();
    }

    /// Ends an instance that has used only revoked tokens, `token` among them; the caller's answer notifies it. It
    /// counts for another [`RETIREMENT_GRACE`], like one that retires. `Unknown` if the instance didn't use this token,
    /// or if it has a valid one.
    pub(crate) async fn end_revoked(&self, id: &str, edge: &str, token: &str) -> Result<(), InstanceError> {
        // The instance may have presented another token to another replica.
        self.store.refresh().await?;
        let (is_saved, is_news) = {
            let mut all = self.lock();
            let has_used_token = |tracked: &&mut TrackedInstance| {
                tracked.instance.edge == edge && tracked.instance.tokens.iter().any(|own| own == token)
            };
            let tracked = all.get_mut(id).filter(has_used_token).ok_or(InstanceError::Unknown)?;
            if tracked.instance.tokens.iter().any(|own| self.is_valid_token(own)) {
                return Err(InstanceError::Unknown);
            }
            let is_news = tracked.instance.ended_at.is_none();
            if is_news {
                // Even after a long silence: it decides until it has read this answer.
                tracked.is_leaving = true;
                tracked.end(self.clock.now());
                tracing::info!(edge.id = edge, instance = id, "an instance ended with its token");
            }
            (tracked.is_saved(), is_news)
        };
        if is_news {
            tokio::spawn(self.clone().end_grace_period(id.to_owned()));
            self.wake();
        }
        if !is_saved {
            match self.save(id, edge, None).await {
                Ok(()) | Err(InstanceError::Retired) => {}
                Err(error) => return Err(error),
            }
        }
        self.record_end_notice(id);
        Ok(())
    }

    /// Forgets instances that were silent for longer than their bound, and than a day. Instances without a bound that
    /// haven't retired are kept, because they could serve again.
    pub async fn forget_silent(&self) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        let due: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, tracked)| tracked.is_forgettable(now))
            .map(|(_, tracked)| tracked.id_and_row())
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        tracing::info!(instances = due.len(), "forgets silent instances");
        self.forget(due, move |tracked| tracked.is_forgettable(now)).await
    }

    /// Forgets these instances, each with the number of its row's last change, if they are still `due`.
    pub(super) async fn forget(
        &self,
        instances: Vec<(String, i64)>,
        due: impl Fn(&TrackedInstance) -> bool,
    ) -> Result<(), StoreError> {
        self.store.delete_instances(instances.clone()).await?;
        let mut all = self.lock();
        for (id, _) in instances {
            // An instance that has sent a request meanwhile is kept, and written again with its next request.
            match all.get_mut(&id) {
                Some(tracked) if !due(tracked) => tracked.mark_unsaved(),
                Some(_) => drop(all.remove(&id)),
                None => {}
            }
        }
        drop(all);
        self.wake();
        Ok(())
    }
}

impl TrackedInstance {
    pub(super) fn end(&mut self, at: UnixSeconds) {
        self.instance.ended_at = Some(at);
        self.mark_unsaved();
        self.ended.send_replace(true);
    }

    /// Whether it has ended and its grace period is over, so that it no longer counts.
    pub(super) fn has_left(&self) -> bool {
        self.instance.ended_at.is_some() && !self.is_leaving
    }

    pub(super) fn is_connected(&self, now: Duration) -> bool {
        self.facts().is_some_and(|facts| facts.is_connected(now))
    }

    fn is_forgettable(&self, now: Duration) -> bool {
        let silent = now.saturating_sub(self.last_contact());
        let bound_has_passed = match (self.facts(), self.instance.bound) {
            (Some(facts), StalenessBound::Secs(_)) => facts.denies_at().is_some_and(|at| at < now),
            (Some(_), StalenessBound::Never) => false,
            // It has left.
            (None, _) => true,
        };
        silent > FORGOTTEN_AFTER && bound_has_passed
    }
}
