//! Snapshots that edges load: made once, shared by all, and kept while somebody may still be loading one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use policy::{Epoch, Position, Revision};
use tokio::sync::Mutex as AsyncMutex;

use crate::store::{Store, StoreError};

/// A snapshot this far behind the head still serves: the deltas from it are a few messages, a new one is a pass over all
/// keys. Far below what the log keeps.
const NEAR_REVISIONS: u64 = 10_000;

/// A snapshot this young serves even when changes come so fast that it is further behind: else, under a storm of changes, a
/// loading edge would find its pages gone again and again.
const YOUNG: Duration = Duration::from_secs(30);

/// The furthest behind that even a young one may be; the log keeps more.
const MAX_REVISIONS: u64 = 50_000;

/// How long a snapshot that was replaced stays after its last page was asked for.
const IDLE: Duration = Duration::from_secs(60);

/// The newest snapshot, and the one before.
#[derive(Default)]
pub(super) struct Snapshots {
    kept: Mutex<Kept>,
    /// Held while one is made, so that one is made at a time.
    making: Arc<AsyncMutex<()>>,
}

#[derive(Default)]
struct Kept {
    newest: Option<Arc<Loadable>>,
    previous: Option<Arc<Loadable>>,
}

/// A snapshot in the messages that edges ask for.
pub(super) struct Loadable {
    position: Position,
    made_at: Instant,
    /// When somebody last asked for a page.
    asked_at: Mutex<Instant>,
    pub(super) manifest: Bytes,
    pages: Vec<Bytes>,
}

impl Snapshots {
    /// A snapshot from which deltas lead to the head. Makes a new one when there is none; that costs a pass over all keys.
    pub(super) async fn current(self: &Arc<Self>, store: &Store) -> Result<Arc<Loadable>, StoreError> {
        if let Some(snapshot) = self.serving(store) {
            return Ok(snapshot);
        }
        let making = Arc::clone(&self.making).lock_owned().await;
        // Somebody else may have made one meanwhile.
        if let Some(snapshot) = self.serving(store) {
            return Ok(snapshot);
        }
        let (all, store) = (Arc::clone(self), store.clone());
        // A task of its own: an edge that goes away must not undo what others wait for.
        let made = tokio::spawn(async move {
            let _making = making;
            let began = Instant::now();
            let snapshot = store.snapshot().await?;
            let bytes: usize = snapshot.pages.iter().map(Vec::len).sum();
            let elapsed_ms = began.elapsed().as_millis();
            tracing::info!(revision = snapshot.position.revision.0, bytes, elapsed_ms, "made a snapshot");
            let now = Instant::now();
            let snapshot = Arc::new(Loadable {
                position: snapshot.position,
                made_at: now,
                asked_at: Mutex::new(now),
                manifest: snapshot.manifest.into(),
                pages: snapshot.pages.into_iter().map(Bytes::from).collect(),
            });
            all.replace(Arc::clone(&snapshot));
            Ok(snapshot)
        });
        made.await.unwrap_or_else(|error| Err(StoreError::Fault(error.to_string())))
    }

    /// A page of the snapshot at this position, if it is still there and has so many.
    pub(super) fn page(&self, epoch: Epoch, revision: Revision, page: usize) -> Option<Bytes> {
        let kept = lock(&self.kept);
        let at = |snapshot: &&Arc<Loadable>| snapshot.position.epoch == epoch && snapshot.position.revision == revision;
        let snapshot = [&kept.newest, &kept.previous].into_iter().flatten().find(at)?;
        *lock(&snapshot.asked_at) = Instant::now();
        snapshot.pages.get(page).cloned()
    }

    fn serving(&self, store: &Store) -> Option<Arc<Loadable>> {
        let head = *store.head().borrow();
        let mut kept = lock(&self.kept);
        if kept.previous.as_ref().is_some_and(|previous| lock(&previous.asked_at).elapsed() > IDLE) {
            kept.previous = None;
        }
        kept.newest.clone().filter(|snapshot| serves(snapshot.position, head, snapshot.made_at.elapsed()))
    }

    fn replace(&self, snapshot: Arc<Loadable>) {
        let mut kept = lock(&self.kept);
        kept.previous = kept.newest.replace(snapshot);
        if let Some(previous) = &kept.previous {
            *lock(&previous.asked_at) = Instant::now();
        }
    }
}

fn serves(snapshot: Position, head: Position, age: Duration) -> bool {
    let behind = head.revision.0.checked_sub(snapshot.revision.0);
    let limit = if age < YOUNG { MAX_REVISIONS } else { NEAR_REVISIONS };
    snapshot.epoch == head.epoch && behind.is_some_and(|behind| behind <= limit)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_serves_while_its_deltas_are_short() {
        let at = |epoch, revision| Position::first(Epoch::from_bytes([epoch; 16]), Revision(revision));
        let (young, old) = (Duration::from_secs(1), Duration::from_secs(31));
        for (name, snapshot, head, age, expected) in [
            ("the head itself", at(1, 5), at(1, 5), old, true),
            ("near", at(1, 5), at(1, 10_005), old, true),
            ("far", at(1, 5), at(1, 10_006), old, false),
            ("far but young", at(1, 5), at(1, 50_005), young, true),
            ("too far, however young", at(1, 5), at(1, 50_006), young, false),
            ("another epoch", at(2, 5), at(1, 5), young, false),
            ("ahead", at(1, 6), at(1, 5), young, false),
        ] {
            assert_eq!(serves(snapshot, head, age), expected, "{name}");
        }
    }
}
