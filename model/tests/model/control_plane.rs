//! The real control plane: its router, its store in a file, its feed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request};
use latchkey::api::{Api, router};
use latchkey::config::Config;
use latchkey::edges::Edges;
use latchkey::entropy::Entropy;
use latchkey::feed::Feed;
use latchkey::guesses::Guesses;
use latchkey::metrics::Metrics;
use latchkey::store::{Acting, LostChanges, NewSecret, Restore, Store, back_up, restore};
use latchkey::tokens::Token;
use policy::{Epoch, Position};
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::time::Time;

const ADMIN: &str = "lkadm_admin";
pub const EDGE: &str = "lkedge_edge";

/// So few that runs come past the log's end.
const LOG_REVISIONS: u64 = 20;

pub struct ControlPlane {
    directory: PathBuf,
    time: Time,
    store: Store,
    feed: Feed,
    edges: Edges,
    router: Router,
    end: watch::Sender<bool>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

/// The bytes of a database with the workspace `acme`, with which each run begins.
pub async fn template() -> Vec<u8> {
    let directory = directory();
    let control_plane = ControlPlane::start(directory.path().to_owned(), Time::default()).await;
    let made = control_plane.call(Method::POST, "/v1/workspaces", r#"{"name": "Acme", "slug": "acme"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let path = control_plane.database();
    control_plane.stop().await;
    std::fs::read(path).expect("there is a database")
}

/// In memory where there is such a place: how durable the disk is, is for other tests.
pub fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

impl ControlPlane {
    /// With the database of this directory, or a new one.
    pub async fn start(directory: PathBuf, time: Time) -> Self {
        let config = Config { log_revisions: LOG_REVISIONS, ..Config::default() };
        let (clock, entropy) = (time.clock(), Entropy::system());
        let epoch: Epoch = entropy.id(&clock).expect("an epoch");
        let database = directory.join("latchkey.db");
        let store = Store::open(&database, epoch, &config, Acting::system(clock.now())).await.expect("the store opens");
        let (end, ending) = watch::channel(false);
        let guesses = Guesses::default();
        let edges = Edges::load(store.clone(), clock.clone(), ending.clone()).await.expect("instances are read");
        let (token, shared) = (Token::of(EDGE), guesses.clone());
        let feed = Feed::new(store.clone(), clock.clone(), token, shared, edges.clone(), LOG_REVISIONS, ending);
        let metrics = Metrics::new(store.clone(), feed.clone());
        let api = Api {
            store: store.clone(),
            clock,
            entropy,
            config: Arc::new(config),
            admin_token: Token::of(ADMIN),
            metrics,
            guesses,
            public_url: "https://keys.example.com".parse().expect("a URL"),
            edge_token: Token::of(EDGE),
            edges: edges.clone(),
        };
        let router = router::router(api, feed.clone());
        Self { directory, time, store, feed, edges, router, end }
    }

    /// Ends it in an orderly way.
    pub async fn stop(self) -> (PathBuf, Time) {
        self.end.send_replace(true);
        self.store.close().await;
        (self.directory, self.time)
    }

    pub async fn restart(self) -> Self {
        let before = self.head();
        let (directory, time) = self.stop().await;
        let again = Self::start(directory, time).await;
        assert_eq!(again.head(), before, "a restart keeps all changes, and makes none");
        again
    }

    /// Puts the backup in the database's place, as a history of its own.
    pub async fn restore(self, backup: &Path) -> Self {
        let database = self.database();
        let (directory, time) = self.stop().await;
        let mut secret = || -> Result<NewSecret, _> { panic!("without an audit log nothing is made anew") };
        let what = Restore {
            from: backup,
            database: &database,
            log: None,
            reported: None,
            lost_changes: LostChanges::Accepted,
            epoch: Entropy::system().id(&time.clock()).expect("an epoch"),
            acting: Acting::system(time.now()),
        };
        restore(&what, &mut secret).expect("the backup is restored");
        Self::start(directory, time).await
    }

    /// Copies the database while it serves; answers with the copy.
    pub fn back_up(&self, number: usize) -> PathBuf {
        let copy = self.directory.join(format!("backup-{number}.db"));
        back_up(&self.database(), &copy).expect("a copy");
        copy
    }

    fn database(&self) -> PathBuf {
        self.directory.join("latchkey.db")
    }

    pub fn head(&self) -> Position {
        *self.store.head().borrow()
    }

    /// What tasks of the service do now and then.
    pub async fn tidy(&self) {
        self.feed.compact().await.expect("the log is compacted");
        self.store.sweep(Acting::system(self.time.now())).await.expect("the store is swept");
        self.edges.forget_silent().await.expect("silent instances are forgotten");
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// A request of the platform admin.
    pub async fn call(&self, method: Method, path: &str, body: &str) -> Answer {
        send(self.router(), method, path, ADMIN, body).await
    }
}

/// A request of whoever holds `token`, with a JSON body if that isn't empty.
pub async fn send(router: Router, method: Method, path: &str, token: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
    let request = if body.is_empty() { request } else { request.header("content-type", "application/json") };
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let Ok(response) = router.oneshot(request).await;
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a whole answer").to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, bytes }
}

/// Nobody's: what an edge must never let through.
pub fn never_issued() -> String {
    let kind = policy::key_text::Kind::Key(policy::Environment::default());
    let same = |bytes: &mut [u8]| {
        bytes.fill(7);
        Ok::<(), std::convert::Infallible>(())
    };
    let Ok(text) = policy::key_text::compose(&kind, same);
    text
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    /// The revision of a change.
    pub fn revision(&self) -> u64 {
        let named = self.headers.get("latchkey-revision").and_then(|value| value.to_str().ok()?.parse().ok());
        named.unwrap_or_else(|| panic!("no revision: {} {}", self.status, self.text()))
    }
}
