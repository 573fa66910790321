//! What no value may contain: our secrets, and invisible characters.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

use crate::captured_log::CapturedLog;
use crate::harness::{ADMIN, Service};
use crate::visitor::Visitor;

/// A key and an admin token, both real.
async fn secrets(service: &Service) -> [String; 2] {
    let (_, key) = service.key("acme", json!({})).await;
    let (_, token) = service.token("workspace_admin", Some("acme")).await;
    [key, token]
}

#[tokio::test]
async fn no_secret_is_kept_as_a_value() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    let secrets = secrets(&service).await;
    let keys = "/v1/workspaces/acme/keys";
    let before = service.revision();
    for secret in &secrets {
        let text = format!("see {secret}, please");
        for (method, path, body, field) in [
            (Method::POST, "/v1/workspaces", json!({"name": text, "slug": "ab"}), "name"),
            (Method::POST, "/v1/workspaces", json!({"name": "a", "slug": secret}), "slug"),
            (Method::PATCH, "/v1/workspaces/acme", json!({"name": text}), "name"),
            (Method::POST, keys, json!({"name": text, "expires_in": "none"}), "name"),
            (Method::POST, keys, json!({"name": "a", "expires_in": "none", "metadata": {"a": [text]}}), "metadata"),
            (
                Method::POST,
                keys,
                json!({"name": "a", "expires_in": "none", "metadata": {secret.as_str(): 1}}),
                "metadata",
            ),
            (Method::PATCH, &key, json!({"name": secret}), "name"),
            (Method::PATCH, &key, json!({"metadata": {"a": {"b": text}}}), "metadata"),
            (Method::POST, "/v1/admin-tokens", json!({"name": text, "role": "platform_admin"}), "name"),
            (Method::POST, "/v1/edge-tokens", json!({"name": text, "edge": "e"}), "name"),
            (Method::POST, "/v1/edge-tokens", json!({"name": "e", "edge": secret}), "edge"),
        ] {
            let refused = service.call(method.clone(), path, body).await;
            assert_eq!(refused.status, 422, "{method} {path}: {}", refused.text());
            assert_eq!(refused.fields(), [format!("{field} contains-secret")], "{method} {path}");
            assert!(!refused.text().contains(secret), "{}", refused.text());
        }
        let line = json!({"digest": "0".repeat(64), "name": secret, "expires_in": "none"});
        let request = Request::post(format!("{keys}/import")).header("authorization", format!("Bearer {ADMIN}"));
        let request = request.header("content-type", "application/jsonl").body(Body::from(line.to_string())).unwrap();
        let refused = service.send(request).await;
        assert_eq!(refused.json()["lines"][0]["errors"][0]["code"], "contains-secret", "{}", refused.text());
    }
    assert_eq!(service.revision(), before);
    // Without its last symbol it is not a secret, and names may look like this.
    let cut = secrets[0].split_at(secrets[0].len() - 1).0;
    assert_eq!(service.patch(&key, json!({"name": cut})).await.status, 200);
}

#[tokio::test]
async fn a_request_id_that_holds_a_secret_is_not_taken_over() {
    let (logged, _guard) = CapturedLog::of_this_thread();
    let service = Service::start().await;
    service.workspace("acme").await;
    for secret in secrets(&service).await {
        let id = format!("req.{secret}");
        let headers = [("x-request-id", id.as_str())];
        let made = service.call_with(Method::PATCH, "/v1/workspaces/acme", json!({"name": "b"}), &headers).await;
        assert_ne!(made.header("x-request-id"), Some(id.as_str()));
        assert!(!logged.text().contains(&secret));
        assert!(!service.get("/v1/audit-events").await.text().contains(&secret));
    }
}

