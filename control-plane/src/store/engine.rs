//! The engine: one thread that writes and commits in groups, a few connections that read.
//!
//! Changes queue up. The writer (`writer.rs`) takes those that wait, runs each in a savepoint of one transaction, and
//! answers when COMMIT, and with it the fsync of the WAL, has returned. While the disk is busy the next group gathers.
//! SQLite and PostgreSQL work the same way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use policy::{Epoch, Position, Revision};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot, watch};
use tracing::error;

use super::changes::{self, Change};
use super::connection::{Connection, Source, Writing, reading_anew};
use super::database::Database;
use super::edge_tokens::{self, KnownTokens};
use super::file_watch::Watch;
use super::lock::{Lock, OpenError};
use super::postgres::{Follower, Following, Reads, Server, look, speak};
use super::readiness::{Readiness, Turn};
use super::replicas::Replica;
use super::schema::{open_reader, open_writer};
use super::sql::{NONE, Sql};
use super::writer::{Counted, Done, Job, Publish, write};
use super::{StoreError, StoreStats};

/// The most changes that may queue. Later ones wait for a place until their request times out.
const QUEUE: usize = 1024;

/// Connections that read. Reads are short, except for a snapshot, of which there is one at a time.
const READERS: u32 = 4;

/// The time limit of a readiness check. A disk that takes longer counts as accepting no change.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Engine {
    writer: mpsc::Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
    idle: Arc<Mutex<Vec<Connection>>>,
    source: Source,
    /// Only for a server.
    following: Option<Arc<Following>>,
    follower: Mutex<Option<Follower>>,
    speaker: Mutex<Option<JoinHandle<()>>>,
    /// Held during a read of what other replicas committed.
    looking: AsyncMutex<()>,
    permits: Arc<Semaphore>,
    head: watch::Receiver<Position>,
    edge_tokens: watch::Receiver<Arc<KnownTokens>>,
    counted: Arc<Counted>,
    readiness: Readiness,
    /// Whether another program has committed to the file since it was opened.
    has_foreign_commits: Arc<AtomicBool>,
    /// Whether the database had no history when it was opened.
    was_new: bool,
}

/// What was opened.
struct Opened {
    writer: Connection,
    readers: Vec<Connection>,
    source: Source,
    watch: Option<Watch>,
}

impl Engine {
    /// Opens the database. A new one gets `epoch`; an existing one has its own.
    pub(super) fn open(database: &Database, epoch: Epoch) -> Result<Self, OpenError> {
        let has_foreign_commits = Arc::<AtomicBool>::default();
        let Opened { writer, readers, source, watch } = match database {
            Database::File(path) => {
                let lock = Arc::new(Lock::take(path)?);
                let writer = open_writer(&lock, epoch)?;
                let reader = |_| open_reader(&lock).map(|reader| Connection::Sqlite(reader, Arc::clone(&lock)));
                let readers = (0..READERS).map(reader).collect::<Result<_, _>>()?;
                let watch = Watch::begin(Arc::clone(&lock), &writer, Arc::clone(&has_foreign_commits))?;
                Opened { writer: Connection::Sqlite(writer, lock), readers, source: None, watch: Some(watch) }
            }
            Database::Server { url, password_file } => {
                let (server, session) = Server::open(url.expose(), password_file.as_deref(), epoch)?;
                let writer = Connection::Postgres(Box::new(session));
                // Connections that read are opened when they are needed.
                Opened { writer, readers: Vec::new(), source: Some(Arc::new(server)), watch: None }
            }
        };
        let failed = |cause: String| OpenError::Failed(format!("{database}: {cause}"));
        let position = changes::position(writer.sql()).map_err(|error| failed(error.to_string()))?;
        let tokens = edge_tokens::known(writer.sql()).map_err(|error| failed(error.to_string()))?;
        let (head_sender, head) = watch::channel(position);
        let (tokens_sender, edge_tokens) = watch::channel(Arc::new(tokens));
        let counted = Arc::<Counted>::default();
        let publish = Arc::new(Publish::new(head_sender, tokens_sender, Arc::clone(&counted)));
        let shared = source.clone().map(|server| share(server, &publish, epoch)).transpose();
        let (following, follower, speaker) = match shared.map_err(|error| failed(error.to_string()))? {
            Some((following, follower, speaker)) => (Some(following), Some(follower), Some(speaker)),
            None => (None, None, None),
        };
        let (sender, queue) = mpsc::channel(QUEUE);
        let writing = Writing::new(writer, source.clone(), watch);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write(writing, queue, &publish))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            writer: sender,
            thread: Mutex::new(Some(thread)),
            idle: Arc::new(Mutex::new(readers)),
            source,
            following,
            follower: Mutex::new(follower),
            speaker: Mutex::new(speaker),
            looking: AsyncMutex::default(),
            permits: Arc::new(Semaphore::new(READERS as usize)),
            head,
            edge_tokens,
            counted,
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
    pub(super) fn edge_tokens(&self) -> &watch::Receiver<Arc<KnownTokens>> {
        &self.edge_tokens
    }

    pub(super) fn stats(&self) -> StoreStats {
        let queued = self.writer.max_capacity().saturating_sub(self.writer.capacity());
        StoreStats {
            revision: self.head.borrow().revision,
            changes: self.counted.changes.load(Ordering::Relaxed),
            commits: self.counted.commits.load(Ordering::Relaxed),
            refused: self.counted.refused.load(Ordering::Relaxed),
            queued: u64::try_from(queued).unwrap_or(u64::MAX),
        }
    }

