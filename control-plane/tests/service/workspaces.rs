//! Workspaces over REST.

use axum::http::Method;
use serde_json::json;

use crate::harness::{START, Service};

#[tokio::test]
async fn a_workspace_is_found_by_id_and_by_slug() {
    let service = Service::start().await;
    let made = service.post("/v1/workspaces", json!({"name": "Acme Inc.", "slug": "acme"})).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.revision(), service.revision());
    let body = made.json();
    let id = body["id"].as_str().unwrap();
    assert!(id.starts_with("ws_") && id.len() == 35, "{id}");
    let revision = made.revision();
    assert_eq!(
        body,
        json!({"id": id, "name": "Acme Inc.", "slug": "acme", "created_at": START, "created_by": "platform-admin",
               "updated_at": START, "revision": revision})
    );
    for name in [id, "acme"] {
        assert_eq!(service.get(&format!("/v1/workspaces/{name}")).await.json(), body);
    }
}

#[tokio::test]
async fn two_workspaces_never_share_a_slug() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let before = service.revision();
    let second = service.post("/v1/workspaces", json!({"name": "Other", "slug": "acme"})).await;
    assert_eq!((second.status.as_u16(), second.code().as_str()), (409, "slug-taken"));
    assert_eq!(second.fields(), ["slug slug-taken"]);
    assert_eq!(service.revision(), before);
}

#[tokio::test]
async fn a_workspace_can_be_renamed_and_nothing_else() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.advance(60);
    let renamed = service.patch("/v1/workspaces/acme", json!({"name": "New"})).await;
    assert_eq!(renamed.status, 200);
    assert_eq!(renamed.json()["name"], "New");
    assert_eq!(renamed.json()["updated_at"], "2026-11-23T08:01:00Z");
    assert_eq!(renamed.revision(), service.revision());

    let again = service.patch("/v1/workspaces/acme", json!({"name": "New"})).await;
    assert_eq!(again.revision(), renamed.revision());
    let refused = service.patch("/v1/workspaces/acme", json!({"slug": "other"})).await;
    assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec!["slug unknown-field".to_owned()]));
}

#[tokio::test]
async fn a_stale_if_match_changes_no_workspace() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let tag = service.get("/v1/workspaces/acme").await.header("etag").unwrap().to_owned();
    let rename = async |name: &str| {
        let headers = [("if-match", tag.as_str())];
        service.call_with(Method::PATCH, "/v1/workspaces/acme", json!({"name": name}), &headers).await
    };
    assert_eq!(rename("First").await.status, 200);
    let second = rename("Second").await;
    assert_eq!((second.status.as_u16(), second.code().as_str()), (412, "stale"));
    assert_eq!(service.get("/v1/workspaces/acme").await.json()["name"], "First");
}

#[tokio::test]
async fn pages_of_workspaces_hold_each_one_once() {
    let service = Service::start().await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(service.workspace(&format!("w{number}")).await);
    }
    let (mut listed, mut path) = (Vec::new(), "/v1/workspaces?limit=2".to_owned());
    loop {
        let page = service.get(&path).await.json();
        listed.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/workspaces?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(listed, made);
}
