//! What rests on disk: digests, and never a secret.

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::Service;

#[tokio::test]
async fn no_secret_is_in_the_bytes_of_the_database_or_its_wal() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, first) = service.key("acme", json!({})).await;
    let rotate = async |body: Value| {
        let rotated = service.post(&format!("{path}/rotate"), body).await.json();
        rotated["secret"].as_str().unwrap().to_owned()
    };
    let secrets = [first, rotate(Value::Null).await, rotate(json!({"overlap": "1h"})).await];
    let (_, admin) = service.token("workspace_admin", Some("acme")).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "edge-1"})).await.json();
    let secrets = secrets.into_iter().chain([admin, edge["secret"].as_str().unwrap().to_owned()]).collect::<Vec<_>>();
    service.table().await;
    let mut bytes = Vec::new();
    for name in ["latchkey.db", "latchkey.db-wal"] {
        bytes.extend(std::fs::read(service.directory.path().join(name)).unwrap());
    }
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    for secret in &secrets {
        let digest = policy::Digest::of(secret.as_bytes());
        assert!(holds(&digest.0), "the digest is what is kept");
        // Its random part, too: not even without the prefix.
        assert!(!holds(secret.as_bytes()) && !holds(secret.split('_').next_back().unwrap().as_bytes()));
    }
}

#[tokio::test]
async fn no_refusal_and_no_metric_repeats_a_secret() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, secret) = service.key("acme", json!({})).await;
    let (_, token) = service.token("workspace_admin", Some("acme")).await;
    for text in [secret.as_str(), &token] {
        let keys = "/v1/workspaces/acme/keys";
        for (method, path, body) in [
            (Method::GET, format!("/v1/workspaces/{text}"), Value::Null),
            (Method::GET, format!("{keys}/{text}"), Value::Null),
            (Method::GET, format!("{keys}?{text}=1"), Value::Null),
            (Method::GET, format!("{keys}?cursor={text}"), Value::Null),
            (Method::GET, format!("{keys}?sort={text}"), Value::Null),
            (Method::GET, format!("/v1/audit-events?since={text}"), Value::Null),
            (Method::GET, format!("/v1/{text}"), Value::Null),
            (
                Method::POST,
                keys.to_owned(),
                json!({"name": [text], "expires_in": text, "environment": text, text: text}),
            ),
            (Method::POST, keys.to_owned(), json!({"name": "a", "expires_in": "none", "metadata": text})),
            (Method::POST, keys.to_owned(), json!({"name": "a", "expires_in": "none", "scopes": {text: "read"}})),
            (Method::POST, keys.to_owned(), json!({"name": "a", "expires_in": "none", "ip_allowlist": [text]})),
            (Method::POST, format!("{key}/rotate"), json!({"overlap": text})),
            (Method::POST, "/v1/workspaces".to_owned(), json!({"name": "a", "slug": text})),
            (Method::POST, "/v1/admin-tokens".to_owned(), json!({"name": "a", "role": text, "workspace": text})),
            (Method::POST, "/v1/edge-tokens".to_owned(), json!({"name": "a", "edge": format!("{text}/")})),
            (Method::POST, "/v1/keys/identify".to_owned(), json!({"secret": format!("{text}{text}")})),
            (Method::POST, "/v1/keys/identify".to_owned(), json!({text: text})),
        ] {
            let refused = service.call(method.clone(), &path, body).await;
            assert!(refused.status.is_client_error(), "{method} {path}");
            let random = text.split('_').next_back().unwrap();
            assert!(!refused.text().contains(random), "{method} {path}: {}", refused.text());
        }
        assert!(!service.get("/metrics").await.text().contains(text));
    }
}
