//! Imports of keys that other software made, by the digests of their secrets.

use axum::body::Body;
use axum::http::Request;
use policy::Digest;
use serde_json::{Value, json};
use test_support::digest;
use tracing::Level;

use crate::captured_log::CapturedLog;
use crate::harness::{ADMIN, Answer, EDGE, START, Service};
use crate::openapi::assert_documented;

pub(crate) const ANYWHERE: &str = "/v1/keys/import";
pub(crate) const ACME: &str = "/v1/workspaces/acme/keys/import";

/// A line for this secret, with these fields added or replaced.
pub(crate) fn line(secret: &str, more: Value) -> Value {
    let mut line = json!({"digest": digest::hexadecimal(secret), "name": secret, "expires_in": "none"});
    for (name, value) in more.as_object().unwrap() {
        line[name] = value.clone();
    }
    line
}

fn body(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

async fn send(service: &Service, token: &str, path: &str, kind: &str, body: String) -> Answer {
    let request = Request::post(path).header("authorization", format!("Bearer {token}")).header("content-type", kind);
    let answer = service.send(request.body(Body::from(body)).unwrap()).await;
    let route = if path.starts_with(ANYWHERE) { ANYWHERE } else { "/v1/workspaces/{workspace}/keys/import" };
    assert_documented(&format!("POST {route}"), &answer);
    answer
}

pub(crate) async fn import(service: &Service, path: &str, lines: &[Value]) -> Answer {
    send(service, ADMIN, path, "application/jsonl", body(lines)).await
}

/// `line field code` of each refused field.
pub(crate) fn refused(answer: &Answer) -> Vec<String> {
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "refused-lines"), "{}", answer.text());
    let lines = answer.json()["lines"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = |line: &Value| {
        let number = line["line"].clone();
        let errors = line["errors"].as_array().unwrap().clone();
        errors.into_iter().map(move |error| format!("{number} {} {}", text(&error["field"]), text(&error["code"])))
    };
    lines.iter().flat_map(errors).collect()
}

#[tokio::test]
async fn an_imported_key_is_a_key_like_any_other() {
    let service = Service::start().await;
    let workspace = service.workspace("acme").await;
    let mut table = service.table().await;
    let more = json!({
        "name": "CI", "workspace": "acme", "scopes": {"reviews": "write"}, "ip_allowlist": ["192.0.2.0/24"],
        "environment": "live", "metadata": {"id": 7}, "last_characters": "z9Q4", "expires_in": null,
        "expires_at": "2027-01-31T12:00:00Z",
    });
    let mut first = line("theirs-1", more);
    first.as_object_mut().unwrap().remove("expires_in");
    let made = import(&service, ACME, &[first, line("theirs-2", json!({"last_characters": null}))]).await;
    assert_eq!((made.status.as_u16(), &made.json()["imported"]), (200, &json!(2)), "{}", made.text());
    let id = made.json()["key_ids"][0].as_str().unwrap().to_owned();
    let path = format!("/v1/workspaces/acme/keys/{id}");

    let key = service.get(&path).await.json();
    for (field, expected) in [
        ("workspace_id", json!(workspace)),
        ("name", json!("CI")),
        ("environment", json!("live")),
        ("last_characters", json!("z9Q4")),
        ("status", json!("active")),
        ("scopes", json!({"reviews": "write"})),
        ("ip_allowlist", json!(["192.0.2.0/24"])),
        ("expires_at", json!("2027-01-31T12:00:00Z")),
        ("metadata", json!({"id": 7})),
        ("created_at", json!(START)),
        ("created_by", json!("platform-admin")),
        ("rotated_at", Value::Null),
        ("revision", json!(made.revision())),
    ] {
        assert_eq!(key[field], expected, "{field}");
    }
    let other = made.json()["key_ids"][1].as_str().unwrap().to_owned();
    assert_eq!(service.get(&format!("/v1/workspaces/acme/keys/{other}")).await.json()["last_characters"], Value::Null);
    let identified = service.post("/v1/keys/identify", json!({"secret": "theirs-1"})).await.json();
    assert_eq!((&identified["key_id"], &identified["status"]), (&json!(id), &json!("current")));

    // A delta contains the same as a snapshot.
    service.catch_up(&mut table).await;
    let rotated = service.post(&format!("{path}/rotate"), Value::Null).await;
    assert!(rotated.json()["secret"].as_str().unwrap().starts_with("lk_live_"));
    let mut later = service.table().await;
    service.catch_up(&mut later).await;
    let now = policy::UnixSeconds(1_795_420_800);
    assert!(later.find(&Digest::of(b"theirs-1")).unwrap().superseded_at().is_reached(now));
    assert!(!table.find(&Digest::of(b"theirs-1")).unwrap().superseded_at().is_reached(now));
    let service = service.restart().await;
    let fresh = service.table().await;
    let facts = |table: &policy::Table| {
        table.find(&Digest::of(b"theirs-2")).map(|record| {
            let slug = record.slug().unwrap().to_owned();
            (record.key(), record.workspace(), slug, record.environment(), record.is_active(), record.superseded_at())
        })
    };
    assert!(facts(&fresh).is_some());
    assert_eq!(facts(&fresh), facts(&table));
}

