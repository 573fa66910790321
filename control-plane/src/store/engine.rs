//! The engine: one thread that writes and commits in groups, a few connections that read.
//!
//! Changes queue up. The writer (`writer.rs`) takes all that wait, runs each in a savepoint of one transaction, and
//! answers when COMMIT, and with it the fsync of the WAL, has returned. While the disk is busy the next group gathers. It is the
//! same on SQLite and on PostgreSQL.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use policy::{Epoch, Position};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot, watch};
use tracing::error;

use super::changes::{self, Change};
use super::connection::{Connection, Source, Writing, reading_anew};
use super::database::Database;
use super::edge_tokens::{self, LiveTokens};
use super::lock::{Lock, OpenError};
use super::postgres::{Follower, Following, Reads, Server, look, speak};
use super::replicas::Replica;
use super::schema::{open_reader, open_writer};
use super::sql::Sql;
use super::writer::{Counted, Done, Job, Publish, write};
use super::{StoreError, StoreStats};

/// Changes that may wait; who comes later waits for a place, as long as its request may take.
const QUEUE: usize = 1024;

/// Connections that read. Reads are short, but for a snapshot; there is one of those at a time.
const READERS: u32 = 4;

pub(super) struct Engine {
    writer: mpsc::Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
    idle: Arc<Mutex<Vec<Connection>>>,
    source: Source,
    /// Of a server.
    following: Option<Arc<Following>>,
    follower: Mutex<Option<Follower>>,
    speaker: Mutex<Option<JoinHandle<()>>>,
    /// Held while somebody looks at what others did.
    looking: AsyncMutex<()>,
    permits: Arc<Semaphore>,
    head: watch::Receiver<Position>,
    edge_tokens: watch::Receiver<Arc<LiveTokens>>,
    counted: Arc<Counted>,
    /// Of a file. Held until it is closed.
    lock: Mutex<Option<Lock>>,
}

/// What was opened.
struct Opened {
    writer: Connection,
    readers: Vec<Connection>,
    source: Source,
    lock: Option<Lock>,
}

impl Engine {
    /// Opens the database. `epoch` is that of a new one; an old one has its own.
    pub(super) fn open(database: &Database, epoch: Epoch) -> Result<Self, OpenError> {
        let Opened { writer, readers, source, lock } = match database {
            Database::File(path) => {
                let lock = Lock::take(path)?;
                let writer = Connection::Sqlite(open_writer(&lock, epoch)?);
                let readers = (0..READERS).map(|_| open_reader(&lock).map(Connection::Sqlite));
                Opened { writer, readers: readers.collect::<Result<_, _>>()?, source: None, lock: Some(lock) }
            }
            Database::Server { url, password_file } => {
                let (server, session) = Server::open(url.expose(), password_file.as_deref(), epoch)?;
                let writer = Connection::Postgres(Box::new(session));
                // Those that read are made when they are needed.
                Opened { writer, readers: Vec::new(), source: Some(Arc::new(server)), lock: None }
            }
        };
        let failed = |cause: String| OpenError::Failed(format!("{database}: {cause}"));
        let position = changes::position(writer.sql()).map_err(|error| failed(error.to_string()))?;
        let tokens = edge_tokens::live(writer.sql()).map_err(|error| failed(error.to_string()))?;
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
        let writing = Writing::new(writer, source.clone());
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
            lock: Mutex::new(lock),
        })
    }

    pub(super) fn head(&self) -> watch::Receiver<Position> {
        self.head.clone()
    }

    /// The edge tokens that work; another set before a change of them is answered.
    pub(super) fn edge_tokens(&self) -> &watch::Receiver<Arc<LiveTokens>> {
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

    /// Runs `work` as one change: all of it, or nothing when it fails. On disk when this returns `Ok`. Whoever stops waiting
    /// may have the change carried out all the same.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answered) = oneshot::channel();
        let job = Box::new(move |change: &Change<'_>| {
            let result = work(change);
            Done {
                keep: result.is_ok(),
                // Nobody waits any more when sending fails.
                answer: Box::new(move |committed| drop(reply.send(committed.and(result)))),
            }
        });
        self.writer.send(Job::Change(job)).await.map_err(|_| closed())?;
        let answer = answered.await.map_err(|_| closed())?;
        if matches!(answer, Err(StoreError::Unavailable(_))) {
            self.counted.refused.fetch_add(1, Ordering::Relaxed);
            self.counted.is_refusing.store(true, Ordering::Relaxed);
        }
        reported(answer)
    }

    /// That a change would be taken. Writes nothing to find it out, unless the last change was refused.
    pub(super) async fn writes(&self) -> Result<(), StoreError> {
        let was_refusing = self.counted.is_refusing.load(Ordering::Relaxed);
        let probe = move |change: &Change<'_>| if was_refusing { change.touch() } else { change.position().map(drop) };
        self.change(probe).await?;
        if was_refusing {
            self.counted.is_refusing.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs `work` on a connection that reads, in one transaction: all that it sees is of one revision.
    pub(super) async fn read<T: Send + 'static>(
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
        reported(reading.await.map_err(|error| StoreError::Fault(error.to_string()))?)
    }

    /// This replica among others; `None` where nobody else writes.
    pub(super) fn replica(&self) -> Option<&Replica> {
        self.following.as_ref().map(|following| &*following.replica)
    }

    /// Looks at what others have committed, unless a look was begun since this was asked for.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let Some(following) = self.following.clone() else { return Ok(()) };
        let asked_at = Instant::now();
        let _turn = self.looking.lock().await;
        if following.replica.looked_at().is_some_and(|at| at > asked_at) {
            return Ok(());
        }
        self.read(move |sql| look(sql, &following.publish, &following.replica, Reads::News)).await
    }

    /// Looks at all instances.
    pub(super) async fn look_at_all(&self) -> Result<(), StoreError> {
        let Some(following) = self.following.clone() else { return Ok(()) };
        self.read(move |sql| look(sql, &following.publish, &following.replica, Reads::All)).await
    }

    /// Carries out what is queued, lets reads that run end, then closes all connections; the last one moves the WAL into the
    /// database.
    pub(super) async fn close(&self) {
        // Fails when it was closed before.
        let _ = self.writer.send(Job::Close).await;
        // A read that runs has a permit, and gives its connection back before it. Fails when it was closed before.
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
            drop(idle);
            threads.into_iter().map(JoinHandle::join).all(|joined| joined.is_ok())
        });
        if !ending.await.unwrap_or(false) {
            error!("a thread of the store ended by a fault");
        }
        // Whoever still has a handle can do nothing with it, and keeps nobody from opening the file.
        drop(lock(&self.lock).take());
    }
}

