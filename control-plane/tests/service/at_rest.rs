//! After a secret was shown, only its digest stays on disk.

use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::captured_log::CapturedLog;
use crate::data_at_rest::data_at_rest;
use crate::harness::{ADMIN, Answer, EDGE, PUBLIC_URL, Service};
use crate::visitor::{Form as _, Visitor};
use test_support::{databases, digest};

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// Uses secrets correctly and incorrectly wherever one is taken. Returns the answers, except those that show a secret
/// once.
async fn live(service: &Service, key: &str, secrets: &[String], edge_path: &str, admin_path: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    let (_, member) = service.token("workspace_member", Some("acme")).await;
    let visitor = Visitor::admin(service).await;
    for secret in secrets.iter().map(String::as_str).chain([ADMIN, EDGE]) {
        // As the credential of a request, whatever the request.
        for path in ["/v1/workspaces", "/v1/audit-events", "/metrics", "/edge/v1/feed?format=1&edge=edge-1&instance=i"]
        {
            answers.push(service.call_as(secret, Method::GET, path, Value::Null, &[]).await);
        }
        answers.push(service.post("/v1/keys/identify", json!({"secret": secret})).await);
        answers.push(service.call_as(&member, Method::POST, "/v1/keys/identify", json!({"secret": secret}), &[]).await);
        // In the console, signed in or not.
        let sign_in = Request::post("/console/sign-in").header("origin", PUBLIC_URL).form(&[("token", secret)]);
        answers.push(service.send(sign_in).await);
        answers.push(visitor.post("/console/identify", &[("secret", secret)]).await);
        answers.push(visitor.post("/console/workspaces/acme/keys", &[("nonce", secret), ("expires_in", secret)]).await);
        answers.push(visitor.get(&format!("/console/{secret}?done={secret}&cursor={secret}")).await);
        // In the wrong place.
        answers.push(service.post("/v1/keys/identify", json!({"secret": [secret], "key": secret})).await);
        answers.push(service.post("/v1/edge-tokens", json!({"name": "a", "edge": secret, secret: secret})).await);
        answers.push(
            service.call_with(Method::POST, "/v1/workspaces", json!({"name": 1}), &[("idempotency-key", secret)]).await,
        );
        answers.push(service.patch(key, json!({"expires_at": secret, "scopes": {"reviews": secret}})).await);
        answers.push(service.call_with(Method::PATCH, key, json!({"name": "b"}), &[("if-match", secret)]).await);
        answers.push(service.get(&format!("/v1/audit-events?target={secret}&action={secret}")).await);
        answers.push(service.get(&format!("/edge/v1/feed?format=1&edge={secret}&instance=i&wait={secret}")).await);
    }
    for (method, path) in [
        (Method::POST, format!("{key}/end-overlap")),
        (Method::POST, format!("{key}/deactivate")),
        (Method::DELETE, key.to_owned()),
        (Method::DELETE, edge_path.to_owned()),
        (Method::DELETE, admin_path.to_owned()),
    ] {
        let changed = service.call(method, &path, Value::Null).await;
        assert!(changed.status.is_success(), "{path}: {}", changed.text());
        answers.push(changed);
    }
    for secret in secrets {
        answers.push(service.post("/v1/keys/identify", json!({"secret": secret})).await);
    }
    answers.push(service.get("/v1/audit-events?limit=200").await);
    for path in ["/v1/audit-events", "/v1/workspaces/acme/audit-events"] {
        let accept = [("accept", "application/jsonl")];
        let export = service.call_with(Method::GET, path, Value::Null, &accept).await;
        assert!(export.status == 200 && export.text().lines().count() > 5, "{}", export.text());
        answers.push(export);
    }
    for path in ["", "/workspaces/acme/keys", "/admin-tokens", "/edge-tokens", "/audit", "/audit/export", "/edges"] {
        answers.push(visitor.get(&format!("/console{path}")).await);
    }
    for path in ["/v1/admin-tokens", "/v1/edge-tokens", "/v1/workspaces/acme/keys", "/metrics"] {
        answers.push(service.get(path).await);
    }
    answers
}

#[tokio::test]
async fn no_secret_is_in_the_database_the_wal_the_log_the_audit_log_or_the_metrics() {
    // From all threads, including the writer's and the readers'. Other tests log into it as well, which does no harm.
    let logged = CapturedLog::of_the_process();

    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, first) = service.key("acme", json!({})).await;
    let rotate = async |body: Value| {
        let rotated = service.post(&format!("{key}/rotate"), body).await.json();
        rotated["secret"].as_str().unwrap().to_owned()
    };
    let keys = [first, rotate(Value::Null).await, rotate(json!({"overlap": "1h"})).await];
    let (admin_id, admin) = service.token("workspace_admin", Some("acme")).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "edge-1"})).await.json();
    let edge_path = format!("/v1/edge-tokens/{}", edge["token"]["id"].as_str().unwrap());
    let secrets = [keys.as_slice(), &[admin, edge["secret"].as_str().unwrap().to_owned()]].concat();
    service.table().await;
    let answers = live(&service, &key, &secrets, &edge_path, &format!("/v1/admin-tokens/{admin_id}")).await;

    let while_it_runs = data_at_rest(service.directory.path());
    let has_wal = while_it_runs.iter().any(|(name, bytes)| name == "latchkey.db-wal" && !bytes.is_empty());
    assert!(has_wal || databases::is_postgres());
    service.end();
    service.store.close().await;
    let places: Vec<_> = while_it_runs.into_iter().chain(data_at_rest(service.directory.path())).collect();
    let log = logged.text().into_bytes();
    assert!(holds(&log, b"/v1/keys/identify"), "the requests are logged");
    for secret in &secrets {
        let digest = policy::Digest::of(secret.as_bytes());
        assert!(places.iter().any(|(_, bytes)| holds(bytes, &digest.0)), "the digest is what is kept");
        let hex = digest::hexadecimal(secret);
        // Its random part must not appear either, even without the prefix.
        let random = secret.split('_').next_back().unwrap().as_bytes();
        for (name, bytes) in &places {
            assert!(!holds(bytes, random), "{name} holds a secret");
        }
        assert!(!holds(&log, random) && !holds(&log, hex.as_bytes()), "the log holds a secret or its digest");
        for answer in &answers {
            let headers = format!("{:?}", answer.headers);
            for text in [answer.text(), headers] {
                assert!(!holds(text.as_bytes(), random) && !holds(text.as_bytes(), hex.as_bytes()), "{text}");
            }
        }
    }
    let sessions: Vec<_> = answers.iter().filter_map(|answer| answer.header("set-cookie")).collect();
    assert!(sessions.len() >= 2, "any admin token can sign in");
    for session in sessions {
        let text = session.split(['=', ';']).nth(1).unwrap().as_bytes();
        assert!(places.iter().all(|(_, bytes)| !holds(bytes, text)) && !holds(&log, text), "a session's text is kept");
    }
    // The tokens of the files are short here: without the shape of a token, a refusal may name one as a field.
    for token in [ADMIN, EDGE] {
        assert!(places.iter().all(|(_, bytes)| !holds(bytes, token.as_bytes())));
        assert!(!holds(&log, token.as_bytes()));
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