#[tokio::test]
async fn a_digest_that_is_taken_anywhere_is_refused_and_nothing_more_is_said() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let (_, admin) = service.token("workspace_admin", Some("acme")).await;
    let (current, first) = service.key("other", json!({})).await;
    let overlap = service.post(&format!("{current}/rotate"), json!({"overlap": "1h"})).await.json();
    let (rotated, rotated_out) = service.key("other", json!({})).await;
    service.post(&format!("{rotated}/rotate"), Value::Null).await;
    let (inactive, stopped) = service.key("other", json!({})).await;
    service.post(&format!("{inactive}/deactivate"), Value::Null).await;
    let (deleted, gone) = service.key("other", json!({})).await;
    service.delete(&deleted).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "e"})).await.json();
    assert_eq!(import(&service, "/v1/workspaces/other/keys/import", &[line("theirs", json!({}))]).await.status, 200);
    let before = service.revision();

    let taken = [
        first.as_str(),
        overlap["secret"].as_str().unwrap(),
        &rotated_out,
        &stopped,
        &gone,
        "theirs",
        &admin,
        edge["secret"].as_str().unwrap(),
        ADMIN,
        EDGE,
    ];
    for secret in taken {
        let lines = [line("new", json!({})), line(secret, json!({"name": "x"}))];
        let answer = import(&service, ACME, &lines).await;
        assert_eq!(refused(&answer), ["2 digest refused"]);
        let errors = &answer.json()["lines"][0]["errors"];
        assert_eq!(*errors, json!([{"field": "digest", "code": "refused", "message": "is refused"}]));
    }
    assert_eq!(service.revision(), before);
    assert_eq!(service.get("/v1/workspaces/acme/keys").await.json()["items"], json!([]));
}

