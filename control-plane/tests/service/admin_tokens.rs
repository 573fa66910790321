//! Admin tokens over REST: made, used, ended.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::harness::{Answer, PUBLIC_URL, START, Service, last_four};
use crate::waiting::until_equal;

const TOKENS: &str = "/v1/admin-tokens";

async fn ask(service: &Service, token: &str, method: Method, path: &str, body: Value) -> Answer {
    service.call_as(token, method, path, body, &[]).await
}

/// The outcome of a request that every role may make.
async fn works(service: &Service, token: &str) -> Result<(), String> {
    let answer = ask(service, token, Method::GET, "/v1/workspaces", Value::Null).await;
    if answer.status == 200 { Ok(()) } else { Err(answer.code()) }
}

#[tokio::test]
async fn a_token_is_shown_once_and_its_text_is_like_the_file_s() {
    let service = Service::start().await;
    let workspace = service.workspace("acme").await;
    let made = service
        .post(TOKENS, json!({"name": "CI", "role": "workspace_admin", "workspace": "acme", "expires_in": "90d"}))
        .await;
    assert_eq!((made.status.as_u16(), made.revision()), (201, service.revision()));
    let body = made.json();
    let (token, secret) = (&body["token"], body["secret"].as_str().unwrap());
    assert!(secret.starts_with("lkadm_") && secret.len() == 44, "the shape of a token");
    let id = token["id"].as_str().unwrap();
    assert_eq!(
        *token,
        json!({"id": id, "name": "CI", "role": "workspace_admin", "workspace_id": workspace,
               "last_characters": last_four(secret), "status": "active", "expires_at": "2027-02-21T08:00:00Z",
               "created_at": START, "created_by": "platform-admin", "last_used_at": null, "revision": made.revision(),
               "ip_allowlist": null, "may_make": null})
    );
    let shown = service.get(&format!("{TOKENS}/{id}")).await;
    assert_eq!(shown.json(), *token);
    let listed = service.get(TOKENS).await;
    assert_eq!(listed.json()["items"], json!([token]));
    assert!(!shown.text().contains(secret) && !listed.text().contains(secret));
}

#[tokio::test]
async fn what_a_token_does_bears_its_name() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (id, token) = service.token("workspace_admin", Some("acme")).await;
    let key = json!({"name": "key", "expires_in": "none"});
    let made = ask(&service, &token, Method::POST, "/v1/workspaces/acme/keys", key).await;
    assert_eq!(made.json()["key"]["created_by"], id.as_str());
    let log = service.get("/v1/audit-events?action=key.create").await.json();
    assert_eq!(log["items"][0]["actor"], json!({"kind": "admin_token", "id": id, "name": "workspace_admin"}));
}

#[tokio::test]
async fn a_revoked_token_is_refused_from_its_next_request_on() {
    let service = Service::start().await;
    let (id, token) = service.token("platform_admin", None).await;
    assert_eq!(works(&service, &token).await, Ok(()));
    let path = format!("{TOKENS}/{id}");
    assert_eq!(service.delete(&path).await.status, 204);
    assert_eq!(works(&service, &token).await, Err("revoked-token".to_owned()));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(service.call(method, &path, Value::Null).await.code(), "unknown-token");
    }
    assert_eq!(service.get(TOKENS).await.json()["items"], json!([]));
    let service = service.restart().await;
    assert_eq!(works(&service, &token).await, Err("revoked-token".to_owned()));
}

#[tokio::test]
async fn an_expired_token_is_refused_with_its_own_code() {
    let service = Service::start().await;
    let made = service.post(TOKENS, json!({"name": "x", "role": "platform_admin", "expires_in": "1h"})).await.json();
    let token = made["secret"].as_str().unwrap();
    service.advance(3_590);
    assert_eq!(works(&service, token).await, Ok(()));
    service.advance(10);
    assert_eq!(works(&service, token).await, Err("expired-token".to_owned()));
    assert_eq!(service.get(TOKENS).await.json()["items"][0]["status"], "expired");
}

