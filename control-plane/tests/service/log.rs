//! The log of changes: how far back edges catch up by deltas, and what is reported when the history went back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use policy::table::Loading;
use policy::wire::Delta;
use policy::{Digest, Position, Revision};
use serde_json::{Value, json};
use tracing::Level;

use crate::captured_log::CapturedLog;
use crate::harness::Service;

/// A service whose log keeps the newest `log_revisions`, with one key; returns its path too.
async fn with_log(log_revisions: u64) -> (Service, String) {
    let service = Service::start_with(Config { log_revisions, ..Config::default() }).await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({})).await;
    (service, path)
}

/// Makes this many changes.
async fn changes(service: &Service, path: &str, count: usize) {
    for action in ["deactivate", "activate"].iter().cycle().take(count) {
        assert_eq!(service.post(&format!("{path}/{action}"), Value::Null).await.status, 200);
    }
}

async fn gets_a_delta(service: &Service, from: Position) -> bool {
    let answer = service.poll(Some(from), 0).await;
    assert_eq!(answer.status, 200);
    Delta::is_delta(&answer.bytes)
}

/// Advances the clock of timeouts. The clock is paused only here: a paused runtime would advance it while a request
/// waits for the writer, whose thread isn't one of the runtime's.
async fn later(secs: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(secs)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_edge_behind_the_compacted_log_gets_a_manifest() {
    let (service, path) = with_log(10).await;
    let head = || *service.store.head().borrow();
    let mut positions = vec![head()];
    for action in ["deactivate", "activate"].iter().cycle().take(30) {
        service.post(&format!("{path}/{action}"), Value::Null).await;
        positions.push(head());
    }
    service.feed.compact().await.unwrap();
    let newest = head().revision.0;
    for from in &positions[..positions.len() - 1] {
        let kept = newest - from.revision.0 <= 10;
        assert_eq!(gets_a_delta(&service, *from).await, kept, "{} of {newest}", from.revision);
    }
    // An edge that missed more gets a snapshot with the same table.
    let fresh = service.table().await;
    assert_eq!(fresh.position(), head());
    assert_eq!(service.poll(Some(fresh.position()), 0).await.status, 204);
}

#[tokio::test]
async fn compaction_keeps_what_leads_on_from_a_snapshot_that_is_being_loaded() {
    let (service, path) = with_log(10).await;
    let loading = Loading::start(&service.poll(None, 0).await.bytes).unwrap();
    let Position { epoch, revision, .. } = loading.position();
    changes(&service, &path, 30).await;
    service.feed.compact().await.unwrap();
    assert!(gets_a_delta(&service, loading.position()).await);

    // Requests for its pages keep it, even after another snapshot has taken its place.
    later(50).await;
    let page = format!("/edge/v1/snapshots/{epoch}/{revision}/0");
    assert_eq!(service.edge(&page).await.status, 200);
    let newer = Loading::start(&service.poll(None, 0).await.bytes).unwrap();
    assert!(newer.position().revision > revision);
    later(50).await;
    service.feed.compact().await.unwrap();
    assert!(gets_a_delta(&service, loading.position()).await);

    // A minute after its last request it counts as unused.
    later(11).await;
    // Deltas that were made before are cached and still valid; this one has yet to be made.
    changes(&service, &path, 1).await;
    service.feed.compact().await.unwrap();
    assert!(!gets_a_delta(&service, loading.position()).await);
}

#[tokio::test]
async fn the_log_is_compacted_while_changes_come() {
    let (service, path) = with_log(10).await;
    let first = *service.store.head().borrow();
    let keeping = tokio::spawn(service.feed.clone().compact_log());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while gets_a_delta(&service, {
        changes(&service, &path, 2).await;
        first
    })
    .await
    {
        assert!(tokio::time::Instant::now() < deadline, "the log was not compacted");
    }
    service.end();
    keeping.await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    for file in ["latchkey.db", "latchkey.db-wal"] {
        let _ = std::fs::remove_file(to.join(file));
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_database_that_went_back_is_reported_once_and_edges_take_what_it_has() {
    let (logged, _guard) = CapturedLog::of_this_thread();

    let service = Service::of_a_file().await;
    service.workspace("acme").await;
    let (path, secret) = service.key("acme", json!({})).await;
    let older = tempfile::tempdir().unwrap();
    let directory = Arc::clone(&service.directory);
    let service = service.restart().await;
    copy(directory.path(), older.path());
    service.post(&format!("{path}/deactivate"), Value::Null).await;
    let mut ahead = service.table().await;
    assert!(!ahead.find(&Digest::of(secret.as_bytes())).unwrap().is_active());

    service.end();
    service.store.close().await;
    copy(older.path(), directory.path());
    drop(service);
    let service = Service::start_in(directory, Config::default(), Entropy::system()).await;
    assert_eq!(logged.lines(Level::ERROR), [""; 0]);
    for instance in ["ahead of the file", "asks once more"] {
        assert!(!gets_a_delta(&service, ahead.position()).await, "{instance}");
    }
    let errors = logged.lines(Level::ERROR);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let revision = ahead.position().revision.0;
    for part in
        ["went back", "edge-1", &format!("edge_revision={revision}"), "2026-11-23T08:00:00Z", "put the newest copy"]
    {
        assert!(errors[0].contains(part), "{part}: {}", errors[0]);
    }

    let metrics = service.get("/metrics").await.text();
    assert!(metrics.lines().any(|line| line == "latchkey_database_went_back 1"), "{metrics}");

    // After as many changes the number is the same, but the history is another.
    service.patch(&path, json!({"name": "another"})).await;
    assert_eq!(service.revision(), revision);
    assert!(!gets_a_delta(&service, ahead.position()).await);
    assert_eq!(logged.lines(Level::ERROR).len(), 1);
    ahead = service.table().await;
    assert!(ahead.find(&Digest::of(secret.as_bytes())).unwrap().is_active());
}

#[tokio::test]
async fn an_edge_that_missed_much_or_is_of_another_epoch_is_no_reason_for_an_error() {
    let (logged, _guard) = CapturedLog::of_this_thread();
    let (service, path) = with_log(10).await;
    let before = *service.store.head().borrow();
    changes(&service, &path, 30).await;
    service.feed.compact().await.unwrap();
    assert!(!gets_a_delta(&service, before).await);
    let other = Position::first(policy::Epoch::from_bytes([9; 16]), Revision(u64::MAX));
    assert!(!gets_a_delta(&service, other).await);
    assert_eq!(logged.lines(Level::ERROR), [""; 0]);
}
