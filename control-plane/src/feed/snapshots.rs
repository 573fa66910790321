//! Snapshots for edges: made once, shared by all, and kept while an edge may still be loading one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use policy::{Epoch, Position, Revision};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::store::{Store, StoreError};

/// A snapshot still serves while it is behind the head by at most one part in this many of the log's length: the deltas
/// from it are a few messages, and a new one costs a pass over all keys.
const NEAR_PART: u64 = 10;

/// The same in bytes: the deltas from a snapshot may be as long as one part in this many of the snapshot, and at least
/// [`NEAR_BYTES`]. A loading edge has to apply them all, and holds them in memory with the pages until then.
const NEAR_BYTES_PART: u64 = 4;
const NEAR_BYTES: u64 = 16 << 20;

/// A snapshot this young serves even if it is further behind. Otherwise, during a burst of changes, a loading edge
/// would find its pages gone again and again.
const YOUNG: Duration = Duration::from_secs(30);

/// A young one may be behind by one part in this many of the log's length.
const MAX_PART: u64 = 2;

/// How long after its last request a snapshot counts as being loaded, or its edge as catching up from it.
const IDLE: Duration = Duration::from_secs(60);

/// The newest snapshot, and the one before.
pub(super) struct Snapshots {
    /// How many of the newest revisions the log keeps.
    log_revisions: u64,
    kept: Mutex<SnapshotCache>,
    /// Held while a snapshot is made, so that one is made at a time.
    making: Arc<AsyncMutex<()>>,
}

#[derive(Default)]
struct SnapshotCache {
    newest: Option<Arc<CachedSnapshot>>,
    previous: Option<Arc<CachedSnapshot>>,
    /// The head when the snapshot in progress began.
    making: Option<Revision>,
}

/// A snapshot as the messages that edges request.
pub(super) struct CachedSnapshot {
    position: Position,
    made_at: Instant,
    /// When an edge last requested the manifest or a page.
    requested_at: Mutex<Instant>,
    pub(super) manifest: Bytes,
    pages: Vec<Bytes>,
    /// The bytes of all pages.
    bytes: u64,
    /// The bytes of the changes since, counted up to this revision.
    since: Mutex<(Revision, u64)>,
}

impl Snapshots {
    pub(super) fn new(log_revisions: u64) -> Self {
        Self { log_revisions, kept: Mutex::default(), making: Arc::default() }
    }

    /// The oldest revision from which an edge may still need changes, because it loads a snapshot or has just loaded
    /// one.
    pub(super) fn oldest_needed(&self) -> Option<Revision> {
        let kept = lock(&self.kept);
        let snapshots = [&kept.newest, &kept.previous].into_iter().flatten();
        let loaded = snapshots.filter(|snapshot| !snapshot.is_idle()).map(|snapshot| snapshot.position.revision);
        loaded.chain(kept.making).min()
    }

    /// A snapshot from which deltas lead to the head. Makes a new one when there is none; that costs a pass over all
    /// keys.
    pub(super) async fn current(self: &Arc<Self>, store: &Store) -> Result<Arc<CachedSnapshot>, StoreError> {
        if let Some(snapshot) = self.serving(store).await? {
            return Ok(snapshot);
        }
        let making = Arc::clone(&self.making).lock_owned().await;
        // Another request may have made one meanwhile.
        if let Some(snapshot) = self.serving(store).await? {
            return Ok(snapshot);
        }
        let (all, store) = (Arc::clone(self), store.clone());
        lock(&self.kept).making = Some(store.head().borrow().revision);
        // In a task of its own: an edge that disconnects must not cancel what others wait for.
        let made = tokio::spawn(async move {
            let _making = making;
            let began = Instant::now();
            let made = store.snapshot().await;
            lock(&all.kept).making = None;
            let snapshot = made?;
            let bytes: usize = snapshot.pages.iter().map(Vec::len).sum();
            let elapsed_ms = began.elapsed().as_millis();
            tracing::info!(revision = snapshot.position.revision.0, bytes, elapsed_ms, "made a snapshot");
            let now = Instant::now();
            let (bytes, revision) = (u64::try_from(bytes).unwrap_or(u64::MAX), snapshot.position.revision);
            let snapshot = Arc::new(CachedSnapshot {
                bytes,
                since: Mutex::new((revision, 0)),
                position: snapshot.position,
                made_at: now,
                requested_at: Mutex::new(now),
                manifest: snapshot.manifest.into(),
                pages: snapshot.pages.into_iter().map(Bytes::from).collect(),
            });
            all.replace(Arc::clone(&snapshot));
            Ok(snapshot)
        });
        made.await.unwrap_or_else(|error| Err(StoreError::Fault(error.to_string())))
    }

