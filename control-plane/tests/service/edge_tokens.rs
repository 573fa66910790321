//! Edge tokens over REST, and their effect on the feed.

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, EDGE, START, Service, last_four};
use crate::waiting::until_equal;

const TOKENS: &str = "/v1/edge-tokens";

/// Makes a token for `edge`; returns its path and text.
async fn token(service: &Service, edge: &str) -> (String, String) {
    let made = service.post(TOKENS, json!({"name": "a gateway", "edge": edge})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    (format!("{TOKENS}/{}", made["token"]["id"].as_str().unwrap()), made["secret"].as_str().unwrap().to_owned())
}

async fn poll(service: &Service, token: &str, edge: &str) -> Answer {
    let path = format!("/edge/v1/feed?format=1&edge={edge}&instance=i-{edge}");
    service.call_as(token, Method::GET, &path, Value::Null, &[]).await
}

#[tokio::test]
async fn a_token_is_shown_once() {
    let service = Service::start().await;
    let made = service.post(TOKENS, json!({"name": "a gateway", "edge": "edge-1"})).await;
    assert_eq!((made.status.as_u16(), made.revision()), (201, service.revision()));
    let body = made.json();
    let (token, secret) = (&body["token"], body["secret"].as_str().unwrap());
    assert!(secret.starts_with("lkedge_") && secret.len() == 45, "the shape of a token");
    let id = token["id"].as_str().unwrap();
    assert_eq!(
        *token,
        json!({"id": id, "name": "a gateway", "edge": "edge-1", "last_characters": last_four(secret),
               "created_at": START, "created_by": "platform-admin", "last_used_at": null, "revision": made.revision()})
    );
    let shown = service.get(&format!("{TOKENS}/{id}")).await;
    assert_eq!(shown.json(), *token);
    let listed = service.get(TOKENS).await;
    assert_eq!(listed.json(), json!({"items": [token], "next_cursor": null}));
    let log = service.get("/v1/audit-events").await;
    assert_eq!(log.json()["items"][0]["action"], "edge-token.create");
    assert!([shown, listed, log].iter().all(|answer| !answer.text().contains(secret)));
}

#[tokio::test]
async fn a_token_serves_its_own_edge_and_no_other() {
    let service = Service::start().await;
    let (_, token) = token(&service, "edge-1").await;
    assert_eq!(poll(&service, &token, "edge-1").await.status, 200);
    let refused = poll(&service, &token, "edge-2").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "wrong-edge"));
    for edge in ["edge-1", "edge-2"] {
        assert_eq!(poll(&service, EDGE, edge).await.status, 200, "the file's token serves any edge");
    }
}

#[tokio::test]
async fn a_token_gets_pages_of_snapshots() {
    let service = Service::start().await;
    let (_, token) = token(&service, "edge-1").await;
    service.workspace("acme").await;
    service.key("acme", json!({})).await;
    let manifest = poll(&service, &token, "edge-1").await;
    let at = policy::table::Loading::start(&manifest.bytes).unwrap().position();
    let page = format!("/edge/v1/snapshots/{}/{}/0", at.epoch, at.revision);
    assert_eq!(service.call_as(&token, Method::GET, &page, Value::Null, &[]).await.status, 200);
}

#[tokio::test]
async fn a_revoked_token_is_refused_from_its_next_request_on() {
    let service = Service::start().await;
    let (path, token) = token(&service, "edge-1").await;
    let (_, other) = self::token(&service, "edge-1").await;
    assert_eq!(service.delete(&path).await.status, 204);
    let refused = poll(&service, &token, "edge-1").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (401, "bad-token"));
    assert_eq!(poll(&service, &other, "edge-1").await.status, 200, "an edge may have several");
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(service.call(method, &path, Value::Null).await.code(), "unknown-token");
    }
    let service = service.restart().await;
    assert_eq!(poll(&service, &token, "edge-1").await.code(), "bad-token");
    assert_eq!(poll(&service, &other, "edge-1").await.status, 200);
}

#[tokio::test]
async fn a_request_that_waits_while_its_token_is_revoked_gets_nothing_more() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, token) = token(&service, "edge-1").await;
    let at = *service.store.head().borrow();
    let waits = format!(
        "/edge/v1/feed?format=1&edge=edge-1&instance=i1&wait=20&epoch={}&since={}&head={}",
        at.epoch, at.revision, at.head
    );
    let waiting = service.call_as(&token, Method::GET, &waits, Value::Null, &[]);
    let revoking = async {
        // Revoke the token only after the request has begun to wait.
        tokio::task::yield_now().await;
        service.delete(&path).await
    };
    let (answer, revoked) = tokio::join!(waiting, revoking);
    assert_eq!((answer.code().as_str(), revoked.status.as_u16()), ("retired-instance", 204));
}

#[tokio::test]
async fn tokens_of_admins_and_of_edges_never_stand_for_each_other() {
    let service = Service::start().await;
    let (_, edge) = token(&service, "edge-1").await;
    let (_, admin) = service.token("platform_admin", None).await;
    assert_eq!(poll(&service, &admin, "edge-1").await.code(), "bad-token");
    assert_eq!(service.call_as(&edge, Method::GET, "/v1/workspaces", Value::Null, &[]).await.code(), "bad-token");
}

#[tokio::test]
async fn the_last_use_is_known() {
    let service = Service::start().await;
    let (path, token) = token(&service, "edge-1").await;
    poll(&service, &token, "edge-1").await;
    // The last use is recorded outside the request.
    let last_used_at = async || service.get(&path).await.json()["last_used_at"].clone();
    until_equal("the last use", json!(START), last_used_at).await;
}

#[tokio::test]
async fn wrong_values_of_a_token_name_their_field() {
    let service = Service::start().await;
    for (body, expected) in [
        (json!({}), vec!["name required", "edge required"]),
        (json!({"name": "a", "edge": "a b"}), vec!["edge bad-edge"]),
        (json!({"name": "a", "edge": ""}), vec!["edge bad-edge"]),
        (json!({"name": "a", "edge": "e".repeat(65)}), vec!["edge bad-edge"]),
        (json!({"name": "a", "edge": "e", "role": "x"}), vec!["role unknown-field"]),
    ] {
        let refused = service.post(TOKENS, body.clone()).await;
        let expected: Vec<_> = expected.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!((refused.status.as_u16(), refused.fields()), (422, expected), "{body}");
    }
}
