//! Removal of instances by an operator.

use std::collections::BTreeSet;

use policy::{Revision, UnixSeconds};

use super::{Edges, Known, Refused};
use crate::store::{Acting, Changed, Ending, Instance, StoreError};

/// The most instances that one change ends, with one event and one revision.
const A_STEP: usize = 100;

/// The result of removing the dead instances of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) removed: u64,
    /// The edge's instances that stay.
    pub(crate) connected: u64,
    /// Of the last change; `None` when none was made.
    pub(crate) revision: Option<Revision>,
}

/// An instance that is being removed. It is refused from now on, so that no instance is answered that no longer counts.
struct Removal {
    instance: Instance,
    /// The number of its row's last change.
    row: i64,
    /// When it had ended, if it had before.
    before: Option<UnixSeconds>,
}

impl Edges {
    /// Removes an instance for an operator. Refused while its lease runs.
    pub(crate) async fn remove(&self, id: &str, acting: Acting) -> Result<Changed<()>, Refused> {
        self.store.look().await?;
        if self
            .lock()
            .get(id)
            .filter(|known| !known.is_told())
            .ok_or(Refused::Unknown)?
            .is_connected(self.clock.monotonic())
        {
            return Err(Refused::Connected);
        }
        let ended = self.end_all(&[id.to_owned()], Ending::One, acting).await?;
        // Another replica has received a request of it.
        let Changed { revision, .. } = ended.ok_or(Refused::Connected)?;
        Ok(Changed { value: (), revision })
    }

    /// Removes, for an operator, all instances of an edge whose lease has expired, including those past their bound.
    pub(crate) async fn remove_dead(&self, edge: &str, acting: &Acting) -> Result<Removed, Refused> {
        self.store.look().await?;
        let dead = {
            let (all, now) = (self.lock(), self.clock.monotonic());
            let is_dead = |known: &&Known| known.instance.edge == edge && !known.is_told() && !known.is_connected(now);
            let mut dead: Vec<_> = all.values().filter(is_dead).map(|known| known.instance.id.clone()).collect();
            dead.sort_unstable();
            dead
        };
        let mut done = Removed { removed: 0, connected: 0, revision: None };
        for step in dead.chunks(A_STEP) {
            if let Some(Changed { value, revision }) = self.end_all(step, Ending::OfEdge, acting.clone()).await? {
                done.removed = done.removed.saturating_add(value);
                done.revision = Some(revision);
            }
        }
        let stays = |known: &&Known| known.instance.edge == edge && !known.is_told();
        done.connected = u64::try_from(self.lock().values().filter(stays).count()).unwrap_or(u64::MAX);
        Ok(done)
    }

    /// Ends those of these instances that aren't connected. Returns their number; `None` if there were none.
    async fn end_all(
        &self,
        ids: &[String],
        ending: Ending,
        acting: Acting,
    ) -> Result<Option<Changed<u64>>, StoreError> {
        let removals: Vec<_> = {
            let (mut all, now) = (self.lock(), self.clock.monotonic());
            let begin = |id: &String| {
                let known = all.get_mut(id).filter(|known| !known.is_told() && !known.is_connected(now))?;
                let before = known.instance.ended_at;
                known.end(acting.at);
                Some(Removal { instance: known.instance.clone(), row: known.shared.row, before })
            };
            ids.iter().filter_map(begin).collect()
        };
        let rows = removals.iter().map(|removal| (removal.instance.clone(), removal.row)).collect();
        let ended = self.store.end_instances(rows, ending, acting).await;
        let done: BTreeSet<_> = ended.iter().flatten().flat_map(|changed| &changed.value).cloned().collect();
        let mut all = self.lock();
        for Removal { instance, before, .. } in &removals {
            let Some(known) = all.get_mut(&instance.id) else { continue };
            if done.contains(&instance.id) {
                (known.saved, known.is_leaving) = (known.version, false);
            } else {
                known.instance.ended_at = *before;
                known.gone.send_replace(before.is_some());
            }
        }
        drop(all);
        self.wake();
        let count = |Changed { value, revision }: Changed<Vec<String>>| Changed {
            value: u64::try_from(value.len()).unwrap_or(u64::MAX),
            revision,
        };
        Ok(ended?.map(count))
    }
}
