//! Requests that are refused: each with its status, its code and its field.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::harness::{ADMIN, EDGE, Service};
use crate::openapi::{assert_documented, routes_with};

#[tokio::test]
async fn an_unauthenticated_client_learns_nothing_else() {
    let service = Service::start().await;
    service.workspace("acme").await;
    for (method, path, body) in [
        (Method::GET, "/v1", ""),
        (Method::GET, "/v1/", ""),
        (Method::GET, "/v1/nothing", ""),
        (Method::PUT, "/v1/workspaces", ""),
        (Method::POST, "/v1/workspaces", "not json"),
        (Method::GET, "/v1/workspaces/acme", ""),
        (Method::GET, "/v1/workspaces/other", ""),
        (Method::GET, "/v1/workspaces/acme/keys?limit=x", ""),
    ] {
        for (token, code) in [(None, "missing-token"), (Some("lkadm_wrong"), "bad-token"), (Some(EDGE), "bad-token")] {
            let mut request = Request::builder().method(method.clone()).uri(path);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let refused = service.send(request.body(Body::from(body)).unwrap()).await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (401, code), "{method} {path} {token:?}");
            assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer realm=\"latchkey\""));
        }
    }
}

#[tokio::test]
async fn an_admin_token_opens_no_feed() {
    let service = Service::start().await;
    for path in ["/edge/v1/feed?format=1&edge=e&instance=i", "/edge/v1/snapshots/00/1/0"] {
        let request =
            Request::get(path).header("authorization", format!("Bearer {ADMIN}")).body(Body::empty()).unwrap();
        assert_eq!(service.send(request).await.code(), "bad-token");
    }
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_problems() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let key = "key_00000000000000000000000000000000";
    for (method, path, status, code) in [
        (Method::GET, "/v2/workspaces", 404, "unknown-path"),
        (Method::GET, "/v1/nothing", 404, "unknown-path"),
        (Method::GET, "/edge/v1/nothing", 404, "unknown-path"),
        (Method::GET, "/v1/workspaces/other", 404, "unknown-workspace"),
        (Method::GET, "/v1/workspaces/ws_00000000000000000000000000000000/keys", 404, "unknown-workspace"),
        (Method::GET, "/v1/workspaces/%ff/keys", 404, "unknown-workspace"),
        (Method::POST, "/v1/workspaces/other/keys", 404, "unknown-workspace"),
        (Method::GET, "/v1/workspaces/acme/keys/other", 404, "unknown-key"),
        (Method::GET, &format!("/v1/workspaces/acme/keys/{key}"), 404, "unknown-key"),
        (Method::POST, &format!("/v1/workspaces/acme/keys/{key}/rotate"), 404, "unknown-key"),
        (Method::DELETE, "/v1/workspaces/acme", 405, "method-not-allowed"),
        (Method::PUT, "/v1/workspaces/acme/keys", 405, "method-not-allowed"),
        (Method::POST, "/healthz", 405, "method-not-allowed"),
        (Method::POST, "/edge/v1/feed", 405, "method-not-allowed"),
    ] {
        let refused = service.call(method.clone(), path, Value::Null).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (status, code), "{method} {path}");
        assert_eq!(refused.header("allow").is_some(), status == 405, "{method} {path}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let service = Service::start().await;
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(300 << 10));
    for (kind, body, status, code) in [
        (Some("application/json"), "{", 400, "not-json"),
        (Some("application/json"), "\u{feff}{}", 400, "not-json"),
        (Some("application/json"), r#"{"name":"a","name":"b","slug":"acme"}"#, 400, "not-json"),
        (Some("application/json"), "[]", 422, "invalid-fields"),
        (Some("application/json"), "null", 422, "invalid-fields"),
        (Some("application/json; charset=utf-8"), "{}", 422, "invalid-fields"),
        (Some("Application/JSON"), "", 422, "invalid-fields"),
        (Some("text/plain"), "{}", 415, "unsupported-media-type"),
        (Some("application/merge-patch+json"), "{}", 415, "unsupported-media-type"),
        (None, "{}", 415, "unsupported-media-type"),
        (Some("application/json"), long.as_str(), 413, "too-large"),
    ] {
        let mut request = Request::post("/v1/workspaces").header("authorization", format!("Bearer {ADMIN}"));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let refused = service.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        let shown: String = body.chars().take(40).collect();
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (status, code), "{kind:?} {shown}");
    }
    let invalid = Request::post("/v1/workspaces")
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("content-type", "application/json")
        .body(Body::from(&b"{\"name\":\"\xff\"}"[..]))
        .unwrap();
    assert_eq!(service.send(invalid).await.code(), "not-json");
}