/// Begins to follow what others do over the same server, and to speak to them. This replica is named by an id of its own start.
fn share(
    server: Arc<Server>,
    publish: &Arc<Publish>,
    id: Epoch,
) -> std::io::Result<(Arc<Following>, Follower, JoinHandle<()>)> {
    let (replica, words) = Replica::new(id.to_string());
    let speaker = speak(Arc::clone(&server), id.to_string(), words)?;
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

/// The border to the operator: what can't be told to a client is logged here, once.
fn reported<T>(result: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(cause @ (StoreError::Unavailable(_) | StoreError::Fault(_))) = &result {
        error!(%cause, "store");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::Event;
    use crate::store::sql::{NONE, params};
    use crate::store::{Acting, databases};

    struct Bench {
        engine: Arc<Engine>,
        directory: tempfile::TempDir,
    }

    async fn bench() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let database = databases::of(directory.path()).parse().unwrap();
        let opening = tokio::task::spawn_blocking(move || Engine::open(&database, Epoch::from_bytes([1; 16])));
        Bench { engine: Arc::new(opening.await.unwrap().unwrap()), directory }
    }

    impl Bench {
        /// Holds the writer inside a change until the answer is sent, so that what is asked for meanwhile forms one group.
        async fn hold(&self) -> std::sync::mpsc::Sender<()> {
            let (release, held) = std::sync::mpsc::channel::<()>();
            let (entered, inside) = oneshot::channel();
            let engine = Arc::clone(&self.engine);
            tokio::spawn(async move {
                let work = move |_: &Change<'_>| {
                    let _ = entered.send(());
                    let _ = held.recv();
                    Ok(())
                };
                engine.change(work).await
            });
            inside.await.unwrap();
            release
        }

        /// Asks for a change and answers when it has its place in the queue.
        async fn ask(
            &self,
            work: impl FnOnce(&Change<'_>) -> Result<(), StoreError> + Send + 'static,
        ) -> tokio::task::JoinHandle<Result<(), StoreError>> {
            let waiting = self.engine.writer.capacity();
            let engine = Arc::clone(&self.engine);
            let asked = tokio::spawn(async move { engine.change(work).await });
            while self.engine.writer.capacity() == waiting {
                tokio::task::yield_now().await;
            }
            asked
        }

        async fn scopes(&self) -> Vec<String> {
            let work = |sql: Sql<'_>| {
                let mut names = sql.prepare("SELECT name FROM scopes ORDER BY number")?;
                Ok(names.query_map(NONE, |row| row.get(0))?)
            };
            self.engine.read(work).await.unwrap()
        }
    }

    fn insert(name: &'static str) -> impl FnOnce(&Change<'_>) -> Result<(), StoreError> + Send {
        move |change| {
            let insert = "INSERT INTO scopes (number, name) SELECT coalesce(max(number), 0) + 1, ?1 FROM scopes";
            change.sql().execute(insert, params![name])?;
            let event = Event::of_all("test", serde_json::Map::new());
            change.record(&Acting::system(policy::UnixSeconds(0)), &event, &[]).map(drop)
        }
    }

    #[tokio::test]
    async fn a_failing_change_stays_out_and_its_neighbours_get_in() {
        let bench = bench().await;
        let release = bench.hold().await;
        let first = bench.ask(insert("first")).await;
        let failing = bench
            .ask(|change| {
                insert("failing")(change)?;
                Err(StoreError::NotFound)
            })
            .await;
        let last = bench.ask(insert("last")).await;
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(()));
        assert_eq!(failing.await.unwrap(), Err(StoreError::NotFound));
        assert_eq!(last.await.unwrap(), Ok(()));
        assert_eq!(bench.scopes().await, ["first", "last"]);
        assert_eq!(bench.engine.head().borrow().revision.0, 2);
    }

    #[tokio::test]
    async fn a_change_that_records_nothing_wakes_nobody_who_waits_for_the_head() {
        let bench = bench().await;
        let mut head = bench.engine.head();
        bench.engine.change(|_| Ok(())).await.unwrap();
        // It is answered before anybody would be woken, so the next one has to be through, too.
        bench.engine.change(|_| Ok(())).await.unwrap();
        assert!(!head.has_changed().unwrap());
        bench.engine.change(insert("something")).await.unwrap();
        head.changed().await.unwrap();
        assert_eq!(head.borrow().revision.0, 1);
    }

    #[tokio::test]
    async fn when_the_commit_fails_nobody_of_the_group_is_told_otherwise() {
        let bench = bench().await;
        let release = bench.hold().await;
        let innocent = bench.ask(insert("innocent")).await;
        let orphan = bench
            .ask(|change| {
                // Found at COMMIT only: a key without a workspace.
                change.sql().execute_batch(match change.sql() {
                    Sql::Sqlite(_) => "PRAGMA defer_foreign_keys = ON",
                    Sql::Postgres(_) => "SET CONSTRAINTS ALL DEFERRED",
                })?;
                let insert = "INSERT INTO secrets VALUES (?1, ?2, ?2, '', 0, NULL, NULL, 1)";
                change.sql().execute(insert, params![[0_u8; 32], [0_u8; 16]])?;
                Ok(())
            })
            .await;
        release.send(()).unwrap();
        assert!(innocent.await.unwrap().is_err());
        assert!(orphan.await.unwrap().is_err());
        assert_eq!(bench.scopes().await, [""; 0]);
        assert_eq!(bench.engine.head().borrow().revision.0, 0);
        assert_eq!(bench.engine.change(insert("later")).await, Ok(()));
    }

    /// How full a disk is can be said of a file alone.
    #[tokio::test]
    async fn a_full_disk_is_told_and_nothing_that_was_answered_is_lost() {
        if databases::is_postgres() {
            return;
        }
        let bench = bench().await;
        bench.engine.change(insert("before")).await.unwrap();
        let limit = |change: &Change<'_>| {
            let pages: i64 = change.sql().query_row("PRAGMA page_count", NONE, |row| row.get(0))?;
            change.sql().query_row(&format!("PRAGMA max_page_count = {pages}"), NONE, |_| Ok(()))?;
            Ok(())
        };
        bench.engine.change(limit).await.unwrap();
        let grow = |change: &Change<'_>| {
            change.sql().execute("INSERT INTO changes VALUES (99, zeroblob(32), zeroblob(1000000), 0)", NONE)?;
            Ok(())
        };
        assert!(matches!(bench.engine.change(grow).await, Err(StoreError::Unavailable(_))));
        assert_eq!(bench.scopes().await, ["before"]);
        assert_eq!(bench.engine.change(insert("after")).await, Ok(()));
    }

    #[tokio::test]
    async fn closing_carries_out_what_was_accepted_and_takes_no_more() {
        let bench = bench().await;
        let release = bench.hold().await;
        let mut asked = Vec::new();
        for name in ["a", "b", "c"] {
            asked.push(bench.ask(insert(name)).await);
        }
        let engine = Arc::clone(&bench.engine);
        let closing = tokio::spawn(async move { engine.close().await });
        release.send(()).unwrap();
        closing.await.unwrap();
        for change in asked {
            assert_eq!(change.await.unwrap(), Ok(()));
        }
        assert!(matches!(bench.engine.change(insert("d")).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(bench.engine.read(|_| Ok(())).await, Err(StoreError::Unavailable(_))));
    }
    #[tokio::test]
    async fn closing_waits_for_a_read_that_runs_and_leaves_all_in_the_database_s_own_file() {
        let bench = bench().await;
        bench.engine.change(insert("a")).await.unwrap();
        let (started, runs) = oneshot::channel();
        let (release, held) = oneshot::channel::<()>();
        let engine = Arc::clone(&bench.engine);
        let reading = tokio::spawn(async move {
            let work = move |_: Sql<'_>| {
                started.send(()).unwrap();
                held.blocking_recv().unwrap();
                Ok(())
            };
            engine.read(work).await
        });
        runs.await.unwrap();
        let engine = Arc::clone(&bench.engine);
        let closing = tokio::spawn(async move { engine.close().await });
        bench.engine.writer.closed().await;
        release.send(()).unwrap();
        assert_eq!(reading.await.unwrap(), Ok(()));
        closing.await.unwrap();
        // Of a server's files there are none here.
        let names: Vec<_> =
            std::fs::read_dir(bench.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().ends_with("-wal")), "{names:?}");
    }
}
