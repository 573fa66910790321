//! A cache of recent deltas: a change wakes all edges together, and most of them ask for the same one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use policy::wire::encode_delta;
use policy::{Position, Revision, UnixSeconds};
use tokio::sync::OnceCell;

use crate::store::{Since, Store, StoreError};

/// How many positions are cached: edges that missed a few changes each ask from their own position.
const KEPT: usize = 8;

/// Recent answers. Ten thousand edges that ask from the same position cost one read of the database and one encoding:
/// the others wait for the first.
#[derive(Default)]
pub(super) struct Deltas(Mutex<VecDeque<Asked>>);

/// The answer for one position. It is valid while the head stays the same.
struct Asked {
    from: Position,
    head: Position,
    found: Arc<OnceCell<Found>>,
}

#[derive(Clone)]
pub(super) enum Found {
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

impl Deltas {
    /// The delta from `from` towards the head.
    pub(super) async fn find(&self, store: &Store, from: Position) -> Result<Found, StoreError> {
        let found = self.cell(from, *store.head().borrow());
        // If this request fails or is dropped, the next one that waits takes over.
        found.get_or_try_init(|| cut(store, from)).await.cloned()
    }

    fn cell(&self, from: Position, head: Position) -> Arc<OnceCell<Found>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = kept.iter().find(|asked| asked.from == from && asked.head == head) {
            return Arc::clone(&asked.found);
        }
        kept.truncate(KEPT - 1);
        let found = Arc::default();
        kept.push_front(Asked { from, head, found: Arc::clone(&found) });
        found
    }
}

async fn cut(store: &Store, from: Position) -> Result<Found, StoreError> {
    match store.changes_since(from).await? {
        Since::Changes { to, bodies } => {
            let bytes =
                encode_delta(from.revision, to, &bodies).map_err(|error| StoreError::Fault(error.to_string()))?;
            Ok(Found::Delta(bytes.into()))
        }
        Since::Nothing => Ok(Found::Nothing),
        Since::Unknown => Ok(Found::Unknown),
        Since::WentBack { head, changed_at } => Ok(Found::WentBack { head, changed_at }),
    }
}

#[cfg(test)]
mod tests {
    use policy::{Epoch, WorkspaceId};
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::Config;
    use crate::store::{Acting, Database, NewWorkspace};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn edges_at_the_same_position_share_one_delta() {
        let directory = tempfile::tempdir().unwrap();
        let acting = Acting::system(UnixSeconds(0));
        let (database, epoch) = (Database::from(directory.path().join("latchkey.db")), Epoch::from_bytes([1; 16]));
        let store = Store::open(database, epoch, &Config::default(), acting.clone()).await.unwrap();
        let from = *store.head().borrow();
        let id = WorkspaceId::from_bytes([1; 16]);
        let new = NewWorkspace { id, slug: "acme".to_owned(), name: "Acme".to_owned() };
        store.create_workspace(new, acting).await.unwrap();

        let deltas = Arc::new(Deltas::default());
        let mut edges = JoinSet::new();
        for _ in 0..100 {
            let (deltas, store) = (Arc::clone(&deltas), store.clone());
            edges.spawn(async move { deltas.find(&store, from).await });
        }
        let found = edges.join_all().await;
        let bytes = found.into_iter().map(|found| match found {
            Ok(Found::Delta(bytes)) => bytes,
            _ => panic!("no delta"),
        });
        let shared: std::collections::BTreeSet<_> = bytes.map(|bytes| bytes.as_ptr() as usize).collect();
        assert_eq!(shared.len(), 1, "each further address is a delta that was encoded again");
    }
}
