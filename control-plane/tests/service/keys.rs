//! Keys over REST: making, showing, changing, stopping and deleting them.

use axum::http::Method;
use policy::key_text::{ForeignKeys, PresentedKey};
use serde_json::{Value, json};

use crate::harness::{START, Service, last_four};

#[tokio::test]
async fn a_new_key_shows_its_secret_once_and_all_of_its_fields() {
    let service = Service::start().await;
    let workspace = service.workspace("acme").await;
    let made = service.post("/v1/workspaces/acme/keys", json!({"name": "CI", "expires_in": "1d"})).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let body = made.json();
    let secret = body["secret"].as_str().unwrap();
    assert!(PresentedKey::parse(secret.as_bytes(), ForeignKeys::Refused).is_ok(), "{secret}");
    let id = body["key"]["id"].as_str().unwrap();
    assert!(id.starts_with("key_"));
    let key = json!({
        "id": id, "workspace_id": workspace, "name": "CI", "environment": "live",
        "last_characters": last_four(secret), "status": "active", "active": true, "scopes": {},
        "ip_allowlist": null, "expires_at": "2026-11-24T08:00:00Z", "metadata": {}, "created_at": START,
        "created_by": "platform-admin", "updated_at": START, "rotated_at": null, "previous_secret_expires_at": null,
        "previous_secret_last_used_at": null, "secret_last_used_at": null, "last_used_at": null, "last_used_ip": null, "warnings": [],
        "revision": made.revision(),
    });
    assert_eq!(body["key"], key);

    let shown = service.get(&format!("/v1/workspaces/{workspace}/keys/{id}")).await;
    assert_eq!(shown.json(), key);
    assert_eq!(shown.header("etag"), Some(format!("\"{}\"", made.revision()).as_str()));
    assert!(!shown.text().contains(secret));
    assert!(!service.get("/v1/workspaces/acme/keys").await.text().contains(secret));
}

#[tokio::test]
async fn what_is_given_at_creation_is_kept_in_its_shortest_form() {
    let service = Service::start_with(latchkey::base::config::Config {
        environments: vec!["live".parse().unwrap(), "test".parse().unwrap()],
        ..Default::default()
    })
    .await;
    service.workspace("acme").await;
    let (path, secret) = service
        .key(
            "acme",
            json!({"name": "N", "expires_at": "2027-01-01T01:00:00+01:00", "environment": "test",
                   "scopes": {"webhooks": "write", "reviews": "read"}, "metadata": {"team": {"id": 7}},
                   "ip_allowlist": ["192.0.2.7/32", "::ffff:198.51.100.0/120", "2001:DB8::/32"]}),
        )
        .await;
    assert!(secret.starts_with("lk_test_"));
    let key = service.get(&path).await.json();
    assert_eq!(key["environment"], "test");
    assert_eq!(key["expires_at"], "2027-01-01T00:00:00Z");
    assert_eq!(key["scopes"], json!({"reviews": "read", "webhooks": "write"}));
    assert_eq!(key["ip_allowlist"], json!(["192.0.2.7", "198.51.100.0/24", "2001:db8::/32"]));
    assert_eq!(key["metadata"], json!({"team": {"id": 7}}));
}

#[tokio::test]
async fn deactivate_and_activate_may_be_repeated_and_a_repeat_is_no_change() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({})).await;
    for (action, status, active) in [("deactivate", "inactive", false), ("activate", "active", true)] {
        let changed = service.post(&format!("{path}/{action}"), Value::Null).await;
        assert_eq!(changed.status, 200);
        assert_eq!((&changed.json()["status"], &changed.json()["active"]), (&json!(status), &json!(active)));
        assert_eq!(changed.revision(), service.revision());
        let repeated = service.post(&format!("{path}/{action}"), json!({})).await;
        assert_eq!((repeated.status.as_u16(), repeated.revision()), (200, changed.revision()));
        assert_eq!(service.revision(), changed.revision());
    }
}

#[tokio::test]
async fn a_key_expires_in_the_second_it_names() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({"expires_at": "2026-11-23T08:00:10Z"})).await;
    service.advance(9);
    assert_eq!(service.get(&path).await.json()["status"], "active");
    service.advance(1);
    let key = service.get(&path).await.json();
    assert_eq!((&key["status"], &key["active"]), (&json!("expired"), &json!(true)));
    let deactivated = service.post(&format!("{path}/deactivate"), Value::Null).await.json();
    assert_eq!((&deactivated["status"], &deactivated["active"]), (&json!("expired"), &json!(false)));
}

#[tokio::test]
async fn an_expiration_can_not_be_changed() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({})).await;
    for patch in
        [json!({"expires_at": "2027-01-01T00:00:00Z"}), json!({"expires_in": "1d"}), json!({"expires_at": null})]
    {
        let refused = service.patch(&path, patch.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, "expiration-immutable"), "{patch}");
    }
    assert_eq!(service.get(&path).await.json()["expires_at"], Value::Null);
}

