//! Lists of keys: pages, order, filters.

use serde_json::{Value, json};

use crate::harness::{Service, last_four};

async fn names(service: &Service, query: &str) -> Vec<String> {
    let page = service.get(&format!("/v1/workspaces/acme/keys?{query}")).await;
    assert_eq!(page.status, 200, "{}", page.text());
    names_of(&page.json())
}

fn names_of(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect()
}

/// All items, in pages of two; `between` runs after the first page.
async fn paged(service: &Service, query: &str, between: impl AsyncFnOnce()) -> Vec<String> {
    let path = format!("/v1/workspaces/acme/keys?limit=2&{query}");
    let mut page = service.get(&path).await.json();
    let mut all = names_of(&page);
    between().await;
    while let Some(cursor) = page["next_cursor"].as_str() {
        page = service.get(&format!("{path}&cursor={cursor}")).await.json();
        all.extend(names_of(&page));
    }
    all
}

async fn service_with(names: &[&str]) -> Service {
    let service = Service::start().await;
    service.workspace("acme").await;
    for name in names {
        service.key("acme", json!({"name": name})).await;
    }
    service
}

#[tokio::test]
async fn each_order_lists_each_key_once() {
    let service = service_with(&["b", "a", "d", "C", "a"]).await;
    for (sort, expected) in [
        ("sort=created_at", ["b", "a", "d", "C", "a"]),
        ("sort=-created_at", ["a", "C", "d", "a", "b"]),
        ("x", ["a", "C", "d", "a", "b"]),
        ("sort=name", ["a", "a", "b", "C", "d"]),
        ("sort=-name", ["d", "C", "b", "a", "a"]),
    ] {
        let query = if sort == "x" { "limit=200" } else { sort };
        assert_eq!(names(&service, query).await, expected, "{sort}");
        if sort != "x" {
            assert_eq!(paged(&service, sort, async || {}).await, expected, "{sort}");
        }
    }
}

#[tokio::test]
async fn a_page_holds_still_while_keys_are_made_and_deleted() {
    let service = service_with(&["1", "2", "3", "4", "5"]).await;
    let first = service.get("/v1/workspaces/acme/keys?sort=created_at&limit=2").await.json();
    let last_seen = format!("/v1/workspaces/acme/keys/{}", first["items"][1]["id"].as_str().unwrap());
    let all = paged(&service, "sort=created_at", async || {
        service.delete(&last_seen).await;
        service.key("acme", json!({"name": "6"})).await;
    })
    .await;
    assert_eq!(all, ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn the_last_page_has_no_cursor() {
    let service = service_with(&["1", "2"]).await;
    let page = service.get("/v1/workspaces/acme/keys?limit=2").await.json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next_cursor"]), (2, &Value::Null));
}

#[tokio::test]
async fn a_status_lists_only_keys_that_have_it() {
    let service = service_with(&["active"]).await;
    let (inactive, _) = service.key("acme", json!({"name": "inactive"})).await;
    service.post(&format!("{inactive}/deactivate"), Value::Null).await;
    service.key("acme", json!({"name": "expired", "expires_in": "1h"})).await;
    service.advance(3_600);
    for status in ["active", "inactive", "expired"] {
        assert_eq!(names(&service, &format!("status={status}")).await, [status]);
    }
}

#[tokio::test]
async fn a_search_finds_part_of_the_name_the_id_and_the_last_characters() {
    let service = service_with(&["Deploy 100%", "Deploy bot", "other_one"]).await;
    let (path, secret) = service.key("acme", json!({"name": "needle"})).await;
    let id = path.rsplit('/').next().unwrap();
    for (query, expected) in [
        ("q=deploy", vec!["Deploy bot", "Deploy 100%"]),
        ("q=100%25", vec!["Deploy 100%"]),
        ("q=%25", vec!["Deploy 100%"]),
        ("q=_", vec!["other_one"]),
        ("q=%5C", vec![]),
        ("q=nothing", vec![]),
        (&format!("q={id}"), vec!["needle"]),
        (&format!("q={}", last_four(&secret)), vec!["needle"]),
    ] {
        assert_eq!(names(&service, query).await, expected, "{query}");
    }
    assert_eq!(names(&service, "q=").await.len(), 4);
}

#[tokio::test]
async fn a_list_shows_no_key_of_another_workspace() {
    let service = service_with(&["mine"]).await;
    service.workspace("other").await;
    service.key("other", json!({"name": "theirs"})).await;
    assert_eq!(names(&service, "limit=200").await, ["mine"]);
}