    /// A page of the snapshot at this position, if the snapshot is still kept and has that page.
    pub(super) fn page(&self, epoch: Epoch, revision: Revision, page: usize) -> Option<Bytes> {
        let kept = lock(&self.kept);
        let at = |snapshot: &&Arc<CachedSnapshot>| {
            snapshot.position.epoch == epoch && snapshot.position.revision == revision
        };
        let snapshot = [&kept.newest, &kept.previous].into_iter().flatten().find(at)?;
        snapshot.touch();
        snapshot.pages.get(page).cloned()
    }

    async fn serving(&self, store: &Store) -> Result<Option<Arc<CachedSnapshot>>, StoreError> {
        let head = *store.head().borrow();
        let newest = {
            let mut kept = lock(&self.kept);
            if kept.previous.as_ref().is_some_and(|previous| previous.is_idle()) {
                kept.previous = None;
            }
            kept.newest.clone()
        };
        let Some(snapshot) = newest else { return Ok(None) };
        let age = snapshot.made_at.elapsed();
        if !serves(snapshot.position, head, age, self.log_revisions) {
            return Ok(None);
        }
        if age >= YOUNG && !serves_bytes(snapshot.bytes, snapshot.bytes_since(store).await?) {
            return Ok(None);
        }
        snapshot.touch();
        Ok(Some(snapshot))
    }

    fn replace(&self, snapshot: Arc<CachedSnapshot>) {
        let mut kept = lock(&self.kept);
        kept.previous = kept.newest.replace(snapshot);
    }
}

impl CachedSnapshot {
    fn touch(&self) {
        *lock(&self.requested_at) = Instant::now();
    }

    fn is_idle(&self) -> bool {
        lock(&self.requested_at).elapsed() > IDLE
    }

    /// The bytes of the changes that lead from this snapshot to the head. Each change is counted once, not once for
    /// each request.
    async fn bytes_since(&self, store: &Store) -> Result<u64, StoreError> {
        let (counted, _) = *lock(&self.since);
        let (to, more) = store.bytes_since(counted).await?;
        let mut since = lock(&self.since);
        if since.0 == counted {
            *since = (to, since.1.saturating_add(more));
        }
        Ok(since.1)
    }
}

fn serves(snapshot: Position, head: Position, age: Duration, log_revisions: u64) -> bool {
    let behind = head.revision.0.checked_sub(snapshot.revision.0);
    let limit = log_revisions / if age < YOUNG { MAX_PART } else { NEAR_PART };
    snapshot.epoch == head.epoch && behind.is_some_and(|behind| behind <= limit)
}

fn serves_bytes(snapshot: u64, since: u64) -> bool {
    since <= NEAR_BYTES.max(snapshot / NEAR_BYTES_PART)
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
            assert_eq!(serves(snapshot, head, age, 100_000), expected, "{name}");
        }
    }

    #[test]
    fn a_snapshot_that_an_import_has_left_far_behind_does_not_serve() {
        const MIB: u64 = 1 << 20;
        for (name, snapshot, since, expected) in [
            ("a small one", 0, 16 * MIB, true),
            ("a small one, behind an import", 0, 16 * MIB + 1, false),
            ("a large one", 100 * MIB, 25 * MIB, true),
            ("a large one, behind an import", 100 * MIB, 25 * MIB + 1, false),
        ] {
            assert_eq!(serves_bytes(snapshot, since), expected, "{name}");
        }
    }
}
