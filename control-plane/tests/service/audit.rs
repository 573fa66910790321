//! The audit log: each change leaves one event, and none can be taken away unseen.

use axum::body::Body;
use axum::http::{Method, Request};
use latchkey::store::{VerifyError, verify_audit};
use policy::{ChainHash, Revision};
use rusqlite::Connection;
use serde_json::{Value, json};
use test_support::digest;

use crate::harness::{ADMIN, START, Service};

async fn events(service: &Service, query: &str) -> Vec<Value> {
    let page = service.get(&format!("/v1/audit-events?limit=200&{query}")).await;
    assert_eq!(page.status, 200, "{}", page.text());
    page.json()["items"].as_array().unwrap().clone()
}

fn actions(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["action"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn each_change_leaves_one_event_and_what_changes_nothing_leaves_none() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    service.patch("/v1/workspaces/acme", json!({"name": "Acme Inc."})).await;
    service.patch(&key, json!({"scopes": {"reviews": "read"}})).await;
    service.post(&format!("{key}/rotate"), json!({"overlap": "1h"})).await;
    service.post(&format!("{key}/end-overlap"), Value::Null).await;
    service.post(&format!("{key}/deactivate"), Value::Null).await;
    service.post(&format!("{key}/activate"), Value::Null).await;
    service.delete(&key).await;
    let before = service.revision();
    service.post("/v1/workspaces", json!({"name": "again", "slug": "acme"})).await;
    service.patch("/v1/workspaces/acme", json!({"name": "Acme Inc."})).await;
    service.delete(&key).await;
    assert_eq!(service.revision(), before);

    let events = events(&service, "sort=at").await;
    let expected = [
        "catalogue.define",
        "workspace.create",
        "key.create",
        "workspace.update",
        "key.update",
        "key.rotate",
        "key.end-overlap",
        "key.deactivate",
        "key.activate",
        "key.delete",
    ];
    assert_eq!(actions(&events), expected);
    let revisions: Vec<_> = events.iter().map(|event| event["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, (1..=before).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_event_holds_all_characters_that_metadata_may_and_is_found() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let metadata = json!({"nul": "a\0b", "written out": "\\u0000", "more": "\"\u{1f511}"});
    let (key, _) = service.key("acme", json!({"metadata": metadata})).await;
    assert_eq!(service.get(&key).await.json()["metadata"], metadata);
    let id = key.rsplit('/').next().unwrap();
    for query in [format!("target={id}"), "action=key.create".to_owned()] {
        assert_eq!(events(&service, &query).await[0]["after"]["metadata"], metadata, "{query}");
    }
}

#[tokio::test]
async fn an_event_records_who_did_what_to_what_and_by_which_request() {
    let service = Service::start().await;
    let workspace = service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({"name": "CI", "scopes": {"reviews": "write"}})).await;
    let id = key.rsplit('/').next().unwrap();
    let body = json!({"scopes": {"reviews": "read"}, "metadata": {"team": "a"}});
    let narrowed = service.call_with(Method::PATCH, &key, body, &[("x-request-id", "deploy-7")]).await;
    assert_eq!(narrowed.header("x-request-id"), Some("deploy-7"));

    let event = &events(&service, "").await[0];
    let hash = event["hash"].as_str().unwrap();
    assert_eq!(
        *event,
        json!({
            "revision": narrowed.revision(),
            "at": START,
            "actor": {"kind": "token_file", "id": "platform-admin", "name": "token file"},
            "action": "key.update",
            "target": {"kind": "key", "id": id, "name": "CI"},
            "workspace_id": workspace,
            "before": {"scopes": {"reviews": "write"}, "metadata": {}},
            "after": {"scopes": {"reviews": "read"}, "metadata": {"team": "a"}},
            "address": null,
            "request_id": "deploy-7",
            "hash": hash,
        })
    );
    let made = &events(&service, "action=key.create").await[0];
    assert_eq!((&made["before"], &made["after"]["name"]), (&Value::Null, &json!("CI")));
    service.delete(&key).await;
    let gone = &events(&service, &format!("target={id}")).await[0];
    assert_eq!((&gone["before"]["name"], &gone["after"]), (&json!("CI"), &Value::Null));
}

#[tokio::test]
async fn no_event_holds_a_secret_or_a_digest() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({})).await;
    let second = service.post(&format!("{path}/rotate"), Value::Null).await.json();
    let all = service.get("/v1/audit-events").await.text();
    for secret in [first.as_str(), second["secret"].as_str().unwrap(), ADMIN] {
        assert!(!all.contains(secret));
        assert!(!all.contains(&digest::hexadecimal(secret)));
    }
}

#[tokio::test]
async fn a_workspace_s_log_shows_its_own_events_alone() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    service.key("other", json!({})).await;
    service.key("acme", json!({})).await;
    let mine = service.get("/v1/workspaces/acme/audit-events").await.json();
    assert_eq!(actions(mine["items"].as_array().unwrap()), ["key.create", "workspace.create"]);
}

