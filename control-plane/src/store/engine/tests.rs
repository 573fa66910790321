//! Tests of what the engine guarantees about changes, groups and closing, on both databases.

use test_support::databases;

use super::*;
use crate::store::ChangeContext;
use crate::store::db::sql::{NONE, params};
use crate::store::history::audit::Event;
use crate::store::history::changes::Change;
use crate::store::history::id_catalogue::IdCatalogue;

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
    /// Blocks the writer in a change until the returned sender is used, so that changes requested meanwhile form one
    /// group.
    async fn hold(&self) -> std::sync::mpsc::Sender<()> {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let engine = Arc::clone(&self.engine);
        tokio::spawn(async move {
            let work = move |_: &Write<'_>| {
                let _ = entered.send(());
                let _ = held.recv();
                Ok(())
            };
            engine.write(work).await
        });
        inside.await.unwrap();
        release
    }

    /// Requests a change, and returns when it is in the queue.
    async fn enqueue(
        &self,
        work: impl FnOnce(&Write<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> tokio::task::JoinHandle<Result<(), StoreError>> {
        let waiting = self.engine.writer.capacity();
        let engine = Arc::clone(&self.engine);
        let requested = tokio::spawn(async move { engine.write(work).await });
        while self.engine.writer.capacity() == waiting {
            tokio::task::yield_now().await;
        }
        requested
    }

    async fn scopes(&self) -> Vec<String> {
        let work = |sql: Sql<'_>| {
            let mut names = sql.prepare("SELECT name FROM scopes ORDER BY number")?;
            Ok(names.query_map(NONE, |row| row.get(0))?)
        };
        self.engine.read(work).await.unwrap()
    }
}

fn insert(name: &'static str) -> impl FnOnce(&Write<'_>) -> Result<(), StoreError> + Send {
    move |write| {
        let insert = "INSERT INTO scopes (number, name) SELECT coalesce(max(number), 0) + 1, ?1 FROM scopes";
        write.sql().execute(insert, params![name])?;
        let event = Event::of_all("test", serde_json::Map::new());
        let (catalogue, context) = (IdCatalogue::read(write.sql())?, ChangeContext::system(policy::UnixSeconds(0)));
        Change::new(write, &catalogue, &context).record(&event, &[]).map(drop)
    }
}

#[tokio::test]
async fn a_failing_change_stays_out_and_its_neighbours_get_in() {
    let bench = bench().await;
    let release = bench.hold().await;
    let first = bench.enqueue(insert("first")).await;
    let failing = bench
        .enqueue(|write| {
            insert("failing")(write)?;
            Err(StoreError::NotFound)
        })
        .await;
    let last = bench.enqueue(insert("last")).await;
    release.send(()).unwrap();
    assert_eq!(first.await.unwrap(), Ok(()));
    assert_eq!(failing.await.unwrap(), Err(StoreError::NotFound));
    assert_eq!(last.await.unwrap(), Ok(()));
    assert_eq!(bench.scopes().await, ["first", "last"]);
    assert_eq!(bench.engine.head().borrow().revision.0, 2);
}

#[tokio::test]
async fn a_change_that_records_nothing_wakes_no_subscriber_of_the_head() {
    let bench = bench().await;
    let mut head = bench.engine.head();
    bench.engine.write(|_| Ok(())).await.unwrap();
    // A change is answered before subscribers would be woken. After a second change, the first one's group is finished.
    bench.engine.write(|_| Ok(())).await.unwrap();
    assert!(!head.has_changed().unwrap());
    bench.engine.write(insert("something")).await.unwrap();
    head.changed().await.unwrap();
    assert_eq!(head.borrow().revision.0, 1);
}

