//! The database's file: one control plane serves it, and detects that it was replaced or that others write to it. For
//! SQLite only.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use policy::Position;
use policy::table::Loading;
use policy::wire::Delta;
use reqwest::{Client, Method};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::start::{Running, command};
use crate::waiting::until_equal;

const DATABASE: [&str; 2] = ["--database", "latchkey.db"];

/// A control plane on a file, and its admin.
struct ServedFile {
    directory: TempDir,
    running: Running,
    client: Client,
}

impl ServedFile {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = Running::start(command(directory.path(), &DATABASE));
        Self { directory, running, client: Client::new() }
    }

    /// Starts another control plane on the same files.
    fn start_again(&mut self) {
        self.running = Running::start(command(self.directory.path(), &DATABASE));
    }

    /// Kills it; returns what it has logged by then.
    fn end(&mut self) -> String {
        self.running.child.kill().unwrap();
        self.logged()
    }

    /// Shuts it down; returns everything that it logged.
    fn stop(&mut self) -> String {
        self.running.signal("-TERM");
        self.logged()
    }

    fn logged(&mut self) -> String {
        self.running.child.wait().unwrap();
        let mut log = String::new();
        self.running.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn token(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap().trim_end().to_owned()
    }

    async fn send(&self, token: &str, method: Method, path: &str, body: &Value) -> (u16, Vec<u8>) {
        let request = self.client.request(method, format!("http://{}{path}", self.running.address));
        let request = request.bearer_auth(self.token(token));
        let request = if body.is_null() { request } else { request.json(body) };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }

    async fn status(&self, path: &str) -> u16 {
        self.send("admin.token", Method::GET, path, &Value::Null).await.0
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send("admin.token", Method::GET, path, &Value::Null).await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// Makes a workspace.
    async fn change(&self, slug: &str) -> (u16, Value) {
        let body = json!({"name": slug, "slug": slug});
        let (status, body) = self.send("admin.token", Method::POST, "/v1/workspaces", &body).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// An edge that is up to date and has acknowledged.
    async fn edge(&self) -> Position {
        let path = "/edge/v1/feed?format=1&edge=e&instance=i&max_staleness=60&wait=0";
        let (status, manifest) = self.send("edge.token", Method::GET, path, &Value::Null).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&manifest));
        let position = Loading::start(&manifest).unwrap().position();
        let worker = json!({"id": "w", "applied": position.revision.0, "started_at": 0});
        let body = json!({"edge": "e", "instance": "i", "epoch": position.epoch.to_string(), "version": null,
                          "max_staleness_secs": 60, "workers": [worker]});
        let (status, answer) = self.send("edge.token", Method::POST, "/edge/v1/acknowledgements", &body).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        position
    }

    /// The feed's answer to an edge that is at `from`.
    async fn poll(&self, from: Position) -> (u16, Vec<u8>) {
        let Position { epoch, revision, head } = from;
        let path = format!(
            "/edge/v1/feed?format=1&edge=e&instance=i&max_staleness=60&wait=0&epoch={epoch}&since={revision}&head={head}"
        );
        self.send("edge.token", Method::GET, &path, &Value::Null).await
    }

    /// Another program that has the database open.
    fn open(&self) -> Connection {
        let other = Connection::open(self.path("latchkey.db")).unwrap();
        other.busy_timeout(Duration::from_secs(5)).unwrap();
        other
    }

    fn latchkey(&self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        let output = command.current_dir(self.directory.path()).env_clear().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn is_in_use(directory: &Path, database: &str) {
    let mut second = command(directory, &["--database", database]).spawn().unwrap();
    let mut first_line = String::new();
    BufReader::new(second.stdout.take().unwrap()).read_line(&mut first_line).unwrap();
    // Only one that serves prints a line.
    second.kill().unwrap();
    let second = second.wait_with_output().unwrap();
    let printed = first_line + &String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{database}: {printed}");
    assert!(printed.contains("another control plane has it open"), "{database}: {printed}");
}

#[test]
fn a_file_is_served_once_by_whatever_path_and_without_its_lock_file() {
    let site = ServedFile::start();
    is_in_use(site.directory.path(), "latchkey.db");
    let elsewhere = tempfile::tempdir_in(site.directory.path()).unwrap();
    let link = elsewhere.path().join("link.db");
    std::fs::hard_link(site.path("latchkey.db"), &link).unwrap();
    is_in_use(site.directory.path(), link.to_str().unwrap());
    std::fs::remove_file(site.path("latchkey.db-lock")).unwrap();
    is_in_use(site.directory.path(), "latchkey.db");
    // A restore is refused as well.
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    command.current_dir(site.directory.path()).env_clear().args(["restore", "--from", "latchkey.db", "--database"]);
    let output = command.arg(&link).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && printed.contains("another control plane has it open"), "{printed}");
}

#[tokio::test]
async fn changes_end_when_a_file_was_moved_or_replaced_and_go_on_when_it_is_back() {
    let site = ServedFile::start();
    let kept = site.path("kept");
    // An edge that is known.
    site.edge().await;
    let mut count = 0;
    for name in ["latchkey.db", "latchkey.db-wal", "latchkey.db-shm"] {
        for is_replaced in [false, true] {
            let path = site.path(name);
            std::fs::rename(&path, &kept).unwrap();
            if is_replaced {
                std::fs::copy(&kept, &path).unwrap();
            }
            let what = format!("{name}, {}", if is_replaced { "replaced" } else { "gone" });
            count += 1;
            let slug = format!("slug-{count}");
            let (status, problem) = site.change(&slug).await;
            assert_eq!((status, &problem["code"]), (503, &json!("storage-unavailable")), "{what}: {problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains("moved, replaced or removed") && detail.contains("put it back"),
                "{what}: {detail}"
            );
            assert_eq!(site.status("/readyz").await, 503, "{what}");
            assert_eq!(site.status("/readyz?for=edges").await, 200, "{what}: the feed goes on");
            assert_eq!(site.status("/healthz").await, 200, "{what}");
            assert_eq!(site.status("/v1/workspaces").await, 200, "{what}: reads go on");
            site.edge().await;

            std::fs::rename(&kept, &path).unwrap();
            let (status, answer) = site.change(&slug).await;
            assert_eq!(status, 201, "{what}, and back: {answer}");
            until_equal("it is ready again", 200, async || site.status("/readyz").await).await;
        }
    }
}

/// As docs/operating.md describes it.
#[tokio::test]
async fn what_was_removed_is_copied_out_of_the_running_process_and_serves_again() {
    let mut site = ServedFile::start();
    assert_eq!(site.change("before").await.0, 201);
    for name in ["latchkey.db", "latchkey.db-wal", "latchkey.db-shm", "latchkey.db-lock"] {
        std::fs::remove_file(site.path(name)).unwrap();
    }
    assert_eq!(site.change("after").await.0, 503);
    let descriptors = PathBuf::from(format!("/proc/{}/fd", site.running.child.id()));
    for entry in std::fs::read_dir(descriptors).unwrap().map(Result::unwrap) {
        let of = std::fs::read_link(entry.path()).unwrap().display().to_string();
        for (end, to) in [("latchkey.db (deleted)", "saved.db"), ("latchkey.db-wal (deleted)", "saved.db-wal")] {
            if of.ends_with(end) {
                std::fs::copy(entry.path(), site.path(to)).unwrap();
            }
        }
    }
    let log = site.end();
    assert!(log.contains("was removed or moved") && log.contains("docs/operating.md"), "{log}");
    for suffix in ["", "-wal"] {
        std::fs::rename(site.path(&format!("saved.db{suffix}")), site.path(&format!("latchkey.db{suffix}"))).unwrap();
    }
    site.start_again();
    assert_eq!(site.get("/v1/workspaces/before").await["slug"], "before");
    assert_eq!(site.change("after").await.0, 201);
}

#[tokio::test]
async fn a_foreign_commit_ends_changes_and_what_is_enforced_until_a_restart_and_keeps_the_feed() {
    let mut site = ServedFile::start();
    assert_eq!(site.change("before").await.0, 201);
    let position = site.edge().await;
    assert_eq!(site.get("/v1/enforcement").await["enforced"], true);

    let other = site.open();
    other.execute_batch("UPDATE workspaces SET name = 'theirs'").unwrap();
    // Even without a change, because the control plane looks for it.
    until_equal("what is enforced isn't known", json!(false), async || {
        site.get("/v1/enforcement").await["enforced"].clone()
    })
    .await;
    assert_eq!(site.get("/v1/enforcement").await["bounded_at"], "never");
    for slug in ["first", "second"] {
        let (status, problem) = site.change(slug).await;
        assert_eq!((status, &problem["code"]), (503, &json!("storage-unavailable")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("another program has written"), "{problem}");
    }
    assert_eq!((site.status("/readyz").await, site.status("/healthz").await), (503, 200));
    assert_eq!(site.status("/readyz?for=edges").await, 200);
    assert_eq!(site.poll(position).await.0, 204, "the feed goes on");
    site.edge().await;
    drop(other);

    site.end();
    site.start_again();
    assert_eq!((site.status("/readyz").await, site.change("first").await.0), (200, 201));
    site.edge().await;
    assert_eq!(site.get("/v1/enforcement").await["enforced"], true);
}

/// As when two control planes of an older version serve one file.
#[tokio::test]
async fn what_another_control_plane_committed_reaches_edges() {
    let site = ServedFile::start();
    let position = site.edge().await;
    site.latchkey(&["backup", "--database", "latchkey.db", "--to", "other.db"]);
    let other = Running::start(command(site.directory.path(), &["--database", "other.db"]));
    let request = site.client.post(format!("http://{}/v1/workspaces", other.address));
    let made = request.bearer_auth(site.token("admin.token")).json(&json!({"name": "theirs", "slug": "theirs"}));
    assert_eq!(made.send().await.unwrap().status(), 201);
    drop(other);
    site.open()
        .execute_batch(
            "ATTACH 'other.db' AS other;
             BEGIN IMMEDIATE;
             INSERT INTO changes SELECT * FROM other.changes WHERE revision > (SELECT max(revision) FROM changes);
             INSERT INTO audit_events (revision, event, hash) SELECT revision, event, hash FROM other.audit_events
                 WHERE revision > (SELECT max(revision) FROM audit_events);
             UPDATE position SET (revision, head) = (SELECT revision, head FROM other.position);
             COMMIT"
                .replace("other.db", site.path("other.db").to_str().unwrap())
                .as_str(),
        )
        .unwrap();
    assert_eq!(site.change("ours").await.0, 503);
    let (status, delta) = site.poll(position).await;
    assert_eq!(status, 200);
    assert!(Delta::is_delta(&delta));
    let body = "SELECT body FROM changes ORDER BY revision DESC LIMIT 1";
    let body: Vec<u8> = site.open().query_row(body, [], |row| row.get(0)).unwrap();
    let theirs = position.then(&body).unwrap();
    assert_eq!(site.poll(theirs).await.0, 204, "nothing is newer");
}

#[tokio::test]
async fn what_reads_copies_or_checkpoints_is_no_foreign_commit() {
    let site = ServedFile::start();
    assert_eq!(site.change("first").await.0, 201);
    let sql = |statements: &'static str| {
        move |site: &ServedFile| {
            let other = site.open();
            for statement in statements.split(';') {
                let mut statement = other.prepare(statement).unwrap();
                let mut rows = statement.query([]).unwrap();
                while rows.next().unwrap().is_some() {}
            }
        }
    };
    type Act = Box<dyn Fn(&ServedFile)>;
    let acts: [(&str, Act); 12] = [
        ("a read", Box::new(sql("SELECT count(*) FROM workspaces"))),
        (
            "latchkey backup",
            Box::new(|site| {
                let _ = std::fs::remove_file(site.path("b.db"));
                site.latchkey(&["backup", "--database", "latchkey.db", "--to", "b.db"]);
            }),
        ),
        ("latchkey audit verify", Box::new(|site| site.latchkey(&["audit", "verify", "--database", "latchkey.db"]))),
        (
            "VACUUM INTO",
            Box::new(|site| {
                let to = site.path("v.db");
                let _ = std::fs::remove_file(&to);
                site.open().execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
            }),
        ),
        ("SQLite's backup", Box::new(|site| site.open().backup("main", site.path("sqlite.db"), None).unwrap())),
        ("a transaction that writes nothing", Box::new(sql("BEGIN IMMEDIATE;COMMIT"))),
        (
            "a transaction that is rolled back",
            Box::new(sql("BEGIN IMMEDIATE;UPDATE workspaces SET name = 'x';ROLLBACK")),
        ),
        ("a passive checkpoint", Box::new(sql("PRAGMA wal_checkpoint(PASSIVE)"))),
        ("a full checkpoint", Box::new(sql("PRAGMA wal_checkpoint(FULL)"))),
        ("a checkpoint that restarts the WAL", Box::new(sql("PRAGMA wal_checkpoint(RESTART)"))),
        ("a checkpoint that truncates the WAL", Box::new(sql("PRAGMA wal_checkpoint(TRUNCATE)"))),
        (
            // More than the cache holds, so that it is written to the WAL.
            "a large transaction that is rolled back in a WAL that was restarted",
            Box::new(sql("PRAGMA wal_checkpoint(FULL);PRAGMA cache_size = 10;BEGIN IMMEDIATE;
                 INSERT INTO environments SELECT 200, hex(zeroblob(1000000));ROLLBACK")),
        ),
    ];
    for (number, (name, act)) in acts.iter().enumerate() {
        act(&site);
        let (status, answer) = site.change(&format!("after-{number}")).await;
        assert_eq!(status, 201, "{name}: {answer}");
        act(&site);
        assert_eq!(site.status("/readyz").await, 200, "{name}, again");
    }
}

#[test]
fn a_new_database_beside_token_files_is_warned_of() {
    let mut site = ServedFile::start();
    let is_warned =
        |log: &str| log.contains(" WARN ") && log.contains("its database is lost or its volume isn't mounted");
    let log = site.stop();
    assert!(!is_warned(&log), "a first start: {log}");
    site.start_again();
    let log = site.stop();
    assert!(!is_warned(&log), "a second start: {log}");
    site.start_again();
    site.end();
    for suffix in ["", "-wal", "-shm", "-lock"] {
        // It was killed, so it has left all of them behind.
        std::fs::remove_file(site.path(&format!("latchkey.db{suffix}"))).unwrap();
    }
    site.start_again();
    let log = site.stop();
    assert!(is_warned(&log), "a start without the database: {log}");
}

#[tokio::test]
async fn a_damaged_page_makes_it_unready_until_a_restart_once_a_request_has_come_to_it() {
    let mut site = ServedFile::start();
    assert_eq!(site.change("acme").await.0, 201);
    let body = json!({"name": "key", "expires_in": "none"});
    let (status, made) = site.send("admin.token", Method::POST, "/v1/workspaces/acme/keys", &body).await;
    assert_eq!(status, 201);
    let made: Value = serde_json::from_slice(&made).unwrap();
    site.end();
    // A page that nothing else reads.
    let database = site.open();
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let number = |query: &str| database.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    let page = number("SELECT rootpage FROM sqlite_schema WHERE name = 'key_denials'");
    let size = number("PRAGMA page_size");
    drop(database);
    let file = std::fs::File::options().write(true).open(site.path("latchkey.db")).unwrap();
    file.write_all_at(&vec![0xff; usize::try_from(size).unwrap()], u64::try_from((page - 1) * size).unwrap()).unwrap();

    for start in ["the first start", "the next one"] {
        site.start_again();
        assert_eq!(site.status("/readyz").await, 200, "{start}: nobody has come to it");
        let usage = format!("/v1/workspaces/acme/keys/{}/usage", made["key"]["id"].as_str().unwrap());
        let (status, problem) = site.send("admin.token", Method::GET, &usage, &Value::Null).await;
        let problem: Value = serde_json::from_slice(&problem).unwrap();
        assert_eq!((status, &problem["code"]), (503, &json!("storage-unavailable")), "{start}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("damaged"), "{start}: {problem}");
        assert_eq!(site.status("/readyz").await, 503, "{start}");
        assert_eq!(site.change(&start.replace(' ', "-")).await.0, 201, "{start}: what doesn't touch it goes on");
        assert_eq!(site.status("/readyz").await, 503, "{start}: a change proves nothing about it");
        let log = site.end();
        assert!(log.contains("the database is damaged"), "{log}");
    }
}