#[tokio::test]
async fn an_admin_of_one_workspace_learns_not_which_digests_are_taken_elsewhere_nor_that_any_are_too_often() {
    let (logged, _guard) = CapturedLog::of_this_thread();
    let service = Service::start().await;
    for slug in ["acme", "other", "third"] {
        service.workspace(slug).await;
    }
    let (_, theirs) = service.key("other", json!({})).await;
    let (_, ours) = service.key("acme", json!({})).await;
    let (_, admin) = service.token("workspace_admin", Some("acme")).await;
    let (_, third) = service.token("workspace_admin", Some("third")).await;
    let as_admin = async |token: &str, path: &str, secrets: &[&str]| {
        let lines: Vec<_> = secrets.iter().map(|secret| line(secret, json!({"name": "x"}))).collect();
        send(&service, token, path, "application/jsonl", body(&lines)).await
    };
    // An admin may learn which digests are taken in the own workspace, without a limit.
    for _ in 0..11 {
        assert_eq!(refused(&as_admin(&admin, ACME, &["new", &ours]).await), ["2 digest refused"]);
    }
    let mut refusals = Vec::new();
    for secrets in [
        &["new", &theirs][..],
        &[theirs.as_str(), "new"],
        &[theirs.as_str(), &ours],
        &["new", &admin],
        &["new", ADMIN],
        &["new", EDGE],
        &["a", "b", "c", &theirs],
        &[theirs.as_str()],
        &[theirs.as_str()],
        &[theirs.as_str()],
    ] {
        assert!(logged.lines(Level::WARN).is_empty(), "{:?}", logged.lines(Level::WARN));
        let answer = as_admin(&admin, ACME, secrets).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "refused-lines"));
        assert!(answer.json().get("lines").is_none(), "{}", answer.text());
        refusals.push(answer.bytes);
    }
    assert!(refusals.iter().all(|answer| *answer == refusals[0]), "one refusal tells more than another");
    let warnings = logged.lines(Level::WARN);
    assert!(warnings.len() == 1 && warnings[0].contains("workspace.id=ws_"), "{warnings:?}");

    service.advance(60);
    for secrets in [&[theirs.as_str()][..], &["new"]] {
        let answer = as_admin(&admin, ACME, secrets).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "too-many-refused-imports"));
        assert_eq!(answer.header("retry-after"), Some("3541"));
    }
    assert_eq!(refused(&import(&service, ACME, &[line(&theirs, json!({"name": "x"}))]).await), ["1 digest refused"]);
    assert_eq!(as_admin(&third, "/v1/workspaces/third/keys/import", &["elsewhere"]).await.status, 200);
    service.advance(3_541);
    assert_eq!(as_admin(&admin, ACME, &["new"]).await.status, 200);
}

#[tokio::test]
async fn lines_may_be_inactive_and_those_that_have_expired_left_out() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let mut table = service.table().await;
    let past = |secret: &str| {
        let mut line = line(secret, json!({"expires_at": "2026-11-23T08:00:00Z"}));
        line.as_object_mut().unwrap().remove("expires_in");
        line
    };
    let lines =
        [past("old"), line("off", json!({"active": false})), past("older"), line("on", json!({"active": true}))];
    assert_eq!(
        refused(&import(&service, ACME, &lines).await),
        ["1 expires_at in-the-past", "3 expires_at in-the-past"]
    );
    let skipping = format!("{ACME}?expired=skip");
    let made = import(&service, &skipping, &lines).await;
    assert_eq!((&made.json()["imported"], &made.json()["skipped"]), (&json!(2), &json!(2)), "{}", made.text());
    let key = |at: usize| format!("/v1/workspaces/acme/keys/{}", made.json()["key_ids"][at].as_str().unwrap());
    for (at, status) in [(0, "inactive"), (1, "active")] {
        assert_eq!(service.get(&key(at)).await.json()["status"], status);
    }
    service.catch_up(&mut table).await;
    for (secret, is_active) in [("off", Some(false)), ("on", Some(true)), ("old", None)] {
        assert_eq!(table.find(&Digest::of(secret.as_bytes())).map(|record| record.is_active()), is_active, "{secret}");
    }
    let event = service.get("/v1/audit-events?action=keys.import").await.json();
    assert_eq!(event["items"][0]["after"]["keys"][0]["active"], false);

    let before = service.revision();
    let none = import(&service, &skipping, &[past("old")]).await;
    assert_eq!((none.status.as_u16(), &none.json()["skipped"], none.revision()), (200, &json!(1), before));
    assert_eq!(service.revision(), before);
}

