//! A restart keeps everything.

use latchkey::base::config::Config;
use policy::Digest;
use serde_json::{Value, json};

use crate::harness::Service;

#[tokio::test]
async fn a_restart_keeps_everything_and_edges_go_on_where_they_were() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, secret) = service.key("acme", json!({"scopes": {"reviews": "read"}, "metadata": {"a": 1}})).await;
    service.post(&format!("{path}/rotate"), json!({"overlap": "1h"})).await;
    service.post(&format!("{path}/deactivate"), Value::Null).await;
    let before = service.get(&path).await.json();
    let mut table = service.table().await;

    let service = service.restart().await;
    assert_eq!(service.get(&path).await.json(), before);
    assert_eq!(service.poll(Some(table.position()), 0).await.status, 204);
    service.post(&format!("{path}/activate"), Value::Null).await;
    service.catch_up(&mut table).await;
    assert!(table.find(&Digest::of(secret.as_bytes())).unwrap().is_active());
}

#[tokio::test]
async fn numbers_of_scopes_and_environments_outlive_their_names() {
    let with = |environments: &[&str], scopes: &[&str]| Config {
        environments: environments.iter().map(|name| name.parse().unwrap()).collect(),
        scopes: scopes.iter().map(|name| name.parse().unwrap()).collect(),
        ..Config::default()
    };
    let service = Service::start_with(with(&["live"], &["orders", "items"])).await;
    service.workspace("acme").await;
    let (path, secret) = service.key("acme", json!({"scopes": {"orders": "write"}})).await;
    let mut table = service.table().await;
    let orders = table.catalogue().scope_number("orders");
    let before = service.revision();

    // `orders` leaves the catalogue: no new key gets it, and existing keys keep it.
    let service = service.restart_with(with(&["test", "live"], &["items", "users"])).await;
    assert_eq!(service.revision(), before + 1);
    let refused = service
        .post("/v1/workspaces/acme/keys", json!({"name": "x", "expires_in": "none", "scopes": {"orders": "read"}}))
        .await;
    assert_eq!(refused.fields(), ["scopes unknown-scope"]);
    service.post(&format!("{path}/deactivate"), Value::Null).await;
    service.key("acme", json!({"environment": "test", "scopes": {"users": "read"}})).await;
    service.catch_up(&mut table).await;
    let catalogue = table.catalogue();
    assert_eq!(catalogue.scope_number("orders"), orders);
    assert!(catalogue.scope_number("users").is_some_and(|users| Some(users) != orders));
    let record = table.find(&Digest::of(secret.as_bytes())).unwrap();
    assert_eq!(record.level(orders.unwrap()), Some(policy::Level::Write));
    assert!(catalogue.is_environment(record.environment(), &"live".parse().unwrap()));

    let service = service.restart_with(with(&["test", "live"], &["items", "users"])).await;
    assert_eq!(service.revision(), before + 3);
}
