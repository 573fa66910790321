//! The real control plane: its router, its store, its feed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request};
use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::base::tokens::Token;
use latchkey::edges::Edges;
use latchkey::feed::Feed;
use latchkey::serve::app::{App, AppConfig};
use latchkey::store::{ChangeContext, Database, LostChanges, NewSecret, Restore, RestorePlan, Store, back_up, restore};
use latchkey::web::spool::Spool;
use policy::{Epoch, Position};
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::time::Time;

const ADMIN: &str = "lkadm_admin";
pub(crate) const EDGE: &str = "lkedge_edge";

/// So few that runs exceed the log.
const LOG_REVISIONS: u64 = 20;

/// How long recovery may take, in real time, after the database cut a connection.
pub(crate) const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct ControlPlane {
    database: Database,
    time: Time,
    store: Store,
    feed: Feed,
    edges: Edges,
    router: Router,
    end: watch::Sender<bool>,
}

pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

/// The bytes of the database that each run starts with.
pub(crate) async fn template() -> Vec<u8> {
    let directory = directory();
    let path = directory.path().join("latchkey.db");
    let control_plane = ControlPlane::start(path.clone().into(), Time::default()).await;
    control_plane.make_workspace().await;
    control_plane.stop().await;
    std::fs::read(path).expect("there is a database")
}

/// In memory where possible: other tests cover durability on disk.
pub(crate) fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

impl ControlPlane {
    /// Starts with this database, which is created if there is none.
    pub(crate) async fn start(database: Database, time: Time) -> Self {
        let config = Config { log_revisions: LOG_REVISIONS, ..Config::default() };
        let (clock, entropy) = (time.clock(), Entropy::system());
        let epoch: Epoch = entropy.id(&clock).expect("an epoch");
        let store =
            Store::open(&database, epoch, &config, ChangeContext::system(clock.now())).await.expect("the store opens");
        let (end, ending) = watch::channel(false);
        let parts = AppConfig {
            store: store.clone(),
            config,
            clock,
            entropy,
            admin_token: Token::of(ADMIN),
            edge_token: Token::of(EDGE),
            public_url: "https://keys.example.com".parse().expect("a URL"),
            spool: Spool::new(Spool::folder(&database), 256 << 20),
            log_lines_lost: Default::default(),
        };
        let app = App::build(parts, ending).await.expect("instances are read");
        let router = app.router();
        let App { feed, edges, .. } = app;
        Self { database, time, store, feed, edges, router, end }
    }

    /// The workspace `acme`, where all keys are.
    pub(crate) async fn make_workspace(&self) {
        let made = self.call(Method::POST, "/v1/workspaces", r#"{"name": "Acme", "slug": "acme"}"#).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }

    /// Shuts it down gracefully.
    pub(crate) async fn stop(self) -> (Database, Time) {
        self.end.send_replace(true);
        self.edges.release().await;
        self.store.close().await;
        (self.database, self.time)
    }

    /// Starts another in its place, which must be at `head`.
    pub(crate) async fn restart(self, orderly: bool, head: Position) -> Self {
        let (database, time) = if orderly || !self.is_replica() {
            self.stop().await
        } else {
            // Without any shutdown: as if it were killed.
            (self.database.clone(), self.time.clone())
        };
        let again = Self::start(database, time).await;
        assert_eq!(again.head(), head, "a restart keeps all changes, and makes none");
        again
    }

    /// Whether others may use the same database.
    fn is_replica(&self) -> bool {
        matches!(self.database, Database::Server { .. })
    }

    /// Replaces the database by the backup, which begins a new epoch.
    pub(crate) async fn restore(self, backup: &Path) -> Self {
        let (database, time) = self.stop().await;
        let Database::File(path) = &database else { panic!("only a file is restored") };
        let mut secret = || -> Result<NewSecret, _> { panic!("without an audit log, no secret is made") };
        let plan = RestorePlan {
            log: None,
            reported: None,
            lost_changes: LostChanges::Accepted,
            epoch: Entropy::system().id(&time.clock()).expect("an epoch"),
            context: ChangeContext::system(time.now()),
        };
        let what = Restore { from: backup, database: path, plan };
        restore(&what, &mut secret).expect("the backup is restored");
        Self::start(database, time).await
    }

    /// Copies the database while it is in use, and returns the copy's path. `None` for a database server.
    pub(crate) fn back_up(&self, number: usize) -> Option<PathBuf> {
        let Database::File(path) = &self.database else { return None };
        let copy = path.with_file_name(format!("backup-{number}.db"));
        back_up(path, &copy).expect("a copy");
        Some(copy)
    }

    pub(crate) fn head(&self) -> Position {
        *self.store.head().borrow()
    }

    /// What the service's background tasks do regularly.
    pub(crate) async fn tidy(&self) {
        let tidied = async {
            self.feed.compact().await?;
            self.store.sweep(&self.time.clock()).await?;
            self.edges.forget_silent().await
        };
        // The tasks retry after the database cut the connection.
        let tidied = tidied.await;
        assert!(tidied.is_ok() || self.is_replica(), "{tidied:?}");
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    /// A request of the platform admin, with retries after the database cut the connection.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &str) -> Answer {
        let began = Instant::now();
        loop {
            let answer = send(self.router(), method.clone(), path, ADMIN, body).await;
            if answer.status != 503 || !self.is_replica() || began.elapsed() > RECOVERY_TIMEOUT {
                return answer;
            }
            pause();
        }
    }

    /// Waits until it has reached `head`.
    pub(crate) async fn wait_for_head(&self, head: Position) {
        let began = Instant::now();
        while self.head().revision < head.revision {
            assert!(began.elapsed() < RECOVERY_TIMEOUT, "{:?}, and it never reached {head:?}", self.head());
            pause();
        }
    }
}

/// Sends a request with `token`, and with a JSON body unless that is empty.
pub(crate) async fn send(router: Router, method: Method, path: &str, token: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
    let request = if body.is_empty() { request } else { request.header("content-type", "application/json") };
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let Ok(response) = router.oneshot(request).await;
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a whole answer").to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
}

/// Lets a little real time pass while a database works.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_micros(200));
}

/// A secret that was never issued, which an edge must never accept.
pub(crate) fn never_issued() -> String {
    let kind = policy::key_text::Kind::Key(policy::Environment::default());
    let same = |bytes: &mut [u8]| {
        bytes.fill(7);
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(text) = policy::key_text::compose(&kind, same);
    text
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    /// The revision of a change.
    pub(crate) fn revision(&self) -> u64 {
        let named = self.headers.get("latchkey-revision").and_then(|value| value.to_str().ok()?.parse().ok());
        named.unwrap_or_else(|| panic!("no revision: {} {}", self.status, self.text()))
    }
}
