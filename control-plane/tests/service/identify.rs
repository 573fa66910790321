//! POST /v1/keys/identify: what a leaked text is, for those who may know it.

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::{ADMIN, Answer, EDGE, START, Service, last_four};

const IDENTIFY: &str = "/v1/keys/identify";

async fn found(service: &Service, secret: &str) -> Value {
    let answer = service.post(IDENTIFY, json!({"secret": secret})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains(secret) && answer.header("latchkey-revision").is_none());
    answer.json()
}

async fn identify_as(service: &Service, token: &str, secret: &str) -> Answer {
    service.call_as(token, Method::POST, IDENTIFY, json!({"secret": secret}), &[]).await
}

#[tokio::test]
async fn a_secret_is_known_through_its_whole_life() {
    let service = Service::start().await;
    let workspace = service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({"name": "CI"})).await;
    let id = path.rsplit('/').next().unwrap();
    let life = async |secret: &str| {
        let found = found(&service, secret).await;
        assert_eq!((&found["kind"], &found["key_id"]), (&json!("key"), &json!(id)));
        (found["status"].clone(), found["key_status"].clone())
    };
    assert_eq!(
        found(&service, &first).await,
        json!({"kind": "key", "status": "current", "workspace_id": workspace, "key_id": id, "token_id": null,
               "name": "CI", "last_characters": last_four(&first), "key_status": "active", "role": null, "edge": null,
               "created_at": START, "ended_at": null})
    );
    let rotated = service.post(&format!("{path}/rotate"), json!({"overlap": "1h"})).await.json();
    let second = rotated["secret"].as_str().unwrap();
    assert_eq!(life(&first).await, (json!("previous"), json!("active")));
    assert_eq!(life(second).await, (json!("current"), json!("active")));
    service.advance(3_600);
    assert_eq!(life(&first).await, (json!("rotated_out"), json!("active")));
    service.post(&format!("{path}/deactivate"), Value::Null).await;
    assert_eq!(life(second).await, (json!("current"), json!("inactive")));
    service.delete(&path).await;
    for secret in [first.as_str(), second] {
        assert_eq!(life(secret).await, (json!("deleted"), Value::Null));
    }
    service.advance(366 * 86_400);
    service.sweep().await;
    assert_eq!(service.post(IDENTIFY, json!({"secret": second})).await.code(), "unknown-secret");
}

#[tokio::test]
async fn tokens_are_known_too() {
    let service = Service::start().await;
    let workspace = service.workspace("acme").await;
    let (admin_id, admin) = service.token("workspace_admin", Some("acme")).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "gateway", "edge": "edge-1"})).await.json();
    let (edge_id, edge) = (edge["token"]["id"].as_str().unwrap(), edge["secret"].as_str().unwrap());
    let found_admin = found(&service, &admin).await;
    for (field, expected) in [
        ("kind", json!("admin_token")),
        ("status", json!("active")),
        ("token_id", json!(admin_id)),
        ("role", json!("workspace_admin")),
        ("workspace_id", json!(workspace)),
    ] {
        assert_eq!(found_admin[field], expected, "{field}");
    }
    let found_edge = found(&service, edge).await;
    assert_eq!((&found_edge["kind"], &found_edge["edge"]), (&json!("edge_token"), &json!("edge-1")));
    service.delete(&format!("/v1/admin-tokens/{admin_id}")).await;
    service.delete(&format!("/v1/edge-tokens/{edge_id}")).await;
    for token in [&admin, edge] {
        assert_eq!(found(&service, token).await["status"], "revoked");
    }
    for (file, kind) in [(ADMIN, "admin_token"), (EDGE, "edge_token")] {
        let found = found(&service, file).await;
        assert_eq!((&found["kind"], &found["name"]), (&json!(kind), &json!("token file")));
    }
}

#[tokio::test]
async fn a_workspace_admin_learns_of_its_workspace_s_secrets_alone() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let (_, mine) = service.key("acme", json!({})).await;
    let (_, theirs) = service.key("other", json!({})).await;
    let (_, admin) = service.token("workspace_admin", Some("acme")).await;
    let (_, stranger) = service.token("workspace_admin", Some("other")).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "gateway", "edge": "edge-1"})).await.json();
    assert_eq!(identify_as(&service, &admin, &mine).await.status, 200);
    assert_eq!(identify_as(&service, &admin, &admin).await.status, 200);
    let nothing = identify_as(&service, &admin, "lk_live_00000000000000000000000000000000004cjNQE").await;
    assert_eq!((nothing.status.as_u16(), nothing.code().as_str()), (404, "unknown-secret"));
    for secret in [theirs.as_str(), &stranger, edge["secret"].as_str().unwrap(), ADMIN, EDGE] {
        let refused = identify_as(&service, &admin, secret).await;
        assert_eq!((refused.status, refused.text()), (nothing.status, nothing.text()));
    }
}

#[tokio::test]
async fn what_can_be_no_secret_is_refused_without_being_repeated() {
    let service = Service::start().await;
    for (body, expected) in [
        (json!({}), "secret required"),
        (json!({"secret": ""}), "secret empty"),
        (json!({"secret": "x".repeat(257)}), "secret too-long"),
        (json!({"secret": ["lk_live_x"]}), "secret wrong-type"),
        (json!({"secret": "lk_live_x", "key": "x"}), "key unknown-field"),
    ] {
        let refused = service.post(IDENTIFY, body.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec![expected.to_owned()]), "{body}");
        assert!(!refused.text().contains("lk_live") && !refused.text().contains("xxx"));
    }
}
