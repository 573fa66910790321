//! The task that folds batches into the store: all that wait form one round.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::round::merge;
use super::{Batch, BatchName, LeftOut, LeftOutCounts};
use crate::clock::Clock;
use crate::store::{Admitted, Store, StoreError, Then};

/// The memory that waiting batches may take, in units of about 100 bytes. Batches beyond that are answered 503, and are
/// sent again.
const ROOM: usize = 1_000_000;

/// The memory that a batch takes in addition to its entries.
const A_BATCH: usize = 4;

/// Batches that one slice records, and keys that one slice folds: some milliseconds, which another change may have to
/// wait for.
const BATCHES_A_SLICE: usize = 250;
const KEYS_A_SLICE: usize = 250;

/// How many times longer than a round the pause after it is, and the longest pause: meanwhile the next round gathers.
const PAUSES: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Why a batch was not folded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFolded {
    #[error("too much usage waits to be folded")]
    Full,
    #[error("the worker's sequence may be at most {most} now")]
    Jumps { most: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes batches. Clones share the task, which ends with the last of them.
#[derive(Clone)]
pub(crate) struct Folding {
    waiting: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
    counted: Arc<Counted>,
}

/// What was folded since the start.
#[derive(Debug, Default)]
struct Counted {
    batches: AtomicU64,
    dropped: AtomicU64,
    /// Denials without a right secret. Codes come from a fixed list.
    denied: Mutex<BTreeMap<&'static str, u64>>,
    left_out: Mutex<LeftOutCounts>,
}

/// A batch's counts that belong to no key.
struct Beside {
    dropped: u64,
    denied: Vec<(&'static str, u64)>,
    left_out: LeftOutCounts,
}

struct Waiting {
    batch: Batch,
    _place: OwnedSemaphorePermit,
    answer: oneshot::Sender<Result<(), NotFolded>>,
}

impl Folding {
    /// Starts to fold into `store`. When `ending` becomes true there are no more pauses.
    pub(crate) fn start(store: Store, clock: Clock, ending: watch::Receiver<bool>) -> Self {
        let (waiting, queue) = mpsc::unbounded_channel();
        let counted = Arc::<Counted>::default();
        tokio::spawn(run(Folder { store, clock, counted: Arc::clone(&counted) }, queue, ending));
        Self { waiting, room: Arc::new(Semaphore::new(ROOM)), counted }
    }

    /// Folds a batch exactly once. When this returns `Ok`, it is on disk, possibly since an earlier attempt.
    pub(crate) async fn fold(&self, batch: Batch) -> Result<(), NotFolded> {
        let size = A_BATCH.saturating_add(batch.size());
        let size = u32::try_from(size).map_err(|_| NotFolded::Full)?;
        let place = Arc::clone(&self.room).try_acquire_many_owned(size).map_err(|_| NotFolded::Full)?;
        let (answer, answered) = oneshot::channel();
        let closed = || NotFolded::Store(StoreError::Unavailable("it is closed".to_owned()));
        self.waiting.send(Waiting { batch, _place: place, answer }).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Batches that were folded, and requests that edges dropped, since the start.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.counted.batches.load(Ordering::Relaxed), self.counted.dropped.load(Ordering::Relaxed))
    }

    /// Denials without a right secret, by code, since the start.
    pub(crate) fn denied(&self) -> BTreeMap<&'static str, u64> {
        self.counted.denied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Entries that were left out since the start.
    pub(crate) fn left_out(&self) -> LeftOutCounts {
        *self.counted.left_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn leave_out(&self, more: &LeftOutCounts) {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).add_all(more);
    }

    fn add(&self, batches: &[Beside]) {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        for Beside { dropped, denied: codes, left_out } in batches {
            self.batches.fetch_add(1, Ordering::Relaxed);
            let sum = |count: u64| Some(count.saturating_add(*dropped));
            // Never fails: the closure always returns `Some`.
            let _ = self.dropped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
            self.leave_out(left_out);
            for (code, more) in codes {
                let count = denied.entry(code).or_default();
                *count = count.saturating_add(*more);
            }
        }
    }
}

async fn run(folder: Folder, mut queue: mpsc::UnboundedReceiver<Waiting>, mut ending: watch::Receiver<bool>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first];
        while let Ok(more) = queue.try_recv() {
            waiting.push(more);
        }
        let began = Instant::now();
        folder.fold_all(waiting).await;
        let pause = began.elapsed().saturating_mul(PAUSES).min(LONGEST_PAUSE);
        // It doesn't matter whether the time ran out or the service ends.
        let _ = timeout(pause, ending.wait_for(|ending| *ending)).await;
    }
}