#[tokio::test]
async fn each_wrong_value_names_its_field() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    let (workspaces, keys) = ("/v1/workspaces", "/v1/workspaces/acme/keys");
    let rotate = format!("{key}/rotate");
    let before = service.revision();
    for (path, body, expected) in [
        (workspaces, json!({}), vec!["name required", "slug required"]),
        (workspaces, json!({"name": 1, "slug": "A"}), vec!["name wrong-type", "slug bad-slug"]),
        (workspaces, json!({"name": "a", "slug": "ab", "owner": "me"}), vec!["owner unknown-field"]),
        (keys, json!({}), vec!["name required", "expires_in required"]),
        (keys, json!({"name": "x".repeat(101), "expires_in": "none"}), vec!["name too-long"]),
        (keys, json!({"name": "a", "expires_in": "2d"}), vec!["expires_in unknown-lifetime"]),
        (keys, json!({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}), vec!["expires_at in-the-past"]),
        (keys, json!({"name": "a", "expires_at": "later"}), vec!["expires_at bad-instant"]),
        (
            keys,
            json!({"name": "a", "expires_in": "1d", "expires_at": "2027-01-01T00:00:00Z"}),
            vec!["expires_in ambiguous", "expires_at ambiguous"],
        ),
        (keys, json!({"name": "a", "expires_in": "1d", "scopes": {"x": "read"}}), vec!["scopes unknown-scope"]),
        (keys, json!({"name": "a", "expires_in": "1d", "scopes": {"reviews": "rw"}}), vec!["scopes unknown-level"]),
        (keys, json!({"name": "a", "expires_in": "1d", "ip_allowlist": []}), vec!["ip_allowlist empty-allowlist"]),
        (
            keys,
            json!({"name": "a", "expires_in": "1d", "ip_allowlist": ["10.0.0.1/8"]}),
            vec!["ip_allowlist host-bits"],
        ),
        (keys, json!({"name": "a", "expires_in": "1d", "ip_allowlist": ["x"]}), vec!["ip_allowlist not-a-network"]),
        (
            keys,
            json!({"name": "a", "expires_in": "1d", "environment": "test"}),
            vec!["environment unknown-environment"],
        ),
        (keys, json!({"name": "a", "expires_in": "1d", "metadata": []}), vec!["metadata wrong-type"]),
        (
            keys,
            json!({"name": "a", "expires_in": "1d", "metadata": {"x": "y".repeat(4_090)}}),
            vec!["metadata too-long"],
        ),
        (keys, json!({"name": "a", "expires_in": "1d", "secret": "mine"}), vec!["secret unknown-field"]),
        (&rotate, json!({"overlap": "8d"}), vec!["overlap too-long"]),
        (&rotate, json!({"overlap": "soon"}), vec!["overlap bad-duration"]),
        (&rotate, json!({"expires_in": "1d"}), vec!["expires_in unknown-field"]),
    ] {
        let refused = service.post(path, body.clone()).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, "invalid-fields"), "{body}");
        assert_eq!(refused.fields(), expected, "{body}");
    }
    for action in ["activate", "deactivate", "end-overlap"] {
        let refused = service.post(&format!("{key}/{action}"), json!({"now": true})).await;
        assert_eq!(
            (refused.status.as_u16(), refused.fields()),
            (422, vec!["now unknown-field".to_owned()]),
            "{action}"
        );
    }
    for (query, expected) in [
        ("limit=0", "limit out-of-range"),
        ("limit=201", "limit out-of-range"),
        ("limit=-1", "limit out-of-range"),
        ("limit=", "limit out-of-range"),
        ("status=dead", "status unknown-status"),
        ("sort=size", "sort unknown-sort"),
        ("cursor=%21", "cursor bad-cursor"),
        ("cursor=bnVsbA", "cursor bad-cursor"),
        ("page=2", "page unknown-field"),
    ] {
        let refused = service.get(&format!("{keys}?{query}")).await;
        assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec![expected.to_owned()]), "{query}");
    }
    assert_eq!(service.get(&format!("{keys}?limit=1&limit=2")).await.code(), "bad-query");
    assert_eq!(service.revision(), before);
}

