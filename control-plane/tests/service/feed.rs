//! The feed: an edge's table equals the store, whichever way the edge got it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request};
use policy::wire::Delta;
use policy::{ChainHash, Digest, Epoch, Position, Revision};
use serde_json::{Value, json};

use crate::harness::{ADMIN, Service};
use crate::import::{ACME, line};

#[tokio::test]
async fn a_delta_on_a_snapshot_leads_to_the_next_snapshot_s_table() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({"scopes": {"reviews": "read"}})).await;
    let mut table = service.table().await;

    let (doomed, doomed_secret) = service.key("acme", json!({})).await;
    let second = service.post(&format!("{path}/rotate"), Value::Null).await.json()["secret"].clone();
    service.patch(&path, json!({"name": "only the control plane knows", "scopes": {"webhooks": "write"}})).await;
    service.patch("/v1/workspaces/acme", json!({"name": "New name"})).await;
    service.delete(&doomed).await;
    service.catch_up(&mut table).await;

    assert_eq!(table.position(), *service.store.head().borrow());
    // A new process, so nothing is cached.
    let service = service.restart().await;
    let fresh = service.table().await;
    assert_eq!(fresh.position(), table.position());
    assert_eq!((fresh.len(), table.len()), (2, 2));
    for secret in [first.as_str(), second.as_str().unwrap(), doomed_secret.as_str()] {
        let digest = Digest::of(secret.as_bytes());
        let facts = |table: &policy::Table| {
            let catalogue = table.catalogue();
            table.find(&digest).map(|record| {
                let level = record.level(catalogue.scope_number("webhooks").unwrap());
                let slug = record.slug().unwrap().to_owned();
                let live = catalogue.is_environment(record.environment(), &policy::Environment::default());
                (record.key(), record.workspace(), slug, live, record.is_active(), record.superseded_at(), level)
            })
        };
        assert_eq!(facts(&table), facts(&fresh));
        assert_eq!(facts(&fresh).is_none(), secret == doomed_secret);
    }
}

#[tokio::test]
async fn a_delta_s_chain_verifies_against_the_snapshot_s_position_and_no_other() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let from = service.table().await.position();
    service.key("acme", json!({})).await;
    let delta = service.poll(Some(from), 0).await;
    assert_eq!(delta.header("content-type"), Some("application/vnd.latchkey.feed"));
    assert!(Delta::is_delta(&delta.bytes) && Delta::decode(&delta.bytes, from).is_ok());
    let other = Position { head: ChainHash([0; 32]), ..from };
    assert!(Delta::decode(&delta.bytes, other).is_err());
}

#[tokio::test]
async fn a_waiting_edge_is_woken_by_a_change() {
    let service = Arc::new(Service::start().await);
    service.workspace("acme").await;
    let mut table = service.table().await;
    let waiting = tokio::spawn({
        let (service, from) = (Arc::clone(&service), table.position());
        async move { service.poll(Some(from), 20).await }
    });
    // One yield is enough for the request to begin to wait, whichever task runs first.
    tokio::task::yield_now().await;
    let (_, secret) = service.key("acme", json!({})).await;
    let woken = waiting.await.unwrap();
    assert_eq!(woken.status, 200);
    table.apply(&woken.bytes).unwrap();
    assert!(table.find(&Digest::of(secret.as_bytes())).is_some());
}

#[tokio::test]
async fn with_nothing_new_the_answer_is_204_and_tells_the_time() {
    let service = Service::start().await;
    let from = service.table().await.position();
    let nothing = service.poll(Some(from), 0).await;
    assert_eq!((nothing.status.as_u16(), nothing.bytes.len()), (204, 0));
    let time: u64 = nothing.header("latchkey-time").unwrap().parse().unwrap();
    assert_eq!(time / 1_000, 1_795_420_800);
}

#[tokio::test(start_paused = true)]
async fn an_edge_waits_as_long_as_it_asked_and_no_longer() {
    let service = Service::start().await;
    let from = service.table().await.position();
    let began = tokio::time::Instant::now();
    assert_eq!(service.poll(Some(from), 7).await.status, 204);
    assert_eq!(began.elapsed().as_secs(), 7);
    assert_eq!(service.poll(Some(from), 3_600).await.status, 204);
    assert_eq!(began.elapsed().as_secs(), 27);
}

#[tokio::test]
async fn waiting_edges_are_answered_when_the_service_ends() {
    let service = Service::start().await;
    let from = service.table().await.position();
    let ((), waited) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            service.end();
        },
        service.poll(Some(from), 20)
    );
    assert_eq!(waited.status, 204);
}

