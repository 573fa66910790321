//! A cache of recent deltas: a change wakes all edges together, and most of them request the same delta.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use policy::wire::encode_delta;
use policy::{Position, Revision, UnixSeconds};
use tokio::sync::OnceCell;

use crate::store::{ChangesSince, Store, StoreError};

/// How many positions are cached: edges that missed a few changes each start from their own position.
const CACHED_POSITIONS: usize = 8;

/// Recent deltas. Ten thousand edges that start from the same position cost one read of the database and one encoding:
/// the others wait for the first.
#[derive(Default)]
pub(super) struct DeltaCache(Mutex<VecDeque<CachedDelta>>);

/// The delta from one position. It is valid while the head stays the same.
struct CachedDelta {
    from: Position,
    head: Position,
    lookup: Arc<OnceCell<DeltaLookup>>,
}

#[derive(Clone)]
pub(super) enum DeltaLookup {
    Delta(Bytes),
    /// `from` is the head.
    Nothing,
    /// `from` isn't in our history, or the log no longer reaches back to it.
    Unknown,
    /// `from` was in our history once: the database went back.
    WentBack {
        head: Revision,
        changed_at: Option<UnixSeconds>,
    },
}

impl DeltaCache {
    /// The delta from `from` towards the head.
    pub(super) async fn find(&self, store: &Store, from: Position) -> Result<DeltaLookup, StoreError> {
        let lookup = self.cell(from, *store.head().borrow());
        // If this request fails or is dropped, the next one that waits takes over.
        lookup.get_or_try_init(|| encode_from(store, from)).await.cloned()
    }

    fn cell(&self, from: Position, head: Position) -> Arc<OnceCell<DeltaLookup>> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(delta) = cached.iter().find(|delta| delta.from == from && delta.head == head) {
            return Arc::clone(&delta.lookup);
        }
        cached.truncate(CACHED_POSITIONS - 1);
        let lookup = Arc::default();
        cached.push_front(CachedDelta { from, head, lookup: Arc::clone(&lookup) });
        lookup
    }
}

async fn encode_from(store: &Store, from: Position) -> Result<DeltaLookup, StoreError> {
    match store.changes_since(from).await? {
        ChangesSince::Changes { to, bodies } => {
            let bytes =
                encode_delta(from.revision, to, &bodies).map_err(|error| StoreError::Fault(error.to_string()))?;
            Ok(DeltaLookup::Delta(bytes.into()))
        }
        ChangesSince::Nothing => Ok(DeltaLookup::Nothing),
        ChangesSince::Unknown => Ok(DeltaLookup::Unknown),
        ChangesSince::WentBack { head, changed_at } => Ok(DeltaLookup::WentBack { head, changed_at }),
    }
}

#[cfg(test)]
mod tests {
    use policy::{Epoch, WorkspaceId};
    use tokio::task::JoinSet;

    use super::*;
    use crate::base::config::Config;
    use crate::store::{ChangeContext, Database, NewWorkspace};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn edges_at_the_same_position_share_one_delta() {
        let directory = tempfile::tempdir().unwrap();
        let context = ChangeContext::system(UnixSeconds(0));
        let (database, epoch) = (Database::from(directory.path().join("latchkey.db")), Epoch::from_bytes([1; 16]));
        let store = Store::open(database, epoch, &Config::default(), context.clone()).await.unwrap();
        let from = *store.head().borrow();
        let id = WorkspaceId::from_bytes([1; 16]);
        let new = NewWorkspace { id, slug: "acme".to_owned(), name: "Acme".to_owned() };
        store.create_workspace(new, context).await.unwrap();

        let deltas = Arc::new(DeltaCache::default());
        let mut edges = JoinSet::new();
        for _ in 0..100 {
            let (deltas, store) = (Arc::clone(&deltas), store.clone());
            edges.spawn(async move { deltas.find(&store, from).await });
        }
        let found = edges.join_all().await;
        let bytes = found.into_iter().map(|found| match found {
            Ok(DeltaLookup::Delta(bytes)) => bytes,
            _ => panic!("no delta"),
        });
        let shared: std::collections::BTreeSet<_> = bytes.map(|bytes| bytes.as_ptr() as usize).collect();
        assert_eq!(shared.len(), 1, "each other address is a delta that was encoded again");
    }
}