#[tokio::test]
async fn refused_lines_are_named_and_nothing_is_imported() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let before = service.revision();
    let good = |secret: &str| line(secret, json!({})).to_string();
    let lines = [
        good("a"),
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        json!({"digest": "abc", "name": "", "expires_in": "2d"}).to_string(),
        good("b"),
        good("a"),
        line("c", json!({"last_characters": "the whole secret"})).to_string(),
        line("d", json!({"workspace": "other"})).to_string(),
        line("e", json!({"scopes": {"x": "read"}, "ip_allowlist": [], "environment": "test", "secret": "e"}))
            .to_string(),
        json!({}).to_string(),
    ];
    let answer = send(&service, ADMIN, ACME, "application/x-ndjson", lines.join("\r\n")).await;
    let expected = [
        "3  not-json",
        "4  wrong-type",
        "5 digest bad-digest",
        "5 name empty",
        "5 expires_in unknown-lifetime",
        "7 digest twice",
        "8 last_characters too-long",
        "9 workspace unknown-workspace",
        "10 scopes unknown-scope",
        "10 ip_allowlist empty-allowlist",
        "10 environment unknown-environment",
        "10 secret unknown-field",
        "11 digest required",
        "11 name required",
        "11 expires_in required",
    ];
    assert_eq!(refused(&answer), expected);
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("8 lines are refused"), "{}", answer.text());
    assert_eq!(service.revision(), before);
}

#[tokio::test]
async fn each_line_names_its_workspace_where_the_path_names_none() {
    let service = Service::start().await;
    let (acme, _) = (service.workspace("acme").await, service.workspace("other").await);
    let lines: Vec<_> = (0..300)
        .map(|n| line(&format!("theirs-{n}"), json!({"workspace": if n % 2 == 0 { acme.as_str() } else { "other" }})))
        .collect();
    let mut table = service.table().await;
    let before = service.revision();
    let made = import(&service, ANYWHERE, &lines).await;
    assert_eq!((made.status.as_u16(), &made.json()["imported"]), (200, &json!(300)), "{}", made.text());
    let ids = made.json()["key_ids"].as_array().unwrap().clone();
    let other = service.get(&format!("/v1/workspaces/other/keys/{}", ids[1].as_str().unwrap())).await.json();
    assert_eq!(other["name"], "theirs-1");
    service.catch_up(&mut table).await;
    assert_eq!(table.len(), 300);

    // At most a hundred keys per revision, and no event is about two workspaces.
    assert_eq!((made.revision(), service.revision()), (before + 4, before + 4));
    let mut shown = Vec::new();
    for slug in ["acme", "other"] {
        let events = service.get(&format!("/v1/workspaces/{slug}/audit-events?action=keys.import")).await.json();
        let keys = |event: &Value| event["after"]["keys"].as_array().unwrap().clone();
        let keys: Vec<_> = events["items"].as_array().unwrap().iter().flat_map(keys).collect();
        assert_eq!(keys.len(), 150);
        shown.extend(keys.iter().map(|key| key["id"].clone()));
    }
    assert!(ids.iter().all(|id| shown.contains(id)));
    let all = service.get("/v1/audit-events").await.text();
    assert!(!all.contains(&digest::hexadecimal("theirs-1")), "an event holds a digest");

    for (workspace, expected) in
        [(json!({}), "1 workspace required"), (json!({"workspace": "nowhere"}), "1 workspace unknown-workspace")]
    {
        assert_eq!(refused(&import(&service, ANYWHERE, &[line("new", workspace)]).await), [expected]);
    }
}

#[tokio::test]
async fn a_body_that_is_no_import_is_refused() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let long = line("a", json!({"metadata": {"x": "y".repeat(17 << 10)}})).to_string();
    for path in [ANYWHERE, ACME] {
        for (kind, body, status, code) in [
            ("application/json", "{}".to_owned(), 415, "unsupported-media-type"),
            ("text/plain", "{}".to_owned(), 415, "unsupported-media-type"),
            ("application/jsonl", String::new(), 422, "invalid-fields"),
            ("application/jsonl", "\n\n".to_owned(), 422, "invalid-fields"),
            ("application/jsonl", "{}\n".repeat(100_001), 413, "too-large"),
            ("application/jsonl", long.clone(), 413, "too-large"),
        ] {
            let answer = send(&service, ADMIN, path, kind, body).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{path} {kind}");
        }
    }
    // This many lines are refused, and a thousand of them shown.
    let answer = send(&service, ADMIN, ACME, "application/jsonl", "{}\n".repeat(100_000)).await;
    assert_eq!(answer.json()["lines"].as_array().unwrap().len(), 1_000);
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("100000 lines"), "{}", answer.text());
}
