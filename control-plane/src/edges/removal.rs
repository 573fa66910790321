//! Removal of instances by an operator.

use std::collections::BTreeSet;

use policy::{Revision, UnixSeconds};

use super::{Edges, InstanceError, TrackedInstance};
use crate::store::{AtRevision, ChangeContext, Instance, InstanceRemoval, StoreError};

/// The most instances that one change ends, with one event and one revision.
const MAX_REMOVALS: usize = 100;

/// The result of removing the dead instances of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemovalSummary {
    pub(crate) removed: u64,
    /// The edge's instances that remain.
    pub(crate) connected: u64,
    /// The revision of the last change; `None` if there was no change.
    pub(crate) revision: Option<Revision>,
}

/// An instance that is being removed. Its requests are refused from now on: an instance that is answered must count.
struct Removal {
    instance: Instance,
    /// The number of its row's last change.
    row: i64,
    /// When it had ended, if it had ended before.
    ended_before: Option<UnixSeconds>,
}

impl Edges {
    /// Removes an instance for an operator. Refused while its lease is valid.
    pub(crate) async fn remove(&self, id: &str, context: ChangeContext) -> Result<AtRevision<()>, InstanceError> {
        self.store.refresh().await?;
        if self
            .lock()
            .get(id)
            .filter(|tracked| !tracked.has_left())
            .ok_or(InstanceError::Unknown)?
            .is_connected(self.clock.monotonic())
        {
            return Err(InstanceError::Connected);
        }
        let ended = self.end_all(&[id.to_owned()], InstanceRemoval::One, context).await?;
        // `None`: another replica has received a request from it.
        let AtRevision { revision, .. } = ended.ok_or(InstanceError::Connected)?;
        Ok(AtRevision { value: (), revision })
    }

    /// Removes, for an operator, all instances of an edge whose lease has expired, including those past their bound.
    pub(crate) async fn remove_dead(
        &self,
        edge: &str,
        context: &ChangeContext,
    ) -> Result<RemovalSummary, InstanceError> {
        self.store.refresh().await?;
        let dead = {
            let (all, now) = (self.lock(), self.clock.monotonic());
            let is_dead = |tracked: &&TrackedInstance| {
                tracked.instance.edge == edge && !tracked.has_left() && !tracked.is_connected(now)
            };
            let mut dead: Vec<_> = all.values().filter(is_dead).map(|tracked| tracked.instance.id.clone()).collect();
            dead.sort_unstable();
            dead
        };
        let mut done = RemovalSummary { removed: 0, connected: 0, revision: None };
        for step in dead.chunks(MAX_REMOVALS) {
            if let Some(AtRevision { value, revision }) =
                self.end_all(step, InstanceRemoval::OfEdge, context.clone()).await?
            {
                done.removed = done.removed.saturating_add(value);
                done.revision = Some(revision);
            }
        }
        let stays = |tracked: &&TrackedInstance| tracked.instance.edge == edge && !tracked.has_left();
        done.connected = u64::try_from(self.lock().values().filter(stays).count()).unwrap_or(u64::MAX);
        Ok(done)
    }

    /// Ends those of these instances that aren't connected. Returns their number; `None` if there were none.
    async fn end_all(
        &self,
        ids: &[String],
        ending: InstanceRemoval,
        context: ChangeContext,
    ) -> Result<Option<AtRevision<u64>>, StoreError> {
        let removals: Vec<_> = {
            let (mut all, now) = (self.lock(), self.clock.monotonic());
            let begin = |id: &String| {
                let tracked = all.get_mut(id).filter(|tracked| !tracked.has_left() && !tracked.is_connected(now))?;
                let ended_before = tracked.instance.ended_at;
                tracked.end(context.at);
                Some(Removal { instance: tracked.instance.clone(), row: tracked.shared.row, ended_before })
            };
            ids.iter().filter_map(begin).collect()
        };
        let rows = removals.iter().map(|removal| (removal.instance.clone(), removal.row)).collect();
        let ended = self.store.end_instances(rows, ending, context).await;
        let done: BTreeSet<_> = ended.iter().flatten().flat_map(|changed| &changed.value).cloned().collect();
        let mut all = self.lock();
        for Removal { instance, ended_before, .. } in &removals {
            let Some(tracked) = all.get_mut(&instance.id) else { continue };
            if done.contains(&instance.id) {
                (tracked.saved, tracked.is_leaving) = (tracked.version, false);
            } else {
                tracked.instance.ended_at = *ended_before;
                tracked.ended.send_replace(ended_before.is_some());
            }
        }
        drop(all);
        self.wake();
        let count = |AtRevision { value, revision }: AtRevision<Vec<String>>| AtRevision {
            value: u64::try_from(value.len()).unwrap_or(u64::MAX),
            revision,
        };
        Ok(ended?.map(count))
    }
}