#[tokio::test]
async fn pages_hold_each_event_once_while_others_are_written() {
    let service = Service::start().await;
    service.workspace("acme").await;
    for _ in 0..4 {
        service.key("acme", json!({})).await;
    }
    for (sort, expected) in [("at", vec![1, 2, 3, 4, 5, 6]), ("-at", vec![6, 5, 4, 3, 2, 1])] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = service.get(&format!("/v1/audit-events?limit=2&sort={sort}{cursor}")).await.json();
            seen.extend(page["items"].as_array().unwrap().iter().map(|event| event["revision"].as_u64().unwrap()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            if sort == "-at" {
                service.key("acme", json!({})).await;
            }
        }
        assert_eq!(seen, expected, "{sort}");
    }
    let since = events(&service, "since=5&sort=at").await;
    assert_eq!(since[0]["revision"], 6);
}

#[tokio::test]
async fn a_query_that_the_log_does_not_support_names_its_parameter() {
    let service = Service::start().await;
    for (query, expected) in [
        ("sort=name", "sort unknown-sort"),
        ("since=-1", "since out-of-range"),
        ("cursor=%21", "cursor bad-cursor"),
        ("limit=0", "limit out-of-range"),
        ("page=1", "page unknown-field"),
    ] {
        let refused = service.get(&format!("/v1/audit-events?{query}")).await;
        assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec![expected.to_owned()]), "{query}");
    }
}

/// An export, and the head that came with it.
async fn export(service: &Service, path: &str) -> (String, ChainHash) {
    let request = Request::get(path)
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("accept", "application/jsonl")
        .body(Body::empty());
    let export = service.send(request.unwrap()).await;
    assert_eq!((export.status.as_u16(), export.header("content-type")), (200, Some("application/jsonl")));
    let head = export.header("latchkey-audit-head").unwrap().parse().unwrap();
    (export.text(), head)
}

#[tokio::test]
async fn an_export_s_chain_can_be_checked_without_us() {
    let service = Service::start().await;
    service.workspace("acme").await;
    // More than are read at a time.
    for number in 0..510 {
        service.patch("/v1/workspaces/acme", json!({"name": format!("{number}")})).await;
    }
    let (text, head) = export(&service, "/v1/audit-events").await;
    let mut hash = ChainHash([0; 32]);
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let own = event["hash"].as_str().unwrap();
        let hashed = line.replace(&format!(",\"hash\":\"{own}\""), "");
        hash = hash.then(Revision(event["revision"].as_u64().unwrap()), hashed.as_bytes());
        assert_eq!(hash.to_string(), own);
    }
    assert_eq!((text.lines().count(), hash), (512, head));
    let (mine, _) = export(&service, "/v1/workspaces/acme/audit-events?action=workspace.create").await;
    assert_eq!(mine.lines().count(), 1);
}

#[tokio::test]
async fn a_changed_removed_or_moved_event_is_found() {
    let service = Service::of_a_file().await;
    service.workspace("acme").await;
    for _ in 0..4 {
        service.key("acme", json!({})).await;
    }
    let head = service.store.audit_head().await.unwrap().unwrap();
    let path = service.directory.path().join("latchkey.db");
    let noted = verify_audit(&path, Some(head.hash)).unwrap();
    assert_eq!((noted.events, noted.head), (6, Some(head)));
    service.key("acme", json!({})).await;
    assert_eq!(verify_audit(&path, Some(head.hash)).unwrap().events, 7, "beside a control plane that writes");
    service.store.close().await;

    let revision = |number| format!("revision {number} ");
    for (name, tampering, expected) in [
        ("changed", "UPDATE audit_events SET event = replace(event, 'key', 'kex') WHERE revision = 3", revision(3)),
        ("first removed", "DELETE FROM audit_events WHERE revision = 1", revision(2)),
        ("removed", "DELETE FROM audit_events WHERE revision = 4", revision(5)),
        ("newest removed", "DELETE FROM audit_events WHERE revision > 5", "newest events".to_owned()),
        ("all removed", "DELETE FROM audit_events", "newest events".to_owned()),
        (
            "swapped",
            "UPDATE audit_events SET revision = -revision WHERE revision IN (3, 4);
             UPDATE audit_events SET revision = 7 + revision WHERE revision < 0",
            revision(3),
        ),
        ("another hash", "UPDATE audit_events SET hash = zeroblob(32) WHERE revision = 5", revision(5)),
    ] {
        let copy = service.directory.path().join(format!("{name}.db"));
        std::fs::copy(&path, &copy).unwrap();
        Connection::open(&copy).unwrap().execute_batch(tampering).unwrap();
        let found = verify_audit(&copy, None).map(drop).unwrap_err().to_string();
        assert!(found.contains(&expected) && found.contains(name), "{name}: {found}");
    }
    let other = ChainHash([7; 32]);
    assert!(matches!(verify_audit(&path, Some(other)), Err(VerifyError::Head { expected, .. }) if expected == other));
}