#[tokio::test]
async fn nobody_makes_a_token_with_more_than_they_have() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let admin = service
        .post(TOKENS, json!({"name": "a", "role": "workspace_admin", "workspace": "acme", "expires_in": "30d"}))
        .await
        .json();
    let admin = admin["secret"].as_str().unwrap();
    for (body, expected) in [
        (json!({"role": "platform_admin"}), (403, "forbidden", vec![])),
        (json!({"role": "workspace_admin", "workspace": "other"}), (422, "", vec!["workspace unknown-workspace"])),
        (json!({"role": "workspace_admin", "workspace": "nowhere"}), (422, "", vec!["workspace unknown-workspace"])),
        (json!({"role": "workspace_admin", "expires_in": "90d"}), (422, "", vec!["expires_in beyond-own"])),
        (json!({"role": "workspace_admin", "expires_in": "none"}), (422, "", vec!["expires_in beyond-own"])),
        (
            json!({"role": "workspace_member", "expires_at": "2030-01-01T00:00:00Z"}),
            (422, "", vec!["expires_at beyond-own"]),
        ),
    ] {
        let mut named = body.clone();
        named["name"] = json!("more");
        let refused = ask(&service, admin, Method::POST, TOKENS, named).await;
        let code = if expected.1.is_empty() { "invalid-fields" } else { expected.1 };
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (expected.0, code), "{body}");
        assert_eq!(refused.fields(), expected.2, "{body}");
    }
    for role in ["workspace_admin", "workspace_member"] {
        let made = ask(&service, admin, Method::POST, TOKENS, json!({"name": "b", "role": role})).await;
        assert_eq!(made.status, 201, "{}", made.text());
        // It gets its creator's workspace and expiration.
        assert_eq!(made.json()["token"]["expires_at"], "2026-12-23T08:00:00Z");
    }
}

#[tokio::test]
async fn a_workspace_admin_sees_and_revokes_the_tokens_of_its_workspace_alone() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let (own, admin) = service.token("workspace_admin", Some("acme")).await;
    let (theirs, _) = service.token("workspace_member", Some("other")).await;
    let (platform, _) = service.token("platform_admin", None).await;
    let listed = ask(&service, &admin, Method::GET, TOKENS, Value::Null).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["id"], own.as_str());
    for id in [theirs, platform] {
        for method in [Method::GET, Method::DELETE] {
            let refused = ask(&service, &admin, method, &format!("{TOKENS}/{id}"), Value::Null).await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (404, "unknown-token"));
        }
    }
}

#[tokio::test]
async fn the_last_use_is_known_to_a_minute() {
    let service = Service::start().await;
    let (id, token) = service.token("platform_admin", None).await;
    let path = format!("{TOKENS}/{id}");
    for (advance, expected) in [(0, START), (30, START), (30, "2026-11-23T08:01:00Z")] {
        service.advance(advance);
        assert_eq!(works(&service, &token).await, Ok(()));
        // The last use is recorded outside the request, so it may take a moment.
        let last_used_at = async || service.get(&path).await.json()["last_used_at"].clone();
        until_equal("the last use", json!(expected), last_used_at).await;
    }
}