#[tokio::test]
async fn each_route_refuses_bodies_and_queries_that_it_can_not_read() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    let before = service.revision();
    let ask = async |route: &str, query: &str, kind: &str, body: String| {
        let (method, path) = route.split_once(' ').unwrap();
        let path = path.replace("/v1/workspaces/{workspace}/keys/{key}", &key).replace("{workspace}", "acme");
        let request = Request::builder().method(method).uri(format!("{path}{query}"));
        let request = request.header("authorization", format!("Bearer {ADMIN}")).header("content-type", kind);
        let refused = service.send(request.body(Body::from(body)).unwrap()).await;
        assert_documented(route, &refused);
        refused
    };
    for (route, _) in routes_with("requestBody").into_iter().filter(|(route, _)| !route.ends_with("/import")) {
        for (kind, body, status, code) in [
            ("application/json", "{".to_owned(), 400, "not-json"),
            ("application/json", r#"{"a":1,"a":2}"#.to_owned(), 400, "not-json"),
            ("application/json", "[1]".to_owned(), 422, "invalid-fields"),
            ("text/plain", "{}".to_owned(), 415, "unsupported-media-type"),
            ("application/json", format!("{{\"name\":\"{}\"}}", "x".repeat(300 << 10)), 413, "too-large"),
        ] {
            let refused = ask(&route, "", kind, body).await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (status, code), "{route}");
        }
        let refused = ask(&route, "", "application/json", json!({"no such field": 1}).to_string()).await;
        assert!(refused.fields().contains(&"no such field unknown-field".to_owned()), "{route}: {}", refused.text());
    }
    for (route, operation) in routes_with("query") {
        // Whether a field is a required parameter, which this query omits.
        let missing = |field: &str| {
            let parameters = operation["parameters"].as_array().unwrap().iter();
            let mut required =
                parameters.filter(|parameter| parameter["required"] == true && parameter["in"] == "query");
            required.any(|parameter| field == format!("{} required", parameter["name"].as_str().unwrap()))
        };
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let wrong = match name {
                "workspace" | "key" | "token" => continue,
                "target" | "action" | "actor" | "q" | "name" => format!("?{name}={}", "x".repeat(101)),
                _ => format!("?{name}=%21"),
            };
            let refused = ask(&route, &wrong, "application/json", String::new()).await;
            let fields: Vec<_> = refused.fields().into_iter().filter(|field| !missing(field)).collect();
            assert!(refused.status == 422 && fields.len() == 1, "{route}{wrong}: {}", refused.text());
            assert!(fields[0].starts_with(&format!("{name} ")), "{route}{wrong}: {fields:?}");
            let twice = ask(&route, &format!("?{name}=1&{name}=1"), "application/json", String::new()).await;
            assert_eq!((twice.status.as_u16(), twice.code().as_str()), (400, "bad-query"), "{route} {name}");
        }
        let refused = ask(&route, "?page=2", "application/json", String::new()).await;
        let fields: Vec<_> = refused.fields().into_iter().filter(|field| !missing(field)).collect();
        assert_eq!(fields, ["page unknown-field"], "{route}");
    }
    assert_eq!(service.revision(), before);
}

#[tokio::test]
async fn a_token_that_is_not_there_is_unknown_and_no_token_of_the_other_kind() {
    let service = Service::start().await;
    let (admin, _) = service.token("platform_admin", None).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "e"})).await.json();
    let edge = edge["token"]["id"].as_str().unwrap().to_owned();
    for (kind, other) in [("admin-tokens", edge), ("edge-tokens", admin)] {
        for id in [other.as_str(), "adt_00000000000000000000000000000000", "x", "%ff"] {
            for method in [Method::GET, Method::DELETE] {
                let refused = service.call(method.clone(), &format!("/v1/{kind}/{id}"), Value::Null).await;
                assert_eq!((refused.status.as_u16(), refused.code().as_str()), (404, "unknown-token"), "{kind} {id}");
            }
        }
    }
}

#[tokio::test]
async fn probes_need_no_token() {
    let service = Service::start().await;
    for path in ["/healthz", "/readyz", "/readyz?for=edges"] {
        assert_eq!(service.send(Request::get(path).body(Body::empty()).unwrap()).await.status, 200, "{path}");
    }
    service.store.close().await;
    let unready = service.send(Request::get("/readyz").body(Body::empty()).unwrap()).await;
    assert_eq!((unready.status.as_u16(), unready.code().as_str()), (503, "storage-unavailable"));
    assert_eq!(service.send(Request::get("/healthz").body(Body::empty()).unwrap()).await.status, 200);
}

#[tokio::test]
async fn too_many_wrong_tokens_are_rate_limited_and_a_right_one_never_is() {
    let service = Service::start().await;
    let feed = "/edge/v1/feed?format=1&edge=e&instance=i";
    let ask = async |token: &str, path: &str| service.call_as(token, Method::GET, path, Value::Null, &[]).await;
    let mut last = String::new();
    for _ in 0..200 {
        last = ask("lkadm_wrong", "/v1/workspaces").await.code();
        if last == "too-many-attempts" {
            break;
        }
        assert_eq!(last, "bad-token");
    }
    assert_eq!(last, "too-many-attempts");
    let refused = ask("lkedge_wrong", feed).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "too-many-attempts"));
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    let (_, token) = service.token("platform_admin", None).await;
    for (token, path) in [(ADMIN, "/v1/workspaces"), (&token, "/v1/workspaces"), (EDGE, feed)] {
        assert_eq!(ask(token, path).await.status, 200, "{path}");
    }
}
