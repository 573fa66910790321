//! A control plane for each test: router, store in a temporary directory, and a clock that the test controls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use latchkey::base::clock::Clock;
use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::base::tokens::Token;
use latchkey::edges::Edges;
use latchkey::feed::Feed;
use latchkey::serve::app::{App, AppConfig};
use latchkey::store::{ChangeContext, Database, Store};
use latchkey::web::import_limiter::ImportLimiter;
use latchkey::web::spool::Spool;
use policy::Position;
use policy::table::{Loading, Table};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;

use test_support::databases;

pub(crate) const ADMIN: &str = "lkadm_admin";
pub(crate) const EDGE: &str = "lkedge_edge";
pub(crate) const PUBLIC_URL: &str = "https://keys.example.com";

/// The harness's clock begins here.
pub(crate) const START: &str = "2026-11-23T08:00:00Z";
const START_SECS: u64 = 1_795_420_800;

pub(crate) struct Service {
    pub store: Store,
    pub feed: Feed,
    pub edges: Edges,
    pub imports: ImportLimiter,
    pub directory: Arc<tempfile::TempDir>,
    clock: Clock,
    nanos: Arc<AtomicU64>,
    monotonic: Arc<AtomicU64>,
    /// Whether reading one of the clocks panics.
    broken_clocks: Arc<AtomicBool>,
    router: Router,
    end: watch::Sender<bool>,
}

pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), Config::default(), Entropy::system()).await
    }

    /// For tests of SQLite's file: it is used whatever engine the tests run on.
    pub(crate) async fn of_a_file() -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        std::fs::File::create_new(directory.path().join(databases::FILE)).unwrap();
        Self::start_in(directory, Config::default(), Entropy::system()).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), config, Entropy::system()).await
    }

    pub(crate) async fn start_in(directory: Arc<tempfile::TempDir>, config: Config, entropy: Entropy) -> Self {
        let database = databases::of(directory.path());
        Self::start_at(&database, directory, config, entropy).await
    }

    /// With this value of `--database`.
    pub(crate) async fn start_at(
        database: &str,
        directory: Arc<tempfile::TempDir>,
        config: Config,
        entropy: Entropy,
    ) -> Self {
        Self::start_by(database, directory, config, entropy, START_SECS * 1_000_000_000).await
    }

    /// With a wall clock that begins so many nanoseconds after 1970.
    async fn start_by(
        database: &str,
        directory: Arc<tempfile::TempDir>,
        config: Config,
        entropy: Entropy,
        nanos: u64,
    ) -> Self {
        // Ids are in the order of the clock, so each reading is a little later.
        let nanos = Arc::new(AtomicU64::new(nanos));
        let (ticking, broken_clocks) = (Arc::clone(&nanos), Arc::new(AtomicBool::new(false)));
        let [broken, broken_too] = [Arc::clone(&broken_clocks), Arc::clone(&broken_clocks)];
        let clock = Clock::from_nanos(move || {
            assert!(!broken.load(Ordering::SeqCst), "the clock is broken");
            ticking.fetch_add(1_000, Ordering::SeqCst)
        });
        let monotonic = Arc::new(AtomicU64::new(0));
        let since = Arc::clone(&monotonic);
        let clock = clock.with_monotonic(move || {
            assert!(!broken_too.load(Ordering::SeqCst), "the clock is broken");
            Duration::from_secs(since.load(Ordering::SeqCst))
        });
        let context = ChangeContext::system(clock.now());
        let epoch = entropy.id(&clock).unwrap();
        let database: Database = database.parse().unwrap();
        let store = Store::open(database, epoch, &config, context).await.unwrap();
        let (end, ending) = watch::channel(false);
        let parts = AppConfig {
            store: store.clone(),
            config,
            clock: clock.clone(),
            entropy,
            admin_token: Token::of(ADMIN),
            edge_token: Token::of(EDGE),
            public_url: PUBLIC_URL.parse().unwrap(),
            spool: Spool::new(directory.path().to_owned(), 256 << 20),
            log_lines_lost: Default::default(),
        };
        let app = App::build(parts, ending).await.unwrap();
        let router = app.router();
        let App { feed, edges, imports, .. } = app;
        tokio::spawn(edges.clone().measure());
        Self { store, edges, imports, directory, clock, nanos, monotonic, broken_clocks, router, feed, end }
    }

    /// The same database in a restarted control plane.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(Config::default()).await
    }

    pub(crate) async fn restart_with(self, config: Config) -> Self {
        let (directory, now) = (Arc::clone(&self.directory), self.nanos.load(Ordering::SeqCst));
        self.end.send_replace(true);
        self.edges.release().await;
        self.store.close().await;
        drop(self);
        let database = databases::of(directory.path());
        Self::start_by(&database, directory, config, Entropy::system(), now).await
    }

    /// Advances both clocks.
    pub(crate) fn advance(&self, secs: u64) {
        self.monotonic.fetch_add(secs, Ordering::SeqCst);
        self.set_wall_forward(secs);
    }

    /// Sets the wall clock forward, and leaves the monotonic one as it is.
    pub(crate) fn set_wall_forward(&self, secs: u64) {
        self.nanos.fetch_add(secs * 1_000_000_000, Ordering::SeqCst);
    }

    /// Makes every handler that reads a clock panic, until it is called with false.
    pub(crate) fn break_clocks(&self, are_broken: bool) {
        self.broken_clocks.store(are_broken, Ordering::SeqCst);
    }

    /// Sets the wall clock back, and leaves the monotonic one as it is.
    pub(crate) fn set_wall_back(&self, secs: u64) {
        self.nanos.fetch_sub(secs * 1_000_000_000, Ordering::SeqCst);
    }

    /// What the hourly task does.
    pub(crate) async fn sweep(&self) {
        self.store.sweep(&self.clock).await.unwrap();
        self.edges.forget_silent().await.unwrap();
    }

    /// The router in debug format, for troubleshooting.
    pub(crate) fn described_router(&self) -> String {
        format!("{:?}", self.router)
    }

    /// Announces the shutdown to waiting requests.
    pub(crate) fn end(&self) {
        self.end.send_replace(true);
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    /// A request of the platform admin, with a body if it isn't null.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        self.call_with(method, path, body, &[]).await
    }

    pub(crate) async fn call_with(&self, method: Method, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        self.call_as(ADMIN, method, path, body, headers).await
    }

    /// A request of the holder of `token`.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = if body.is_null() {
            request.body(Body::empty())
        } else {
            request.header("content-type", "application/json").body(Body::from(body.to_string()))
        };
        self.send(request.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Value::Null).await
    }

    /// Makes the workspace `slug`; returns its id.
    pub(crate) async fn workspace(&self, slug: &str) -> String {
        let made = self.post("/v1/workspaces", json!({"name": slug, "slug": slug})).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// Makes a token with this role, in `workspace` if that is given; returns its id and text.
    pub(crate) async fn token(&self, role: &str, workspace: Option<&str>) -> (String, String) {
        let made = self.post("/v1/admin-tokens", json!({"name": role, "role": role, "workspace": workspace})).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["token"]["id"]), text(&made["secret"]))
    }

    /// Makes a key that never expires, with these additional fields; returns its path and secret.
    pub(crate) async fn key(&self, slug: &str, more: Value) -> (String, String) {
        let mut body = json!({"name": "key", "expires_in": "none"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        if body.get("expires_at").is_some() {
            body.as_object_mut().unwrap().remove("expires_in");
        }
        let made = self.post(&format!("/v1/workspaces/{slug}/keys"), body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        let path = format!("/v1/workspaces/{slug}/keys/{}", made["key"]["id"].as_str().unwrap());
        (path, made["secret"].as_str().unwrap().to_owned())
    }

    pub(crate) fn revision(&self) -> u64 {
        self.store.head().borrow().revision.0
    }

    pub(crate) async fn edge(&self, path: &str) -> Answer {
        self.call_as(EDGE, Method::GET, path, Value::Null, &[]).await
    }

    /// Polls the feed from a position.
    pub(crate) async fn poll(&self, from: Option<Position>, wait: u32) -> Answer {
        let mut path = format!("/edge/v1/feed?format=1&edge=edge-1&instance=i1&wait={wait}");
        if let Some(Position { epoch, revision, head }) = from {
            path.push_str(&format!("&epoch={epoch}&since={revision}&head={head}"));
        }
        self.edge(&path).await
    }

    /// An edge's first table: manifest and pages, and the changes since that snapshot.
    pub(crate) async fn table(&self) -> Table {
        let manifest = self.poll(None, 0).await;
        assert_eq!(manifest.status, 200, "{}", manifest.text());
        let mut loading = Loading::start(&manifest.bytes).unwrap();
        let Position { epoch, revision, .. } = loading.position();
        while let Some(page) = loading.wanted() {
            let page = self.edge(&format!("/edge/v1/snapshots/{epoch}/{revision}/{page}")).await;
            assert_eq!(page.status, 200, "{}", page.text());
            loading.add(page.bytes).unwrap();
        }
        let mut table = loading.finish().unwrap();
        self.catch_up(&mut table).await;
        table
    }

    /// Brings an edge's table up to date by deltas.
    pub(crate) async fn catch_up(&self, table: &mut Table) {
        loop {
            let answer = self.poll(Some(table.position()), 0).await;
            if answer.status == 204 {
                return;
            }
            assert_eq!(answer.status, 200, "{}", answer.text());
            table.apply(&answer.bytes).unwrap();
        }
    }
}

/// The last characters, which distinguish a secret from others.
pub(crate) fn last_four(secret: &str) -> &str {
    secret.get(secret.len() - 4..).unwrap()
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The `Latchkey-Revision` of a change.
    pub(crate) fn revision(&self) -> u64 {
        self.header("latchkey-revision").unwrap_or_else(|| panic!("no revision: {}", self.text())).parse().unwrap()
    }

    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{} {}", self.status, self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(problem["title"].is_string() && problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        problem["code"].as_str().unwrap().to_owned()
    }

    /// `field code` of each field that a problem names.
    pub(crate) fn fields(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|e| format!("{} {}", e["field"].as_str().unwrap(), e["code"].as_str().unwrap())).collect()
    }
}