    /// Runs `work` as one change: all of it, or nothing if it fails. It is on disk when this returns `Ok`. If the
    /// caller stops waiting, the change may still be carried out.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = self.queued(work).await;
        reported(self.counted(answer))
    }

    /// Checks that changes are accepted, by [`Readiness`] and a read or probe. Logs nothing: it runs each second.
    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        let unready = |why: &str| Err(StoreError::Unavailable(why.to_owned()));
        let turn = self.readiness.turn(Instant::now());
        let asked = async {
            match turn {
                Turn::Look => self.queued(|change| change.position().map(drop)).await?,
                Turn::Probe => {
                    self.queued(|change| change.touch()).await?;
                    self.run(checkpoint).await?;
                }
                Turn::Wait => return unready("something was refused a moment ago, and two probes must succeed"),
                Turn::Never => return Err(StoreError::Damaged("it was found at a request since the start".to_owned())),
            }
            self.run(|sql| changes::position(sql).map(drop)).await
        };
        let answered = tokio::time::timeout(PATIENCE, asked).await;
        let answered = answered.unwrap_or_else(|_| unready("the storage doesn't answer"));
        match turn {
            Turn::Look | Turn::Probe => self.counted(answered)?,
            Turn::Wait | Turn::Never => answered?,
        }
        let is_ready = turn == Turn::Look || self.readiness.probed();
        if is_ready { Ok(()) } else { unready("one of two probes has succeeded") }
    }

    /// Checks that the newest revision can be read. Doesn't affect [`Readiness`].
    pub(super) async fn reads(&self) -> Result<(), StoreError> {
        let newest = self.run(|sql| {
            let position = changes::position(sql)?;
            changes::chain_hash(sql, position.revision).map(drop)
        });
        let answered = tokio::time::timeout(PATIENCE, newest).await;
        answered.unwrap_or_else(|_| Err(StoreError::Unavailable("the storage doesn't answer".to_owned())))
    }

    /// Counts a change that was refused, and records it in [`Readiness`].
    fn counted<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ (StoreError::Unavailable(_) | StoreError::Unwritable(_) | StoreError::Damaged(_))) = &answer
        {
            self.counted.refused.fetch_add(1, Ordering::Relaxed);
            self.readiness.note(error);
        }
        answer
    }

    /// Runs `work` when its turn comes.
    async fn queued<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answered) = oneshot::channel();
        let job = Box::new(move |change: Result<&Change<'_>, StoreError>| {
            let result = change.and_then(work);
            Done {
                keep: result.is_ok(),
                // If sending fails, nobody waits any more.
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
            self.readiness.note(error);
        }
        reported(answer)
    }

    /// The same, without recording errors in [`Readiness`] or the log.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Sql<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let (idle, source) = (Arc::clone(&self.idle), self.source.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = lock(&idle).pop();
            let (connection, result) = reading_anew(connection, &source, work);
            lock(&idle).extend(connection);
            result
        });
        reading.await.map_err(|error| StoreError::Fault(error.to_string()))?
    }

    /// This replica; `None` if nobody else writes to the database.
    pub(super) fn replica(&self) -> Option<&Replica> {
        self.following.as_ref().map(|following| &*following.replica)
    }

    /// Reads what other replicas have committed, unless another such read has begun since this call.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let Some(following) = self.following.clone() else { return Ok(()) };
        let asked_at = Instant::now();
        let _turn = self.looking.lock().await;
        if following.replica.looked_at().is_some_and(|at| at > asked_at) {
            return Ok(());
        }
        self.read(move |sql| look(sql, &following.publish, &following.replica, Reads::News)).await
    }

    /// The same, and reads all instances.
    pub(super) async fn look_at_all(&self) -> Result<(), StoreError> {
        let Some(following) = self.following.clone() else { return Ok(()) };
        self.read(move |sql| look(sql, &following.publish, &following.replica, Reads::All)).await
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
        if let Some(following) = &self.following {
            following.replica.end();
        }
        let follower = lock(&self.follower).take().and_then(Follower::end);
        let others = follower.into_iter().chain(lock(&self.speaker).take());
        let threads: Vec<_> = lock(&self.thread).take().into_iter().chain(others).collect();
        // Closing a connection to a server waits for the network.
        let ending = tokio::task::spawn_blocking(|| {
            let faults = threads.into_iter().filter_map(|thread| thread.join().err()).count();
            // One by one, after the writer's: of two closed at the same time, each would take the other for the last.
            drop(idle);
            faults == 0
        });
        if !ending.await.unwrap_or(false) {
            error!("a thread of the store ended by a fault");
        }
    }
}

/// Starts to follow the other replicas and to send them messages. `id` is this replica's, new at each start.
fn share(
    server: Arc<Server>,
    publish: &Arc<Publish>,
    id: Epoch,
) -> std::io::Result<(Arc<Following>, Follower, JoinHandle<()>)> {
    let (replica, words) = Replica::new(id.to_string());
    let speaker = speak(Arc::clone(&server), id.to_string(), words, Arc::clone(&replica.untold))?;
    let following = Arc::new(Following { publish: Arc::clone(publish), replica });
    let follower = Follower::start(server, Arc::clone(&following))?;
    Ok((following, follower, speaker))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".to_owned())
}

/// The border to the operator: errors whose cause a client doesn't get are logged here, once.
fn reported<T>(result: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(
        cause
        @ (StoreError::Unavailable(_) | StoreError::Unwritable(_) | StoreError::Damaged(_) | StoreError::Fault(_)),
    ) = &result
    {
        error!(%cause, "store");
    }
    result
}

/// Checkpoints the WAL into the file, as far as readers allow: on a full disk the WAL may have room when the file has
/// none, and changes would soon fail again.
fn checkpoint(sql: Sql<'_>) -> Result<(), StoreError> {
    match sql {
        Sql::Sqlite(_) => Ok(sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", NONE, |_| Ok(()))?),
        Sql::Postgres(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
