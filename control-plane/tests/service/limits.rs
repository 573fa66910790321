//! The limits of one workspace on what all share, and the changes that no limit refuses.

use latchkey::base::config::{Config, Limits};
use serde_json::{Value, json};

use crate::harness::{Answer, Service};
use crate::import::{ACME, ANYWHERE, import, line};

const KEYS: &str = "/v1/workspaces/acme/keys";

/// The bytes that a key with a scope and without an allowlist takes at an edge.
const BYTES: u64 = 76 + 2;

fn limited(keys: u64, bytes: u64) -> Config {
    let limits = Limits { keys_per_workspace: keys, bytes_per_workspace: bytes, ..Limits::default() };
    Config { limits, ..Config::default() }
}

async fn create(service: &Service, name: &str) -> Answer {
    service.post(KEYS, json!({"name": name, "expires_in": "none", "scopes": {"reviews": "read"}})).await
}

async fn made(service: &Service, name: &str) -> String {
    let answer = create(service, name).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    format!("{KEYS}/{}", answer.json()["key"]["id"].as_str().unwrap())
}

fn assert_reached(answer: &Answer, limit: &str, maximum: u64) {
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "limit-reached"), "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["limit"], &body["maximum"]), (&json!(limit), &json!(maximum)), "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("nothing was changed") && detail.contains("have an operator raise it"), "{detail}");
}

async fn assert_ok(service: &Service, path: &str, body: Value) {
    let answer = service.post(path, body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
}

async fn networks(service: &Service, key: &str, networks: u8) -> Answer {
    let entries: Vec<_> = (0..networks).map(|n| format!("10.0.{n}.0/24")).collect();
    service.patch(key, json!({"ip_allowlist": entries})).await
}

#[tokio::test]
async fn a_workspace_has_so_many_keys_and_no_more() {
    let service = Service::start_with(limited(2, 0)).await;
    for slug in ["acme", "zeta"] {
        service.workspace(slug).await;
    }
    let first = made(&service, "first").await;
    made(&service, "second").await;
    let before = *service.store.head().borrow();
    assert_reached(&create(&service, "third").await, "keys_per_workspace", 2);
    let [one, other] = ["one", "other"].map(|name| line(name, json!({"workspace": "acme"})));
    assert_reached(&import(&service, ACME, std::slice::from_ref(&one)).await, "keys_per_workspace", 2);
    let elsewhere = line("elsewhere", json!({"workspace": "zeta"}));
    assert_reached(&import(&service, ANYWHERE, &[elsewhere.clone(), other]).await, "keys_per_workspace", 2);
    assert_eq!(*service.store.head().borrow(), before, "what was refused made something");
    // Another workspace has its own limit.
    assert_eq!(import(&service, ANYWHERE, &[elsewhere]).await.status, 200);
    // A deleted key makes room, an inactive one doesn't.
    assert_ok(&service, &format!("{first}/deactivate"), Value::Null).await;
    assert_reached(&create(&service, "third").await, "keys_per_workspace", 2);
    assert_eq!(service.delete(&first).await.status, 204);
    assert_eq!(import(&service, ACME, &[one]).await.status, 200);
    assert_reached(&create(&service, "third").await, "keys_per_workspace", 2);
}

#[tokio::test]
async fn a_workspace_takes_so_many_bytes_at_an_edge_and_no_more() {
    let service = Service::start_with(limited(0, 2 * BYTES + 18)).await;
    service.workspace("acme").await;
    let (first, second) = (made(&service, "first").await, made(&service, "second").await);
    let limit = ("bytes_per_workspace", 2 * BYTES + 18);
    assert_reached(&create(&service, "third").await, limit.0, limit.1);
    assert_reached(&import(&service, ACME, &[line("third", json!({}))]).await, limit.0, limit.1);
    assert_eq!(networks(&service, &first, 1).await.status, 200);
    // These changes allow more, and take more bytes.
    assert_reached(&networks(&service, &first, 2).await, limit.0, limit.1);
    let more = json!({"scopes": {"reviews": "read", "webhooks": "read"}});
    assert_reached(&service.patch(&second, more).await, limit.0, limit.1);
    // These allow more, but take no more bytes.
    assert_eq!(service.patch(&second, json!({"scopes": {"webhooks": "write"}})).await.status, 200);
    assert_eq!(service.patch(&first, json!({"ip_allowlist": null})).await.status, 200);
    assert_eq!(service.delete(&first).await.status, 204);
    made(&service, "third").await;
}

#[tokio::test]
async fn what_narrows_is_never_refused_by_a_limit() {
    let service = Service::start_with(Config::default()).await;
    service.workspace("acme").await;
    let (first, second) = (made(&service, "first").await, made(&service, "second").await);
    // The operator lowers both limits, far below what the workspace uses.
    let service = service.restart_with(limited(1, 1)).await;
    assert_reached(&create(&service, "third").await, "keys_per_workspace", 1);
    for body in [json!({}), json!({"overlap": "1h"}), json!({"replace": true})] {
        assert_ok(&service, &format!("{first}/rotate"), body).await;
    }
    for step in ["end-overlap", "deactivate", "activate"] {
        assert_ok(&service, &format!("{first}/{step}"), Value::Null).await;
    }
    // A change from any address to 28 networks takes more bytes, but allows less; the changes below are similar.
    assert_eq!(networks(&service, &first, 28).await.status, 200);
    assert_reached(&networks(&service, &first, 29).await, "bytes_per_workspace", 1);
    let halves = json!({"ip_allowlist": ["10.0.0.0/25", "10.0.0.128/25"], "scopes": {"reviews": "read"}});
    assert_eq!(service.patch(&first, json!({"ip_allowlist": ["10.0.0.0/24"]})).await.status, 200);
    assert_eq!(service.patch(&first, halves).await.status, 200);
    assert_eq!(service.patch(&second, json!({"name": "renamed", "metadata": {"team": "edge"}})).await.status, 200);
    assert_eq!(service.delete(&second).await.status, 204);
}