#[tokio::test]
async fn wrong_values_of_a_token_name_their_field() {
    let service = Service::start().await;
    service.workspace("acme").await;
    for (body, expected) in [
        (json!({}), vec!["name required", "role required"]),
        (json!({"name": "a", "role": "root"}), vec!["role unknown-role"]),
        (json!({"name": "a", "role": "workspace_admin"}), vec!["workspace required"]),
        (json!({"name": "a", "role": "platform_admin", "workspace": "acme"}), vec!["workspace ambiguous"]),
        (json!({"name": "a", "role": "workspace_admin", "workspace": 1}), vec!["workspace wrong-type"]),
        (json!({"name": "a", "role": "platform_admin", "expires_in": "1y"}), vec!["expires_in unknown-lifetime"]),
        (json!({"name": "a", "role": "platform_admin", "scopes": {}}), vec!["scopes unknown-field"]),
    ] {
        let refused = service.post(TOKENS, body.clone()).await;
        assert_eq!(
            (refused.status.as_u16(), refused.fields()),
            (422, expected.iter().map(|s| (*s).to_owned()).collect()),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_revoked_token_s_digest_is_forgotten_after_a_year() {
    let service = Service::start().await;
    let (id, token) = service.token("platform_admin", None).await;
    service.delete(&format!("{TOKENS}/{id}")).await;
    service.advance(366 * 86_400);
    service.sweep().await;
    assert_eq!(works(&service, &token).await, Err("bad-token".to_owned()));
}

#[tokio::test]
async fn a_responder_can_stop_a_leaked_key_and_do_nothing_that_widens() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, secret) = service.key("acme", json!({})).await;
    let (_, responder) = service.token("responder", None).await;
    let call = async |method: Method, path: &str, body: Value| {
        let answer = service.call_as(&responder, method, path, body, &[]).await;
        (answer.status.as_u16(), answer.json())
    };
    let (status, found) = call(Method::POST, "/v1/keys/identify", json!({"secret": secret})).await;
    assert_eq!((status, &found["kind"]), (200, &json!("key")));
    let (status, changed) = call(Method::POST, &format!("{key}/deactivate"), Value::Null).await;
    assert_eq!((status, &changed["status"]), (200, &json!("inactive")));
    for (method, path, body) in [
        (Method::POST, format!("{key}/activate"), Value::Null),
        (Method::POST, format!("{key}/rotate"), Value::Null),
        (Method::PATCH, key.clone(), json!({"ip_allowlist": null})),
        (Method::DELETE, key.clone(), Value::Null),
        (Method::POST, TOKENS.to_owned(), json!({"name": "x", "role": "responder"})),
    ] {
        let (status, refused) = call(method.clone(), &path, body).await;
        assert_eq!((status, &refused["code"]), (403, &json!("forbidden")), "{method} {path}");
        assert!(refused["detail"].as_str().unwrap().contains("use a token that may "), "{refused}");
    }
}

#[tokio::test]
async fn a_role_of_the_platform_takes_no_workspace_and_one_of_a_workspace_needs_it() {
    let service = Service::start().await;
    service.workspace("acme").await;
    for (role, workspace, expected) in [
        ("platform_viewer", Some("acme"), "ambiguous"),
        ("metrics", Some("acme"), "ambiguous"),
        ("workspace_member", None, "required"),
        ("workspace_member", Some("nowhere"), "unknown-workspace"),
    ] {
        let refused = service.post(TOKENS, json!({"name": "x", "role": role, "workspace": workspace})).await;
        assert_eq!(refused.status, 422, "{}", refused.text());
        let error = &refused.json()["errors"][0];
        assert_eq!((&error["field"], &error["code"]), (&json!("workspace"), &json!(expected)), "{role}: {error}");
    }
}

/// Requests a path with a token or a session's cookie, from an address, or from a Unix socket.
async fn from(service: &Service, header: (&str, &str), path: &str, address: Option<&str>) -> Answer {
    let mut request = Request::get(path).header(header.0, header.1).body(Body::empty()).unwrap();
    if let Some(address) = address {
        request.extensions_mut().insert(ConnectInfo(address.parse::<IpAddr>().unwrap()));
    }
    service.send(request).await
}

#[tokio::test]
async fn a_token_with_an_allowlist_works_from_its_networks_alone_and_so_does_its_session() {
    let service = Service::start().await;
    let made = json!({"name": "CI", "role": "platform_viewer", "ip_allowlist": ["192.0.2.0/24", "2001:db8::1"]});
    let made = service.post(TOKENS, made).await.json();
    assert_eq!(made["token"]["ip_allowlist"], json!(["192.0.2.0/24", "2001:db8::1"]));
    let token = made["secret"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let mut sign_in = Request::post("/console/sign-in")
        .header("origin", PUBLIC_URL)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(format!("token={token}&next=")))
        .unwrap();
    sign_in.extensions_mut().insert(ConnectInfo("192.0.2.7".parse::<IpAddr>().unwrap()));
    let signed_in = service.send(sign_in).await;
    let cookie = signed_in.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for (address, expected) in [
        (Some("192.0.2.7"), 200),
        (Some("::ffff:192.0.2.7"), 200),
        (Some("2001:db8::1"), 200),
        (Some("192.0.3.7"), 403),
        (Some("2001:db8::2"), 403),
        (None, 403),
    ] {
        let answer = from(&service, ("authorization", &bearer), "/v1/workspaces", address).await;
        assert_eq!(answer.status, expected, "{address:?}: {}", answer.text());
        if expected == 403 {
            assert_eq!(answer.code(), "address-not-allowed");
        }
        let page = from(&service, ("cookie", &cookie), "/console/workspaces", address).await;
        assert_eq!(page.status, expected, "{address:?}: {}", page.text());
    }
    // Outside its networks it counts as no wrong token, and the session is still open.
    let again = from(&service, ("cookie", &cookie), "/console/workspaces", Some("192.0.2.7")).await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn a_token_gives_the_tokens_that_it_creates_no_more_than_it_has() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let maker = json!({"name": "maker", "role": "workspace_admin", "workspace": "acme",
                       "ip_allowlist": ["192.0.2.0/24"], "may_make": ["workspace_member"]});
    let maker = service.post(TOKENS, maker).await.json();
    assert_eq!(maker["token"]["may_make"], json!(["workspace_member"]));
    let bearer = format!("Bearer {}", maker["secret"].as_str().unwrap());
    let create = async |body: Value| {
        let request = Request::post(TOKENS).header("authorization", &bearer).header("content-type", "application/json");
        let mut request = request.body(Body::from(body.to_string())).unwrap();
        request.extensions_mut().insert(ConnectInfo("192.0.2.7".parse::<IpAddr>().unwrap()));
        service.send(request).await
    };
    let inherited = create(json!({"name": "x", "role": "workspace_member"})).await.json();
    let inherited = &inherited["token"];
    assert_eq!(
        (&inherited["ip_allowlist"], &inherited["may_make"]),
        (&json!(["192.0.2.0/24"]), &json!(["workspace_member"]))
    );
    let narrow = json!({"name": "x", "role": "workspace_member", "ip_allowlist": ["192.0.2.8"], "may_make": []});
    let narrow = create(narrow).await.json();
    assert_eq!((&narrow["token"]["ip_allowlist"], &narrow["token"]["may_make"]), (&json!(["192.0.2.8"]), &json!([])));
    for (more, field, code) in [
        (json!({"ip_allowlist": null}), "ip_allowlist", "beyond-own"),
        (json!({"ip_allowlist": ["192.0.2.0/23"]}), "ip_allowlist", "beyond-own"),
        (json!({"ip_allowlist": ["192.0.2.8", "198.51.100.1"]}), "ip_allowlist", "beyond-own"),
        (json!({"ip_allowlist": []}), "ip_allowlist", "empty-allowlist"),
        (json!({"may_make": null}), "may_make", "beyond-own"),
        (json!({"may_make": ["workspace_member", "workspace_admin"]}), "may_make", "beyond-own"),
        (json!({"may_make": ["king"]}), "may_make", "unknown-role"),
        (json!({"may_make": "workspace_member"}), "may_make", "wrong-type"),
    ] {
        let mut body = json!({"name": "x", "role": "workspace_member"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let refused = create(body).await;
        assert_eq!(refused.status, 422, "{more}: {}", refused.text());
        let error = &refused.json()["errors"][0];
        assert_eq!((&error["field"], &error["code"]), (&json!(field), &json!(code)), "{more}: {error}");
    }
    let refused = create(json!({"name": "x", "role": "workspace_admin"})).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "forbidden"));
}