#[tokio::test]
async fn a_patch_replaces_scopes_and_allowlist_and_merges_metadata() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let given = json!({"scopes": {"reviews": "write", "webhooks": "read"}, "ip_allowlist": ["192.0.2.0/24"],
                       "metadata": {"a": 1, "b": {"c": 2, "d": 3}}});
    let (path, _) = service.key("acme", given).await;
    let patch = json!({"name": "Narrow", "scopes": {"reviews": "read"}, "ip_allowlist": ["198.51.100.1"],
                       "metadata": {"a": null, "b": {"c": 4}}});
    let patched = service.patch(&path, patch).await;
    assert_eq!(patched.status, 200);
    let key = patched.json();
    assert_eq!(key["name"], "Narrow");
    assert_eq!(key["scopes"], json!({"reviews": "read"}));
    assert_eq!(key["ip_allowlist"], json!(["198.51.100.1"]));
    assert_eq!(key["metadata"], json!({"b": {"c": 4, "d": 3}}));
    assert_eq!(key["revision"], patched.revision());
    assert_eq!(service.get(&path).await.json(), key);

    let open = service.patch(&path, json!({"ip_allowlist": null, "scopes": {}, "metadata": null})).await.json();
    assert_eq!((&open["ip_allowlist"], &open["scopes"], &open["metadata"]), (&Value::Null, &json!({}), &json!({})));
    let empty = service.patch(&path, json!({})).await;
    assert_eq!(empty.json(), open);
    assert_eq!(service.revision(), open["revision"].as_u64().unwrap());
}

#[tokio::test]
async fn a_patch_may_come_as_merge_patch_json() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({})).await;
    let request = axum::http::Request::patch(&path)
        .header("authorization", format!("Bearer {}", crate::harness::ADMIN))
        .header("content-type", "application/merge-patch+json")
        .body(axum::body::Body::from(r#"{"name":"M"}"#));
    assert_eq!(service.send(request.unwrap()).await.json()["name"], "M");
}

#[tokio::test]
async fn metadata_can_not_grow_past_its_limit_by_merging() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({"metadata": {"a": "x".repeat(3_000)}})).await;
    let refused = service.patch(&path, json!({"metadata": {"b": "x".repeat(3_000)}})).await;
    assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec!["metadata too-long".to_owned()]));
    assert_eq!(service.get(&path).await.json()["metadata"]["b"], Value::Null);
}

#[tokio::test]
async fn a_patch_with_a_stale_if_match_changes_nothing() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({})).await;
    let tag = service.get(&path).await.header("etag").unwrap().to_owned();
    let patch = async |name: &str, tag: &str| {
        service.call_with(Method::PATCH, &path, json!({"name": name}), &[("if-match", tag)]).await
    };
    let first = patch("first", &tag).await;
    assert_eq!(first.status, 200);
    let second = patch("second", &tag).await;
    assert_eq!((second.status.as_u16(), second.code().as_str()), (412, "stale"));
    assert_eq!(patch("third", first.header("etag").unwrap()).await.status, 200);
    assert_eq!(patch("fourth", "*").await.status, 200);
}

#[tokio::test]
async fn a_deleted_key_is_gone_for_good() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({})).await;
    let deleted = service.delete(&path).await;
    assert_eq!((deleted.status.as_u16(), deleted.bytes.len()), (204, 0));
    assert_eq!(deleted.revision(), service.revision());
    for answer in [
        service.get(&path).await,
        service.delete(&path).await,
        service.patch(&path, json!({"name": "x"})).await,
        service.post(&format!("{path}/activate"), Value::Null).await,
        service.post(&format!("{path}/rotate"), Value::Null).await,
    ] {
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "unknown-key"));
    }
    assert_eq!(service.get("/v1/workspaces/acme/keys").await.json(), json!({"items": [], "next_cursor": null}));
    assert_eq!(service.revision(), deleted.revision());
}

#[tokio::test]
async fn a_key_is_not_found_from_another_workspace() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let (path, _) = service.key("acme", json!({})).await;
    let elsewhere = path.replace("/acme/", "/other/");
    for answer in [
        service.get(&elsewhere).await,
        service.patch(&elsewhere, json!({"name": "x"})).await,
        service.delete(&elsewhere).await,
        service.post(&format!("{elsewhere}/rotate"), Value::Null).await,
        service.post(&format!("{elsewhere}/deactivate"), Value::Null).await,
    ] {
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "unknown-key"));
    }
    assert_eq!(service.get(&path).await.json()["active"], true);
}

#[tokio::test]
async fn a_key_that_may_write_is_warned_of_what_would_make_it_safer() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let write = json!({"reviews": "write"});
    for (more, expected) in [
        (json!({"scopes": write}), vec!["write-without-allowlist", "write-without-expiration"]),
        (json!({"scopes": write, "ip_allowlist": ["192.0.2.0/24"]}), vec!["write-without-expiration"]),
        (json!({"scopes": write, "expires_at": "2027-01-01T00:00:00Z"}), vec!["write-without-allowlist"]),
        (json!({"scopes": write, "expires_at": "2027-01-01T00:00:00Z", "ip_allowlist": ["192.0.2.1"]}), vec![]),
        (json!({"scopes": {"reviews": "read"}}), vec![]),
        (json!({}), vec![]),
    ] {
        let (path, _) = service.key("acme", more.clone()).await;
        let key = service.get(&path).await.json();
        let warnings = key["warnings"].as_array().unwrap();
        let codes: Vec<_> = warnings.iter().map(|warning| warning["code"].as_str().unwrap()).collect();
        assert_eq!(codes, expected, "{more}");
        assert!(warnings.iter().all(|warning| warning["message"].is_string()));
    }
}
