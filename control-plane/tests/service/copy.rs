//! A copy from a file to PostgreSQL loses nothing, and clients don't notice it.
//!
//! Without LATCHKEY_TEST_DATABASE=postgres there is no server to move to.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use axum::http::Method;
use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use latchkey::store::{CopyError, CopyStep, CopySummary, Database, copy, verify_audit};
use policy::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{EDGE, Service};
use crate::import::line;
use crate::visitor::Visitor;
use crate::waiting::until;
use test_support::databases::{self, is_postgres, on_server};

/// A target for a copy: an empty schema.
pub(crate) fn empty_target() -> (Arc<TempDir>, String) {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let url = databases::of(directory.path());
    (directory, url)
}

pub(crate) fn file(directory: &TempDir) -> String {
    directory.path().join(databases::FILE).to_str().unwrap().to_owned()
}

pub(crate) async fn copy_database(from: &str, to: &str) -> Result<CopySummary, CopyError> {
    copy_database_with(from, to, |_| {}).await
}

pub(crate) async fn copy_database_with(
    from: &str,
    to: &str,
    mut report: impl FnMut(CopyStep) + Send + 'static,
) -> Result<CopySummary, CopyError> {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    tokio::task::spawn_blocking(move || copy(&from, &to, &mut report)).await.unwrap()
}

pub(crate) async fn serve(database: &str, directory: &Arc<TempDir>) -> Service {
    Service::start_at(database, Arc::clone(directory), Config::default(), Entropy::system()).await
}

/// A file with two keys, closed. Returns its directory, too.
pub(crate) async fn small_file() -> (Arc<TempDir>, String) {
    let service = Service::of_a_file().await;
    service.workspace("acme").await;
    service.key("acme", json!({})).await;
    service.key("acme", json!({})).await;
    service.store.close().await;
    let directory = Arc::clone(&service.directory);
    let path = file(&directory);
    (directory, path)
}

async fn events(service: &Service) -> String {
    let kind = [("accept", "application/jsonl")];
    service.call_with(Method::GET, "/v1/audit-events", Value::Null, &kind).await.text()
}

