//! The engine: one thread that writes and commits in groups, a few connections that read.
//!
//! Changes queue up. The writer (`writer.rs`) takes those that wait, runs each in a savepoint of one transaction, and
//! answers when COMMIT, and with it the fsync of the WAL, has returned. While the disk is busy, the next group forms.
//! SQLite and PostgreSQL work the same way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use policy::{Epoch, Position, Revision};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::error;

use super::replicas::deployment::{Deployment, Replication};
use super::{StoreError, StoreStats};
use crate::store::db::connection::{Connection, Connections, Source, read_with_reconnect};
use crate::store::db::database::Database;
use crate::store::db::lock::OpenError;
use crate::store::db::sql::Sql;
use crate::store::history::changes::{self, Write};
use crate::store::history::edge_token_index::{self, EdgeTokenIndex};
use crate::store::history::readiness::{NextCheck, Readiness};
use crate::store::history::writer::{Job, Publisher, WorkOutcome, WriterCounters, run_writer};
use crate::store::replicas::follow::{ReadMode, refresh};

/// The most changes that may queue. Later ones wait for a place until their request times out.
const QUEUE_CAPACITY: usize = 1024;

/// Connections that read. Reads are short, except for a snapshot, of which there is one at a time.
const READERS: u32 = 4;

/// The time limit of a readiness check. A disk that takes longer counts as accepting no change.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Engine {
    writer: mpsc::Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
    idle: Arc<Mutex<Vec<Connection>>>,
    source: Source,
    deployment: Deployment,
    permits: Arc<Semaphore>,
    head: watch::Receiver<Position>,
    edge_tokens: watch::Receiver<Arc<EdgeTokenIndex>>,
    counters: Arc<WriterCounters>,
    readiness: Readiness,
    /// Whether another program has committed to the file since it was opened.
    has_foreign_commits: Arc<AtomicBool>,
    /// Whether the database had no history when it was opened.
    was_new: bool,
}

