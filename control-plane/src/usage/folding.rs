//! The task that folds batches into the store: all queued batches form one round.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::merge::merge;
use super::{Batch, BatchName, SkipCounts, SkipReason};
use crate::base::clock::Clock;
use crate::store::{BatchAdmission, SlicePosition, Store, StoreError};

/// The memory that queued batches may take, in units of about 100 bytes. Further batches are answered 503, and their
/// workers retry.
const QUEUE_CAPACITY: usize = 1_000_000;

/// The memory that a batch takes in addition to its entries.
const BATCH_OVERHEAD: usize = 4;

/// Batches that one slice records, and keys that one slice folds: some milliseconds, which another change may have to
/// wait for.
const BATCHES_PER_SLICE: usize = 250;
const KEYS_PER_SLICE: usize = 250;

/// The pause after a round is this many times as long as the round. Batches that arrive during it form the next round.
const PAUSE_FACTOR: u32 = 4;

/// The longest pause after a round.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Why a batch was not folded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FoldError {
    #[error("the queue of usage batches is full")]
    Full,
    #[error("the worker's sequence may be at most {most} now")]
    SequenceTooHigh { most: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Accepts batches and folds them in a task. Clones share the task, which ends with the last clone.
#[derive(Clone)]
pub(crate) struct UsageFolder {
    waiting: mpsc::UnboundedSender<QueuedBatch>,
    capacity: Arc<Semaphore>,
    totals: Arc<UsageTotals>,
}

/// The totals since the start of the process.
#[derive(Debug, Default)]
struct UsageTotals {
    batches: AtomicU64,
    dropped: AtomicU64,
    /// Denials without a valid secret. Codes are from a fixed list.
    denied: Mutex<BTreeMap<&'static str, u64>>,
    skipped: Mutex<SkipCounts>,
}

/// A batch's counts that belong to no key.
struct KeylessCounts {
    dropped: u64,
    denied: Vec<(&'static str, u64)>,
    skipped: SkipCounts,
}

struct QueuedBatch {
    batch: Batch,
    _permit: OwnedSemaphorePermit,
    answer: oneshot::Sender<Result<(), FoldError>>,
}

impl UsageFolder {
    /// Starts the task that folds into `store`. It doesn't pause after `ending` becomes true.
    pub(crate) fn start(store: Store, clock: Clock, ending: watch::Receiver<bool>) -> Self {
        let (waiting, queue) = mpsc::unbounded_channel();
        let totals = Arc::<UsageTotals>::default();
        tokio::spawn(run(FoldTask { store, clock, totals: Arc::clone(&totals) }, queue, ending));
        Self { waiting, capacity: Arc::new(Semaphore::new(QUEUE_CAPACITY)), totals }
    }

    /// Folds a batch exactly once. When this returns `Ok`, it is on disk, possibly since an earlier attempt.
    pub(crate) async fn fold(&self, batch: Batch) -> Result<(), FoldError> {
        let size = BATCH_OVERHEAD.saturating_add(batch.size());
        let size = u32::try_from(size).map_err(|_| FoldError::Full)?;
        let permit = Arc::clone(&self.capacity).try_acquire_many_owned(size).map_err(|_| FoldError::Full)?;
        let (answer, answered) = oneshot::channel();
        let closed = || FoldError::Store(StoreError::Unavailable("the task that folds usage has stopped".to_owned()));
        self.waiting.send(QueuedBatch { batch, _permit: permit, answer }).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Batches that were folded, and requests that edges dropped, since the start.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.totals.batches.load(Ordering::Relaxed), self.totals.dropped.load(Ordering::Relaxed))
    }

    /// Denials without a valid secret, by code, since the start.
    pub(crate) fn denied(&self) -> BTreeMap<&'static str, u64> {
        self.totals.denied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Entries that were skipped since the start.
    pub(crate) fn skipped(&self) -> SkipCounts {
        *self.totals.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UsageTotals {
    fn add_skipped(&self, more: &SkipCounts) {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).add_all(more);
    }

    fn add(&self, batches: &[KeylessCounts]) {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        for KeylessCounts { dropped, denied: codes, skipped } in batches {
            self.batches.fetch_add(1, Ordering::Relaxed);
            let sum = |count: u64| Some(count.saturating_add(*dropped));
            // Never fails: the closure always returns `Some`.
            let _ = self.dropped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
            self.add_skipped(skipped);
            for (code, more) in codes {
                let count = denied.entry(code).or_default();
                *count = count.saturating_add(*more);
            }
        }
    }
}

async fn run(folder: FoldTask, mut queue: mpsc::UnboundedReceiver<QueuedBatch>, mut ending: watch::Receiver<bool>) {
    while let Some(first) = queue.recv().await {
        let mut waiting = vec![first];
        while let Ok(more) = queue.try_recv() {
            waiting.push(more);
        }
        let began = Instant::now();
        folder.fold_all(waiting).await;
        let pause = began.elapsed().saturating_mul(PAUSE_FACTOR).min(LONGEST_PAUSE);
        // The result doesn't matter: either the pause is over or the service ends.
        let _ = timeout(pause, ending.wait_for(|ending| *ending)).await;
    }
}

struct FoldTask {
    store: Store,
    clock: Clock,
    totals: Arc<UsageTotals>,
}

impl FoldTask {
    async fn fold_all(&self, waiting: Vec<QueuedBatch>) {
        // A retry may wait together with the batch that it repeats.
        let (mut batches, mut answers, mut permits) = (HashMap::<BatchName, Batch>::new(), Vec::new(), Vec::new());
        for QueuedBatch { batch, _permit, answer } in waiting {
            answers.push((batch.name.clone(), answer));
            permits.push(_permit);
            if let Entry::Vacant(entry) = batches.entry(batch.name.clone()) {
                entry.insert(batch);
            }
        }
        let mut batches: Vec<_> = batches.into_values().collect();
        // A worker's older batch comes first: otherwise its newer one would supersede it.
        batches.sort_unstable_by_key(|batch| batch.name.sequence);
        let folded = self.fold_round(batches).await;
        drop(permits);
        for (name, answer) in answers {
            let result = match &folded {
                Ok(jumps) => jumps.get(&name).map_or(Ok(()), |most| Err(FoldError::SequenceTooHigh { most: *most })),
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
        for slice in batches.chunks(BATCHES_PER_SLICE) {
            let names = slice.iter().map(|batch| batch.name.clone()).collect();
            let (begun, more) = self.store.begin_usage_round(round, names, now).await?;
            round = begun;
            admitted.extend(more);
        }
        let jump = |(batch, admitted): (&Batch, &BatchAdmission)| match admitted {
            BatchAdmission::SequenceTooHigh { most } => Some((batch.name.clone(), *most)),
            BatchAdmission::New | BatchAdmission::Partial(_) | BatchAdmission::Duplicate => None,
        };
        let jumps = batches.iter().zip(&admitted).filter_map(jump).collect();
        let Some(round) = round else { return Ok(jumps) };
        let merging = tokio::task::spawn_blocking(move || {
            let keyless = |(batch, admitted): (&Batch, &BatchAdmission)| match admitted {
                BatchAdmission::New | BatchAdmission::Partial(_) => {
                    let Batch { dropped, denied, skipped, .. } = batch;
                    Some(KeylessCounts { dropped: *dropped, denied: denied.clone(), skipped: *skipped })
                }
                BatchAdmission::Duplicate | BatchAdmission::SequenceTooHigh { .. } => None,
            };
            let keyless: Vec<_> = batches.iter().zip(&admitted).filter_map(keyless).collect();
            (merge(batches.into_iter().zip(admitted)), keyless)
        });
        let (keys, keyless) = merging.await.map_err(|error| StoreError::Fault(error.to_string()))?;
        let mut keys = keys.into_iter();
        loop {
            let slice: Vec<_> = keys.by_ref().take(KEYS_PER_SLICE).collect();
            let position = if keys.len() == 0 { SlicePosition::Last } else { SlicePosition::More };
            let unknown = self.store.fold_usage(round, slice, position, now).await?;
            let mut skipped = SkipCounts::default();
            skipped.add(SkipReason::UnknownKey, unknown);
            self.totals.add_skipped(&skipped);
            if position == SlicePosition::Last {
                self.totals.add(&keyless);
                return Ok(jumps);
            }
        }
    }
}