#[tokio::test]
async fn a_control_plane_goes_on_from_the_copy_where_the_file_was_and_edges_see_no_step_back() {
    if !is_postgres() {
        return;
    }
    let service = Service::of_a_file().await;
    service.workspace("acme").await;
    let (rotated, _) =
        service.key("acme", json!({"scopes": {"reviews": "read"}, "metadata": {"a": "ü\u{1f511}", "b": "\0"}})).await;
    service.post(&format!("{rotated}/rotate"), json!({"overlap": "1h"})).await;
    let (inactive, secret) = service.key("acme", json!({"ip_allowlist": ["10.0.0.0/8"]})).await;
    service.post(&format!("{inactive}/deactivate"), Value::Null).await;
    let (deleted, leaked) = service.key("acme", json!({})).await;
    service.delete(&deleted).await;
    let (_, admin) = service.token("workspace_admin", Some("acme")).await;
    let edge_token = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "edge-1"})).await.json();
    let visitor = Visitor::admin(&service).await.cookie;
    let mut table = service.table().await;
    let head = *service.store.head().borrow();
    let body = json!({"edge": "edge-1", "instance": "i1", "epoch": head.epoch.to_string(), "version": "1", "max_staleness_secs": 60,
        "workers": [{"id": "0", "applied": head.revision.0, "started_at": 1_795_420_800}]});
    assert_eq!(service.call_as(EDGE, Method::POST, "/edge/v1/acknowledgements", body, &[]).await.status, 200);
    let paths = [
        rotated.as_str(),
        &inactive,
        "/v1/workspaces/acme/keys",
        "/v1/workspaces",
        "/v1/admin-tokens",
        "/v1/edge-tokens",
    ];
    let mut before = Vec::new();
    for path in paths {
        before.push(service.get(path).await.json());
    }
    let log = events(&service).await;
    service.store.close().await;

    let (directory, url) = empty_target();
    let made = copy_database(&file(&service.directory), &url).await.unwrap();
    assert_eq!((made.position, made.audit.events), (head, head.revision.0));
    let service = serve(&url, &directory).await;
    assert_eq!(*service.store.head().borrow(), head);
    assert_eq!(service.poll(Some(table.position()), 0).await.status, 204, "an edge has nothing to load");
    for (path, before) in paths.into_iter().zip(before) {
        assert_eq!(service.get(path).await.json(), before, "{path}");
    }
    assert_eq!(events(&service).await, log);
    assert_eq!(service.call_as(&admin, Method::GET, "/v1/workspaces/acme/keys", Value::Null, &[]).await.status, 200);
    let token = edge_token["secret"].as_str().unwrap();
    let feed = "/edge/v1/feed?format=1&edge=edge-1&instance=i2";
    assert_eq!(service.call_as(token, Method::GET, feed, Value::Null, &[]).await.status, 200);
    let visitor = Visitor { service: &service, cookie: visitor };
    assert_eq!(visitor.get("/console/edges").await.status, 200, "who was signed in still is");
    let known = service.post("/v1/keys/identify", json!({"secret": leaked})).await.json();
    assert!(known.to_string().contains("deleted"), "{known}");
    let edges = service.get("/v1/edges").await.json();
    assert!(edges.to_string().contains("\"i1\""), "{edges}");

    service.post(&format!("{inactive}/activate"), Value::Null).await;
    assert_eq!(service.revision(), head.revision.0 + 1);
    service.catch_up(&mut table).await;
    assert!(table.find(&Digest::of(secret.as_bytes())).unwrap().is_active());
    service.store.close().await;
    let database: Database = url.parse().unwrap();
    tokio::task::spawn_blocking(move || verify_audit(database, None)).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_the_database_numbers_goes_on_above_what_was_copied() {
    if !is_postgres() {
        return;
    }
    let line = |secret: &str| line(secret, json!({})).to_string();
    let import = async |service: &Service, secret: &str| {
        let request = axum::http::Request::post("/v1/workspaces/acme/keys/import");
        let request = request.header("authorization", "Bearer lkadm_admin").header("content-type", "application/jsonl");
        let answer = service.send(request.body(axum::body::Body::from(line(secret))).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let report = async |service: &Service, sequence: u64, key: &str| {
        let key = key.rsplit('/').next().unwrap();
        let body = json!({"edge": "edge-1", "instance": "i1", "worker": "w", "sequence": sequence,
            "keys": [{"key": key, "hour": 1_795_420_800, "allowed": 5}]});
        let answer = service.call_as(EDGE, Method::POST, "/edge/v1/usage", body, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let service = Service::of_a_file().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    service.poll(None, 0).await;
    for number in 1..=3 {
        import(&service, &format!("old-{number}")).await;
        report(&service, number, &key).await;
    }
    service.store.close().await;

    let (directory, url) = empty_target();
    copy_database(&file(&service.directory), &url).await.unwrap();
    let service = serve(&url, &directory).await;
    service.poll(None, 0).await;
    import(&service, "new").await;
    // A batch that was counted isn't counted again, a new one is.
    report(&service, 3, &key).await;
    report(&service, 4, &key).await;
    assert_eq!(service.get(&format!("{key}/usage")).await.json()["totals"]["allowed"], 20);
    let numbers = "SELECT nextval(pg_get_serial_sequence('import_steps', 'step')), nextval(pg_get_serial_sequence('usage_rounds', 'id'))";
    let row = on_server(&url, |server| server.query_one(numbers, &[]).unwrap());
    let (step, round): (i64, i64) = (row.get(0), row.get(1));
    assert!(step >= 5 && round >= 5, "{step} {round}");
}

#[tokio::test]
async fn a_target_of_a_first_start_only_is_treated_like_an_empty_one() {
    if !is_postgres() {
        return;
    }
    let (_kept, from) = small_file().await;
    let service = Service::start().await;
    let url = databases::of(service.directory.path());
    let other = *service.store.head().borrow();
    service.store.close().await;
    let made = copy_database(&from, &url).await.unwrap();
    let service = serve(&url, &service.directory).await;
    assert_eq!(*service.store.head().borrow(), made.position);
    assert_ne!(made.position.epoch, other.epoch);
}

#[tokio::test]
async fn what_a_crash_left_in_the_wal_is_copied_and_stays_there() {
    if !is_postgres() {
        return;
    }
    let service = Service::of_a_file().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    // As a crash leaves them: a file and its WAL, without the rest.
    let crashed = tempfile::tempdir().unwrap();
    let path = file(&crashed);
    for suffix in ["", "-wal"] {
        std::fs::copy(format!("{}{suffix}", file(&service.directory)), format!("{path}{suffix}")).unwrap();
    }
    let bytes = || [std::fs::read(&path).unwrap(), std::fs::read(format!("{path}-wal")).unwrap()];
    let before = bytes();
    assert!(!before[1].is_empty());
    let (directory, url) = empty_target();
    let made = copy_database(&path, &url).await.unwrap();
    assert_eq!(made.position.revision.0, service.revision());
    assert_eq!(bytes(), before);
    assert_eq!(serve(&url, &directory).await.get(&key).await.status, 200);
}

#[tokio::test]
async fn what_went_to_postgresql_and_back_is_the_same() {
    if !is_postgres() {
        return;
    }
    let (_kept, from) = small_file().await;
    let (directory, url) = empty_target();
    let there = copy_database(&from, &url).await.unwrap();
    let elsewhere = Arc::new(tempfile::tempdir().unwrap());
    let path = file(&elsewhere);
    let back = copy_database(&url, &path).await.unwrap();
    assert_eq!(back, there);
    assert!(matches!(copy_database(&url, &path).await, Err(CopyError::TakenFile { .. })));
    let service = serve(&path, &elsewhere).await;
    assert_eq!(*service.store.head().borrow(), there.position);
    service.key("acme", json!({})).await;

    let service = serve(&url, &directory).await;
    let other = elsewhere.path().join("other.db");
    let other = other.to_str().unwrap();
    until("it is known to serve", async || matches!(copy_database(&url, other).await, Err(CopyError::Served { .. })))
        .await;
    assert!(!Path::new(other).exists());
    service.store.close().await;
}

#[test]
fn two_of_one_kind_are_a_wrong_command_line_and_the_password_is_not_shown() {
    for (from, to) in [("a.db", "b.db"), ("postgres://keys:hush@a/x", "postgres://keys:hush@b/x")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        let output = command.env_clear().args(["copy", "--from", from, "--to", to]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains("latchkey backup") && stderr.contains("pg_dump") && !stderr.contains("hush"),
            "{stderr}"
        );
    }
}

#[test]
fn the_command_reports_what_it_copied_and_the_next_step() {
    if !is_postgres() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_kept, from) = runtime.block_on(small_file());
    let (_directory, url) = empty_target();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    let output = command.env_clear().args(["copy", "--from", &from, "--to", &url]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for printed in ["up to revision 4", "\n4 audit events", "same token files"] {
        assert!(stdout.contains(printed), "{printed}: {stdout}");
    }
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    assert!(stdout.lines().any(|line| words(line) == ["keys", "2"]), "{stdout}");
}