impl Engine {
    /// Opens the database. A new one gets `epoch`; an existing one has its own.
    pub(super) fn open(database: &Database, epoch: Epoch) -> Result<Self, OpenError> {
        let has_foreign_commits = Arc::<AtomicBool>::default();
        let opened = Connections::open(database, epoch, READERS, Arc::clone(&has_foreign_commits))?;
        let Connections { writer, readers, source } = opened;
        let failed = |cause: String| OpenError::Failed(format!("{database}: {cause}"));
        let position = writer
            .sql()
            .map_err(StoreError::from)
            .and_then(changes::position)
            .map_err(|error| failed(error.to_string()))?;
        let tokens = writer
            .sql()
            .map_err(StoreError::from)
            .and_then(edge_token_index::load_index)
            .map_err(|error| failed(error.to_string()))?;
        let (head_sender, head) = watch::channel(position);
        let (tokens_sender, edge_tokens) = watch::channel(Arc::new(tokens));
        let counters = Arc::<WriterCounters>::default();
        let publisher = Arc::new(Publisher::new(head_sender, tokens_sender, Arc::clone(&counters)));
        let deployment = match &source {
            None => Deployment::Single,
            Some(server) => {
                let replication = Replication::start(server, &publisher, epoch);
                Deployment::Replicated(replication.map_err(|error| failed(error.to_string()))?)
            }
        };
        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run_writer(writer, queue, &publisher))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            writer: sender,
            thread: Mutex::new(Some(thread)),
            idle: Arc::new(Mutex::new(readers)),
            source,
            deployment,
            permits: Arc::new(Semaphore::new(READERS as usize)),
            head,
            edge_tokens,
            counters,
            readiness: Readiness::default(),
            has_foreign_commits,
            was_new: position.revision == Revision(0),
        })
    }

    pub(super) fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }

    pub(super) fn was_new(&self) -> bool {
        self.was_new
    }

    pub(super) fn has_foreign_commits(&self) -> bool {
        self.has_foreign_commits.load(Ordering::SeqCst)
    }

    /// All edge tokens; updated before a change of them is answered.
    pub(super) fn edge_tokens(&self) -> &watch::Receiver<Arc<EdgeTokenIndex>> {
        &self.edge_tokens
    }

    pub(super) fn stats(&self) -> StoreStats {
        let queued = self.writer.max_capacity().saturating_sub(self.writer.capacity());
        StoreStats {
            revision: self.head.borrow().revision,
            changes: self.counters.changes.load(Ordering::Relaxed),
            commits: self.counters.commits.load(Ordering::Relaxed),
            refused: self.counters.refused.load(Ordering::Relaxed),
            queued: u64::try_from(queued).unwrap_or(u64::MAX),
        }
    }

    /// Runs `work` as one write: all of it, or nothing if it fails. It is on disk when this returns `Ok`. If the
    /// caller stops waiting, the write may still be carried out.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = self.enqueue(work).await;
        log_error(self.count_refusal(answer))
    }

    /// Checks that changes are accepted, by [`Readiness`] and a read or probe. Logs nothing: it runs each second.
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        let unready = |why: &str| Err(StoreError::Unavailable(why.to_owned()));
        let next_check = self.readiness.next_check(Instant::now());
        let check = async {
            match next_check {
                NextCheck::BeginChange => self.enqueue(|write| write.position().map(drop)).await?,
                NextCheck::Probe => {
                    self.enqueue(|write| write.touch()).await?;
                    self.run(|sql| Ok(sql.checkpoint()?)).await?;
                }
                NextCheck::Wait => return unready("a change or read failed, and two probes must succeed first"),
                NextCheck::Never => {
                    return Err(StoreError::Damaged("a request found the damage: repair it, then restart".to_owned()));
                }
            }
            self.run(|sql| changes::position(sql).map(drop)).await
        };
        let answered = tokio::time::timeout(READY_TIMEOUT, check).await;
        let answered = answered.unwrap_or_else(|_| unready("the storage doesn't answer"));
        match next_check {
            NextCheck::BeginChange | NextCheck::Probe => self.count_refusal(answered)?,
            NextCheck::Wait | NextCheck::Never => answered?,
        }
        let is_ready = next_check == NextCheck::BeginChange || self.readiness.record_probe();
        if is_ready { Ok(()) } else { unready("one of two probes has succeeded") }
    }

    /// Checks that the newest revision can be read. Doesn't affect [`Readiness`].
    pub(super) async fn check_readable(&self) -> Result<(), StoreError> {
        let newest = self.run(|sql| {
            let position = changes::position(sql)?;
            changes::chain_hash(sql, position.revision).map(drop)
        });
        let answered = tokio::time::timeout(READY_TIMEOUT, newest).await;
        answered.unwrap_or_else(|_| Err(StoreError::Unavailable("the storage doesn't answer".to_owned())))
    }

    /// Counts a change that was refused, and records it in [`Readiness`].
    fn count_refusal<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ (StoreError::Unavailable(_) | StoreError::Unwritable(_) | StoreError::Damaged(_))) = &answer
        {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            self.readiness.record_error(error);
        }
        answer
    }

    /// Queues `work` for the writer, and waits for its result.
    async fn enqueue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answered) = oneshot::channel();
        let job = Box::new(move |write: Result<&Write<'_>, StoreError>| {
            let result = write.and_then(work);
            WorkOutcome {
                keep: result.is_ok(),
                // If sending fails, the caller has stopped waiting.
                answer: Box::new(move |committed| drop(reply.send(committed.and(result)))),
            }
        });
        self.writer.send(Job::Change(job)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Runs `work` on a connection that reads, in one transaction, so that all it sees is of one revision.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(Sql<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = self.run(work).await;
        if let Err(error) = &answer {
            self.readiness.record_error(error);
        }
        log_error(answer)
    }

    /// Like [`Self::read`], without recording errors in [`Readiness`] or the log.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Sql<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let (idle, source) = (Arc::clone(&self.idle), self.source.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = lock(&idle).pop();
            let (connection, result) = read_with_reconnect(connection, &source, work);
            lock(&idle).extend(connection);
            result
        });
        reading.await.map_err(|error| StoreError::Fault(error.to_string()))?
    }

    /// Whether other processes write to the database.
    pub(super) fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Reads what other replicas have committed, unless another such read has begun since this call.
    pub(super) async fn refresh(&self) -> Result<(), StoreError> {
        let Deployment::Replicated(replication) = &self.deployment else { return Ok(()) };
        let replica_link = Arc::clone(&replication.link);
        let called_at = Instant::now();
        let _turn = replication.refresh_turn.lock().await;
        if replica_link.replica.refreshed_at().is_some_and(|at| at > called_at) {
            return Ok(());
        }
        self.read(move |sql| refresh(sql, &replica_link.publisher, &replica_link.replica, ReadMode::Incremental)).await
    }

    /// Like [`Self::refresh`], but reads all instances, and always runs.
    pub(super) async fn refresh_all(&self, replication: &Replication) -> Result<(), StoreError> {
        let replica_link = Arc::clone(&replication.link);
        self.read(move |sql| refresh(sql, &replica_link.publisher, &replica_link.replica, ReadMode::Full)).await
    }

    /// Carries out queued changes, waits for running reads, then closes all connections; the last one checkpoints the
    /// WAL into the database.
    pub(super) async fn close(&self) {
        // Fails if it was closed before.
        let _ = self.writer.send(Job::Close).await;
        // A running read has a permit, and returns its connection before the permit. Fails if it was closed before.
        let ended = self.permits.acquire_many(READERS).await;
        self.permits.close();
        drop(ended);
        let idle = std::mem::take(&mut *lock(&self.idle));
        let others = match &self.deployment {
            Deployment::Single => Vec::new(),
            Deployment::Replicated(replication) => replication.end(),
        };
        let threads: Vec<_> = lock(&self.thread).take().into_iter().chain(others).collect();
        // Closing a connection to a server waits for the network.
        let ending = tokio::task::spawn_blocking(|| {
            let faults = threads.into_iter().filter_map(|thread| thread.join().err()).count();
            // One by one, after the writer's: if two close at the same time, neither checkpoints the WAL.
            drop(idle);
            faults == 0
        });
        if !ending.await.unwrap_or(false) {
            error!("a thread of the store panicked");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".to_owned())
}

/// Logs an error whose cause the client doesn't get. This is the only place that logs it.
fn log_error<T>(result: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(
        cause
        @ (StoreError::Unavailable(_) | StoreError::Unwritable(_) | StoreError::Damaged(_) | StoreError::Fault(_)),
    ) = &result
    {
        error!(%cause, "store");
    }
    result
}

#[cfg(test)]
mod tests;