#[tokio::test]
async fn a_failed_commit_fails_every_change_of_its_group() {
    let bench = bench().await;
    let release = bench.hold().await;
    let innocent = bench.enqueue(insert("innocent")).await;
    let orphan = bench
        .enqueue(|write| {
            // A secret without a key, which is found only at COMMIT.
            write.sql().execute_batch(match write.sql() {
                Sql::Sqlite(_) => "PRAGMA defer_foreign_keys = ON",
                Sql::Postgres(_) => "SET CONSTRAINTS ALL DEFERRED",
            })?;
            let insert = "INSERT INTO secrets (digest, workspace_id, key_id, last_characters, created_at, at_edge)
                          VALUES (?1, ?2, ?2, '', 0, 1)";
            write.sql().execute(insert, params![[0_u8; 32], [0_u8; 16]])?;
            Ok(())
        })
        .await;
    release.send(()).unwrap();
    assert!(innocent.await.unwrap().is_err());
    assert!(orphan.await.unwrap().is_err());
    assert_eq!(bench.scopes().await, [""; 0]);
    assert_eq!(bench.engine.head().borrow().revision.0, 0);
    assert_eq!(bench.engine.write(insert("later")).await, Ok(()));
}

/// Only the size of a SQLite file can be limited here.
#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_acknowledged_is_lost() {
    if databases::is_postgres() {
        return;
    }
    let bench = bench().await;
    bench.engine.write(insert("before")).await.unwrap();
    let limit = |write: &Write<'_>| {
        let pages: i64 = write.sql().query_row("PRAGMA page_count", NONE, |row| row.get(0))?;
        write.sql().query_row(&format!("PRAGMA max_page_count = {pages}"), NONE, |_| Ok(()))?;
        Ok(())
    };
    bench.engine.write(limit).await.unwrap();
    let grow = |write: &Write<'_>| {
        write.sql().execute("INSERT INTO changes VALUES (99, zeroblob(32), zeroblob(1000000), 0)", NONE)?;
        Ok(())
    };
    assert!(matches!(bench.engine.write(grow).await, Err(StoreError::Unavailable(_))));
    assert_eq!(bench.scopes().await, ["before"]);
    assert_eq!(bench.engine.write(insert("after")).await, Ok(()));
}

#[tokio::test]
async fn closing_completes_accepted_changes_and_takes_no_more() {
    let bench = bench().await;
    let release = bench.hold().await;
    let mut requested = Vec::new();
    for name in ["a", "b", "c"] {
        requested.push(bench.enqueue(insert(name)).await);
    }
    let engine = Arc::clone(&bench.engine);
    let closing = tokio::spawn(async move { engine.close().await });
    release.send(()).unwrap();
    closing.await.unwrap();
    for change in requested {
        assert_eq!(change.await.unwrap(), Ok(()));
    }
    assert!(matches!(bench.engine.write(insert("d")).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(bench.engine.read(|_| Ok(())).await, Err(StoreError::Unavailable(_))));
}
#[tokio::test]
async fn closing_waits_for_a_running_read_and_leaves_no_wal() {
    let bench = bench().await;
    bench.engine.write(insert("a")).await.unwrap();
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
    // A server's files are not in this directory.
    let names: Vec<_> =
        std::fs::read_dir(bench.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with("-wal")), "{names:?}");
}

#[tokio::test]
async fn a_file_that_was_closed_has_no_wal_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(databases::FILE);
    for _ in 0..300 {
        let database = Database::File(path.clone());
        let opening = tokio::task::spawn_blocking(move || Engine::open(&database, Epoch::from_bytes([1; 16])));
        let engine = opening.await.unwrap().unwrap();
        engine.write(|write| write.touch()).await.unwrap();
        engine.close().await;
        assert!(!path.with_extension("db-wal").exists(), "the WAL was not checkpointed into the file");
    }
}

#[tokio::test]
async fn a_stalled_writer_makes_the_engine_unready() {
    let bench = bench().await;
    assert_eq!(bench.engine.ready().await, Ok(()));
    let release = bench.hold().await;
    // Paused time jumps to the next timeout while all tasks are idle.
    tokio::time::pause();
    let ready = bench.engine.ready().await;
    assert!(matches!(&ready, Err(StoreError::Unavailable(why)) if why.contains("doesn't answer")), "{ready:?}");
    tokio::time::resume();
    release.send(()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(unready) = bench.engine.ready().await {
        assert!(Instant::now() < deadline, "{unready}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