struct Folder {
    store: Store,
    clock: Clock,
    counted: Arc<Counted>,
}

impl Folder {
    async fn fold_all(&self, waiting: Vec<Waiting>) {
        // A retry may wait together with the batch that it repeats.
        let (mut batches, mut answers, mut places) = (HashMap::<BatchName, Batch>::new(), Vec::new(), Vec::new());
        for Waiting { batch, _place, answer } in waiting {
            answers.push((batch.name.clone(), answer));
            places.push(_place);
            if let Entry::Vacant(entry) = batches.entry(batch.name.clone()) {
                entry.insert(batch);
            }
        }
        let mut batches: Vec<_> = batches.into_values().collect();
        // Of two batches of a worker the older one comes first: otherwise the newer one would supersede it.
        batches.sort_unstable_by_key(|batch| batch.name.sequence);
        let folded = self.fold_round(batches).await;
        drop(places);
        for (name, answer) in answers {
            let result = match &folded {
                Ok(jumps) => jumps.get(&name).map_or(Ok(()), |most| Err(NotFolded::Jumps { most: *most })),
                Err(error) => Err(error.clone().into()),
            };
            // A worker whose request was dropped sends the batch again.
            let _ = answer.send(result);
        }
    }

    /// Records the batches, merges the new ones, and folds the result. Returns those whose sequence is too far ahead,
    /// each with the highest that it may have.
    async fn fold_round(&self, batches: Vec<Batch>) -> Result<HashMap<BatchName, u64>, StoreError> {
        let now = self.clock.now();
        let (mut round, mut admitted) = (None, Vec::with_capacity(batches.len()));
        for slice in batches.chunks(BATCHES_A_SLICE) {
            let names = slice.iter().map(|batch| batch.name.clone()).collect();
            let (begun, more) = self.store.begin_usage_round(round, names, now).await?;
            round = begun;
            admitted.extend(more);
        }
        let jump = |(batch, admitted): (&Batch, &Admitted)| match admitted {
            Admitted::Jumps { most } => Some((batch.name.clone(), *most)),
            Admitted::New | Admitted::Behind(_) | Admitted::Counted => None,
        };
        let jumps = batches.iter().zip(&admitted).filter_map(jump).collect();
        let Some(round) = round else { return Ok(jumps) };
        let merging = tokio::task::spawn_blocking(move || {
            let beside = |(batch, admitted): (&Batch, &Admitted)| match admitted {
                Admitted::New | Admitted::Behind(_) => {
                    let Batch { dropped, denied, left_out, .. } = batch;
                    Some(Beside { dropped: *dropped, denied: denied.clone(), left_out: *left_out })
                }
                Admitted::Counted | Admitted::Jumps { .. } => None,
            };
            let told: Vec<_> = batches.iter().zip(&admitted).filter_map(beside).collect();
            (merge(batches.into_iter().zip(admitted)), told)
        });
        let (keys, told) = merging.await.map_err(|error| StoreError::Fault(error.to_string()))?;
        let mut keys = keys.into_iter();
        loop {
            let slice: Vec<_> = keys.by_ref().take(KEYS_A_SLICE).collect();
            let then = if keys.len() == 0 { Then::End } else { Then::GoOn };
            let unknown = self.store.fold_usage(round, slice, then, now).await?;
            let mut left_out = LeftOutCounts::default();
            left_out.add(LeftOut::UnknownKey, unknown);
            self.counted.leave_out(&left_out);
            if then == Then::End {
                self.counted.add(&told);
                return Ok(jumps);
            }
        }
    }
}