#[tokio::test]
async fn an_edge_whose_history_is_not_ours_gets_a_snapshot() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let head = *service.store.head().borrow();
    for (name, from) in [
        ("another epoch", Position { epoch: Epoch::from_bytes([9; 16]), ..head }),
        ("ahead of us", Position { revision: Revision(head.revision.0 + 1), ..head }),
        ("far ahead of us", Position { revision: Revision(u64::MAX), ..head }),
        ("another hash at the head", Position { head: ChainHash([1; 32]), ..head }),
        ("another hash before", Position { revision: Revision(1), ..head }),
        ("another first hash", Position { revision: Revision(0), ..head }),
    ] {
        let answer = service.poll(Some(from), 20).await;
        assert_eq!(answer.status, 200, "{name}");
        assert!(!Delta::is_delta(&answer.bytes), "{name}");
    }
    // The start of the epoch is in our history.
    let answer = service.poll(Some(Position::first(head.epoch, Revision(0))), 20).await;
    assert!(Delta::is_delta(&answer.bytes));
}

#[tokio::test]
async fn a_long_way_to_catch_up_is_cut_into_deltas() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let mut table = service.table().await;
    // About 2 KB of networks in each change.
    let networks: Vec<_> = (0..100).map(|n| format!("2001:db8:{n:x}::/48")).collect();
    let (path, secret) = service.key("acme", json!({"ip_allowlist": networks})).await;
    for _ in 0..300 {
        for action in ["deactivate", "activate"] {
            service.post(&format!("{path}/{action}"), Value::Null).await;
        }
    }
    let mut deltas = 0;
    loop {
        let answer = service.poll(Some(table.position()), 0).await;
        if answer.status == 204 {
            break;
        }
        assert!(answer.bytes.len() < (64 << 10) + 4_096, "{}", answer.bytes.len());
        table.apply(&answer.bytes).unwrap();
        deltas += 1;
    }
    assert!((15..25).contains(&deltas), "{deltas} deltas");
    assert_eq!(table.position(), *service.store.head().borrow());
    assert!(table.find(&Digest::of(secret.as_bytes())).unwrap().is_active());
}

/// A worker applies a delta in one turn, and a change is never split.
#[tokio::test]
async fn an_import_of_large_keys_comes_in_changes_that_fit_a_turn() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let mut table = service.table().await;
    let (before, mut bytes) = (table.position().revision, 0);
    let networks: Vec<_> = (0..100).map(|n| format!("10.{n}.0.0/16")).collect();
    let lines = (0..100).map(|n| line(&n.to_string(), json!({"ip_allowlist": networks})));
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    let request = Request::post(ACME).header("authorization", format!("Bearer {ADMIN}"));
    let request = request.header("content-type", "application/jsonl").body(Body::from(body)).unwrap();
    assert_eq!(service.send(request).await.status, 200);
    loop {
        let answer = service.poll(Some(table.position()), 0).await;
        if answer.status == 204 {
            break;
        }
        assert!(answer.bytes.len() < (64 << 10) + 4_096, "{} bytes", answer.bytes.len());
        table.apply(&answer.bytes).unwrap();
        bytes += answer.bytes.len() as u64;
    }
    assert_eq!(table.len(), 100);
    let (revision, since) = service.store.bytes_since(before).await.unwrap();
    assert_eq!(revision, table.position().revision);
    assert!((bytes - 1_000..bytes).contains(&since), "{since} of {bytes} bytes with headers");
}

#[tokio::test]
async fn a_page_is_the_same_bytes_for_ever_and_gone_with_its_snapshot() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.key("acme", json!({})).await;
    let Position { epoch, revision, .. } = service.table().await.position();
    let path = format!("/edge/v1/snapshots/{epoch}/{revision}/0");
    let page = service.edge(&path).await;
    assert!(page.header("cache-control").unwrap().starts_with("private"));
    assert!(page.header("latchkey-time").is_some());
    service.key("acme", json!({})).await;
    assert_eq!(service.edge(&path).await.bytes, page.bytes);

    for gone in [
        format!("/edge/v1/snapshots/{epoch}/{}/0", revision.0 + 1),
        format!("/edge/v1/snapshots/{}/{revision}/0", "0".repeat(32)),
        format!("/edge/v1/snapshots/{epoch}/{revision}/9999"),
    ] {
        let answer = service.edge(&gone).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (410, "snapshot-gone"), "{gone}");
    }
    assert_eq!(service.edge(&format!("/edge/v1/snapshots/{epoch}/x/0")).await.status, 404);
    let service = service.restart().await;
    assert_eq!(service.edge(&path).await.status, 410);
}

#[tokio::test]
async fn a_feed_query_that_can_not_be_read_is_refused() {
    let service = Service::start().await;
    for (query, status, code) in [
        ("format=2&edge=e&instance=i", 406, "unknown-format"),
        ("edge=e&instance=i", 400, "bad-query"),
        ("format=1&instance=i", 400, "bad-query"),
        ("format=1&edge=e&instance=i&since=-1", 400, "bad-query"),
        ("format=1&edge=e&instance=i&wait=x", 400, "bad-query"),
    ] {
        let refused = service.edge(&format!("/edge/v1/feed?{query}")).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (status, code), "{query}");
    }
    assert_eq!(service.call(Method::GET, "/edge/v1/feed?format=2", Value::Null).await.status, 401);
}