#[tokio::test]
async fn no_form_of_the_console_shows_a_secret_that_was_typed_into_it() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    let key = key.replace("/v1/", "/console/");
    let visitor = Visitor::admin(&service).await;
    for secret in secrets(&service).await {
        let name = format!("CI {secret}");
        let metadata = json!({"note": secret}).to_string();
        for (from, path, values) in [
            ("/console/workspaces/acme/keys/new", "/console/workspaces/acme/keys", vec![("name", name.as_str())]),
            (
                "/console/workspaces/acme/keys/new",
                "/console/workspaces/acme/keys",
                vec![("name", "CI"), ("metadata", &metadata), ("expires_in", "90d")],
            ),
            (&format!("{key}/edit"), &format!("{key}/edit"), vec![("name", &name)]),
            (&format!("{key}/delete"), &format!("{key}/delete"), vec![("confirm", &name)]),
            ("/console/admin-tokens/new", "/console/admin-tokens", vec![("name", &name)]),
            ("/console/edge-tokens/new", "/console/edge-tokens", vec![("name", "a"), ("edge", &secret)]),
            ("/console/workspaces/new", "/console/workspaces", vec![("name", "a"), ("slug", &secret)]),
        ] {
            let answer = visitor.post_from(from, path, &values).await;
            assert_eq!(answer.status, 422, "{path}: {}", answer.text());
            assert!(!answer.text().contains(&secret), "{path} shows it: {}", answer.text());
            assert!(answer.text().contains("[removed]"), "{path} keeps the rest: {}", answer.text());
        }
        let searched = visitor.get(&format!("/console/workspaces/acme/keys?q={secret}")).await;
        assert!(searched.status == 200 && !searched.text().contains(&secret), "{}", searched.text());
    }
}

#[tokio::test]
async fn a_character_that_hides_is_refused_by_its_name() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let keys = "/v1/workspaces/acme/keys";
    for (character, name) in
        [('\u{202e}', "U+202E"), ('\u{200b}', "U+200B"), ('\u{2066}', "U+2066"), ('\u{feff}', "U+FEFF")]
    {
        let text = format!("pay{character}pal");
        for (path, body) in [
            (keys, json!({"name": text, "expires_in": "none"})),
            ("/v1/workspaces", json!({"name": text, "slug": "ab"})),
            ("/v1/admin-tokens", json!({"name": text, "role": "platform_admin"})),
            ("/v1/edge-tokens", json!({"name": text, "edge": "e"})),
        ] {
            let refused = service.post(path, body).await;
            assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec!["name bad-characters".to_owned()]));
            assert!(refused.json()["detail"].as_str().unwrap().contains(name), "{}", refused.text());
        }
    }
}

#[tokio::test]
async fn the_last_instant_is_one() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let last = "9999-12-31T23:59:59Z";
    let (path, _) = service.key("acme", json!({"expires_at": last})).await;
    let shown = service.get(&path).await.json();
    assert_eq!((&shown["expires_at"], &shown["status"]), (&json!(last), &json!("active")));
    assert_eq!(service.table().await.len(), 1);
    let visitor = Visitor::admin(&service).await;
    assert!(visitor.page(&path.replace("/v1/", "/console/")).await.contains(last));
    let beyond = json!({"name": "a", "expires_at": "9999-12-31T23:59:59-00:01"});
    let refused = service.post("/v1/workspaces/acme/keys", beyond).await;
    assert_eq!(refused.fields(), ["expires_at bad-instant"]);
}

#[tokio::test]
async fn names_are_found_whatever_their_case_in_any_script() {
    let service = Service::start().await;
    service.workspace("acme").await;
    for name in ["Ärger im Büro", "straße 7", "Οδυσσεύς", "Привет", "plain_100%"] {
        service.key("acme", json!({"name": name})).await;
    }
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let found = async |parameter: &str, text: &str| {
        let page = service.get(&format!("/v1/workspaces/acme/keys?{parameter}={}", encoded(text))).await.json();
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (parameter, text, expected) in [
        ("q", "ÄRGER", "Ärger im Büro"),
        ("q", "büRO", "Ärger im Büro"),
        ("q", "STRASSE", "straße 7"),
        ("q", "STRAẞE", "straße 7"),
        ("q", "ΟΔΥΣΣΕΎΣ", "Οδυσσεύς"),
        ("q", "пРИВЕТ", "Привет"),
        ("q", "PLAIN_", "plain_100%"),
        ("name", "ärger*BÜRO", "Ärger im Büro"),
        ("name", "ПРИ?ЕТ", "Привет"),
    ] {
        assert_eq!(found(parameter, text).await, [expected], "{parameter}={text}");
    }
    assert!(found("q", "arger").await.is_empty());
    assert!(found("q", "0%x").await.is_empty());
    // A renamed key is found by its new name.
    let (path, _) = service.key("acme", json!({"name": "old"})).await;
    assert_eq!(service.patch(&path, json!({"name": "ÑANDÚ"})).await.status, 200);
    assert_eq!(found("q", "ñandú").await, ["ÑANDÚ"]);
    let wide = json!({"dry_run": true, "name": "ñ*"});
    assert_eq!(service.post("/v1/workspaces/acme/keys/deactivate-matching", wide).await.json()["matched"], 1);
}
