//! Retries: a change with an idempotency key is made once, however often it is sent.

use axum::body::Body;
use axum::http::{Method, Request};
use policy::key_text::{Kind, compose};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::captured_log::CapturedLog;
use crate::harness::{ADMIN, Answer, Service};
use crate::import::{ACME, ANYWHERE, line};
use crate::openapi::{assert_documented, routes_with};
use crate::replicas::two;
use test_support::databases;

const DAY: u64 = 86_400;

/// Each route that takes an idempotency key and JSON, with a body in two equivalent spellings.
const CHANGES: [(&str, &str, &str); 5] = [
    ("/v1/workspaces", r#"{"name": "Other", "slug": "other"}"#, r#"{"slug":"other","name":"\u004fther"}"#),
    (
        "/v1/workspaces/acme/keys",
        r#"{"name": "CI", "expires_in": "none", "metadata": {"a": 1, "b": [1, 2]}}"#,
        r#"{"metadata": {"b": [1.0, 2e0], "a": 1.0}, "expires_in": "none", "name": "CI"}"#,
    ),
    ("/v1/workspaces/acme/keys/{key}/rotate", r#"{"overlap": "1h"}"#, r#" { "overlap" : "1h" } "#),
    (
        "/v1/admin-tokens",
        r#"{"name": "ops", "role": "workspace_admin", "workspace": "acme"}"#,
        r#"{"workspace":"acme","role":"workspace_admin","name":"ops"}"#,
    ),
    ("/v1/edge-tokens", r#"{"name": "eu", "edge": "eu-1"}"#, r#"{"edge":"eu-1","name":"eu"}"#),
];

/// The route in the OpenAPI document.
fn route(path: &str) -> String {
    match path {
        ANYWHERE => format!("POST {path}"),
        path => {
            let mut route = path.replace("/acme/", "/{workspace}/");
            if let Some(at) = route.find("/key_") {
                route.replace_range(at..route.rfind("/rotate").unwrap_or(route.len()), "/{key}");
            }
            format!("POST {route}")
        }
    }
}

async fn send(service: &Service, path: &str, key: &str, body: &str) -> Answer {
    send_as(service, ADMIN, path, key, body).await
}

async fn send_as(service: &Service, token: &str, path: &str, key: &str, body: &str) -> Answer {
    let kind = if path.ends_with("/import") { "application/jsonl" } else { "application/json" };
    let request = Request::post(path).header("authorization", format!("Bearer {token}")).header("content-type", kind);
    let request = request.header("idempotency-key", key).body(Body::from(body.to_owned())).unwrap();
    let answer = service.send(request).await;
    if answer.status != 401 {
        assert_documented(&route(path), &answer);
    }
    answer
}

/// A control plane with a workspace and a key in it; the paths of [`CHANGES`] for it, with their bodies.
async fn started() -> (Service, Vec<(String, &'static str, &'static str)>) {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({})).await;
    let id = path.rsplit('/').next().unwrap();
    let changes = CHANGES.map(|(path, body, other)| (path.replace("{key}", id), body, other)).to_vec();
    (service, changes)
}

fn assert_repeats(first: &Answer, again: &Answer) {
    assert!(first.status.is_success() && first.header("idempotency-replayed").is_none(), "{}", first.text());
    assert_eq!(again.status, first.status, "{}", again.text());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.revision(), first.revision());
    let mut expected = first.json();
    if let Some(secret) = expected.get_mut("secret") {
        assert!(secret.as_str().is_some_and(|secret| secret.starts_with("lk")), "{secret}");
        *secret = Value::Null;
    }
    assert_eq!(again.json(), expected);
}

#[tokio::test]
async fn a_repeat_makes_nothing_and_shows_no_secret() {
    let (service, changes) = started().await;
    for (path, body, written_otherwise) in &changes {
        let first = send(&service, path, "k-1", body).await;
        let revision = service.revision();
        for body in [body, written_otherwise] {
            assert_repeats(&first, &send(&service, path, "k-1", body).await);
        }
        assert_eq!(service.revision(), revision, "{path}");
        let another = send(&service, path, "k-2", body).await;
        // Another key makes another object; of workspaces, this slug is already taken.
        assert_eq!(another.status, if path == "/v1/workspaces" { 409 } else { first.status.as_u16() }, "{path}");
    }
}

#[tokio::test]
async fn a_repeat_shows_what_was_made_as_it_is_now() {
    let (service, changes) = started().await;
    let mut made = Vec::new();
    for (path, body, _) in &changes {
        made.push((path, body, send(&service, path, "k", body).await));
    }
    let id = |answer: &Answer, part: &str| answer.json()[part]["id"].as_str().unwrap().to_owned();
    let key = format!("/v1/workspaces/acme/keys/{}", id(&made[1].2, "key"));
    let rotated = made[2].0.strip_suffix("/rotate").unwrap();
    for path in ["/v1/workspaces/other", &key, rotated] {
        assert_eq!(service.patch(path, json!({"name": "renamed"})).await.status, 200);
    }
    for ((path, body, first), shown) in made.iter().zip(["", "key", "key"]) {
        let again = send(&service, path, "k", body).await;
        let thing = if shown.is_empty() { again.json() } else { again.json()[shown].clone() };
        assert_eq!(thing["name"], "renamed", "{path}");
        assert_eq!(again.header("etag"), Some(format!("\"{}\"", thing["revision"]).as_str()));
        assert_eq!((again.status, again.revision()), (first.status, first.revision()), "{path}");
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    for path in [
        key,
        rotated.to_owned(),
        format!("/v1/admin-tokens/{}", id(&made[3].2, "token")),
        format!("/v1/edge-tokens/{}", id(&made[4].2, "token")),
    ] {
        assert_eq!(service.delete(&path).await.status, 204);
    }
    let revision = service.revision();
    for ((path, body, _), code) in made.iter().skip(1).zip(["key", "key", "token", "token"]) {
        let gone = send(&service, path, "k", body).await;
        assert_eq!((gone.status.as_u16(), gone.code()), (404, format!("unknown-{code}")), "{path}");
    }
    assert_eq!(service.revision(), revision);
}

#[tokio::test]
async fn an_import_that_is_repeated_names_the_keys_that_it_made() {
    let (service, _) = started().await;
    for (path, more) in [(ACME, json!({})), (ANYWHERE, json!({"workspace": "acme"}))] {
        let lines: Vec<_> = (0..150).map(|n| line(&format!("{path} {n}"), more.clone()).to_string()).collect();
        let first = send(&service, path, "k", &lines.join("\n")).await;
        let revision = service.revision();
        assert_eq!(first.json()["key_ids"].as_array().unwrap().len(), 150);
        assert_repeats(&first, &send(&service, path, "k", &lines.join("\n\n ")).await);
        let mut others = lines.clone();
        others.swap(0, 149);
        for other in [others.join("\n"), lines[1..].join("\n"), format!("{}\nno JSON", lines.join("\n"))] {
            let reused = send(&service, path, "k", &other).await;
            assert_eq!((reused.status.as_u16(), reused.code().as_str()), (422, "idempotency-key-reused"));
        }
        assert_eq!(service.revision(), revision);
    }
}

#[tokio::test]
async fn a_key_that_another_request_had_is_refused() {
    let (service, changes) = started().await;
    for (path, body, _) in &changes {
        send(&service, path, "k", body).await;
        let revision = service.revision();
        let renamed = body.replace("\"name\": \"", "\"name\": \"x").replace("1h", "2h");
        for other in [renamed.as_str(), "{}", r#"{"no such field": 1}"#] {
            let reused = send(&service, path, "k", other).await;
            assert_eq!((reused.status.as_u16(), reused.code().as_str()), (422, "idempotency-key-reused"), "{path}");
        }
        assert_eq!(service.revision(), revision, "{path}");
    }
}

#[tokio::test]
async fn a_key_is_one_principal_s_and_one_path_s() {
    let (service, _) = started().await;
    service.workspace("other").await;
    let (_, token) = service.token("workspace_admin", Some("acme")).await;
    let body = r#"{"name": "a", "expires_in": "none"}"#;
    let mut ids = std::collections::HashSet::new();
    for (token, path) in [
        (ADMIN, "/v1/workspaces/acme/keys"),
        (&token, "/v1/workspaces/acme/keys"),
        (ADMIN, "/v1/workspaces/other/keys"),
    ] {
        let made = service
            .call_as(token, Method::POST, path, serde_json::from_str(body).unwrap(), &[("idempotency-key", "k")])
            .await;
        assert_eq!((made.status.as_u16(), made.header("idempotency-replayed")), (201, None), "{}", made.text());
        ids.insert(made.json()["key"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_refused_change_leaves_its_key_free() {
    let service = Service::start().await;
    let path = "/v1/workspaces";
    service.workspace("taken").await;
    for (body, status) in [
        (r#"{"name": ""}"#, 422),
        (r#"{"name": "a", "slug": "taken"}"#, 409),
        (r#"{"name": "a", "slug": "free"}"#, 201),
    ] {
        let answer = send(&service, path, "k", body).await;
        assert_eq!((answer.status.as_u16(), answer.header("idempotency-replayed")), (status, None), "{body}");
    }
}

#[tokio::test]
async fn a_key_counts_for_a_day_and_over_a_restart() {
    let (service, changes) = started().await;
    let (path, body, _) = &changes[1];
    let first = send(&service, path, "k", body).await;
    let lines = line("theirs", json!({})).to_string();
    let imported = send(&service, ACME, "k", &lines).await;
    let service = service.restart().await;
    assert_repeats(&first, &send(&service, path, "k", body).await);
    assert_repeats(&imported, &send(&service, ACME, "k", &lines).await);

    service.advance(DAY - 60);
    service.sweep().await;
    assert_repeats(&first, &send(&service, path, "k", body).await);
    service.advance(60);
    // With or without a sweep.
    for swept in [false, true] {
        if swept {
            service.advance(DAY);
            service.sweep().await;
        }
        let next = send(&service, path, "k", body).await;
        assert_eq!((next.status.as_u16(), next.header("idempotency-replayed")), (201, None));
        assert_ne!(next.json()["key"]["id"], first.json()["key"]["id"]);
        assert_repeats(&next, &send(&service, path, "k", body).await);
    }
}

#[tokio::test]
async fn what_is_no_key_is_refused_behind_token_and_role() {
    let (service, changes) = started().await;
    let (_, member) = service.token("workspace_member", Some("acme")).await;
    let sevens = |bytes: &mut [u8]| {
        bytes.fill(7);
        Ok::<(), std::convert::Infallible>(())
    };
    let secret = compose(&Kind::EdgeToken, sevens).unwrap();
    let revision = service.revision();
    for (path, body, _) in changes.iter().map(|change| (&change.0, change.1, ())).chain([(&ACME.to_owned(), "{}", ())])
    {
        for key in ["", "two words", &"x".repeat(129), &secret] {
            let refused = send(&service, path, key, body).await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "invalid-idempotency-key"), "{path}");
            assert!(refused.fields()[0].starts_with("Idempotency-Key "), "{path}: {:?}", refused.fields());
            assert!(!refused.text().contains(&secret), "{path}");
            for (token, status) in [(member.as_str(), 403), ("lkadm_wrong", 401)] {
                assert_eq!(send_as(&service, token, path, key, body).await.status, status, "{path}");
            }
        }
        let twice = Request::post(path).header("authorization", format!("Bearer {ADMIN}"));
        let twice = twice.header("idempotency-key", "a").header("idempotency-key", "a");
        assert_eq!(service.send(twice.body(Body::empty()).unwrap()).await.code(), "invalid-idempotency-key");
    }
    assert_eq!(service.revision(), revision);
}

#[tokio::test]
async fn a_repeat_is_answered_before_if_match_is_looked_at() {
    let (service, changes) = started().await;
    let rotate = &changes[2].0;
    let key = rotate.strip_suffix("/rotate").unwrap();
    let tag = service.get(key).await.header("etag").unwrap().to_owned();
    let send = async |idempotency_key: &str| {
        let headers = [("if-match", tag.as_str()), ("idempotency-key", idempotency_key)];
        service.call_with(Method::POST, rotate, json!({}), &headers).await
    };
    let first = send("k").await;
    assert_repeats(&first, &send("k").await);
    assert_eq!(send("other").await.code(), "stale");
}

#[tokio::test]
async fn a_request_that_still_runs_is_not_begun_again() {
    let service = Service::of_a_file().await;
    let file = Connection::open(service.directory.path().join(databases::FILE)).unwrap();
    // No one else can write until this transaction ends.
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    let body = r#"{"name": "a", "slug": "acme"}"#;
    let (one, other) = (send(&service, "/v1/workspaces", "k", body), send(&service, "/v1/workspaces", "k", body));
    tokio::pin!(one, other);
    let (refused, is_one) = tokio::select! {
        answer = &mut one => (answer, true),
        answer = &mut other => (answer, false),
    };
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "in-progress"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    file.execute_batch("ROLLBACK").unwrap();
    let first = if is_one { other.await } else { one.await };
    assert_repeats(&first, &send(&service, "/v1/workspaces", "k", body).await);
}

#[tokio::test]
async fn at_two_control_planes_at_once_a_change_is_made_once() {
    let Some((first, second)) = two().await else { return };
    first.workspace("acme").await;
    for round in 0..10 {
        let lines: Vec<_> = (0..120).map(|n| line(&format!("{round} {n}"), json!({})).to_string()).collect();
        for (path, body) in [
            ("/v1/workspaces", format!(r#"{{"name": "w", "slug": "w-{round}"}}"#)),
            ("/v1/workspaces/acme/keys", r#"{"name": "a", "expires_in": "none"}"#.to_owned()),
            (ACME, lines.join("\n")),
        ] {
            let key = format!("k-{round}");
            let (one, other) = tokio::join!(send(&first, path, &key, &body), send(&second, path, &key, &body));
            let is_one_first = one.header("idempotency-replayed").is_none();
            let (made, repeated) = if is_one_first { (one, other) } else { (other, one) };
            assert_repeats(&made, &repeated);
        }
    }
}

#[tokio::test]
async fn neither_log_nor_database_has_an_idempotency_key() {
    let (logged, _guard) = CapturedLog::of_this_thread();
    let (service, changes) = started().await;
    let key = "correct-horse-battery-staple";
    for (path, body, _) in &changes {
        for body in [body, &"{}"] {
            send(&service, path, key, body).await;
        }
    }
    let stored = crate::data_at_rest::data_at_rest(service.directory.path());
    service.store.close().await;
    assert!(logged.text().contains("/rotate"), "the requests are logged");
    assert!(!logged.text().contains(key));
    for (name, bytes) in stored {
        assert!(!bytes.windows(key.len()).any(|part| part == key.as_bytes()), "{name}");
    }
}

#[test]
fn each_change_that_makes_something_takes_a_key() {
    let takes = |operation: &Value| {
        let parameters = operation["parameters"].as_array().unwrap();
        parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key")
    };
    let mut taking: Vec<_> = routes_with("responses").into_iter().filter(|(_, operation)| takes(operation)).collect();
    taking.sort_by(|one, other| one.0.cmp(&other.0));
    let taking: Vec<_> = taking.into_iter().map(|(route, _)| route).collect();
    assert_eq!(
        taking,
        [
            "POST /v1/admin-tokens",
            "POST /v1/edge-tokens",
            "POST /v1/keys/import",
            "POST /v1/workspaces",
            "POST /v1/workspaces/{workspace}/keys",
            "POST /v1/workspaces/{workspace}/keys/import",
            "POST /v1/workspaces/{workspace}/keys/{key}/rotate",
        ]
    );
    for (route, operation) in routes_with("responses") {
        assert!(operation["responses"].get("201").is_none() || takes(&operation), "{route} makes something");
    }
}
