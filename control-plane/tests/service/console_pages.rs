//! Console pages: usage, denials, advice for safer keys, and edges that are behind.

use axum::http::Method;
use serde_json::{Value, json};
use test_support::digest::mark;

use crate::harness::{EDGE, Service};
use crate::visitor::Visitor;

/// The harness's clock, in seconds.
const NOW: i64 = 1_795_420_800;

/// The key's page, by its path over REST.
async fn page(visitor: &Visitor<'_>, key: &str) -> String {
    visitor.page(&key.replace("/v1/", "/console/")).await
}

/// Sends a body as instance `i1` of `edge-1`.
async fn post_as_edge(service: &Service, path: &str, mut body: Value) {
    for (name, value) in [("edge", "edge-1"), ("instance", "i1")] {
        body[name] = value.into();
    }
    let answer = service.call_as(EDGE, Method::POST, path, body, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn acknowledged(service: &Service, applied: [u64; 2]) {
    let epoch = service.store.head().borrow().epoch.to_string();
    let worker = |(id, applied)| json!({"id": id, "applied": applied, "started_at": NOW});
    let workers: Vec<_> = ["0", "1"].into_iter().zip(applied).map(worker).collect();
    post_as_edge(
        service,
        "/edge/v1/acknowledgements",
        json!({"epoch": epoch, "max_staleness_secs": 60, "workers": workers}),
    )
    .await;
}

fn id(key: &str) -> &str {
    key.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn a_key_s_page_warns_of_what_would_be_safer() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (endless, _) = service.key("acme", json!({"scopes": {"reviews": "write"}})).await;
    let narrow =
        json!({"scopes": {"reviews": "write"}, "ip_allowlist": ["192.0.2.7"], "expires_at": "2027-11-23T08:00:00Z"});
    let (narrow, _) = service.key("acme", narrow).await;
    let warnings = async |key: &str| {
        let page = page(&Visitor::admin(&service).await, key).await;
        ["can write from any address", "The key never expires.", "Unused for 90 days."].map(|text| page.contains(text))
    };
    assert_eq!(warnings(&endless).await, [true, true, false]);
    assert_eq!(warnings(&narrow).await, [false, false, false]);
    service.advance(90 * 86_400 - 1);
    assert!(!warnings(&narrow).await[2]);
    service.advance(1);
    assert_eq!(warnings(&narrow).await, [false, false, true]);
    let list = Visitor::admin(&service).await.page("/console/workspaces/acme/keys?unused_days=90").await;
    assert!(list.contains(id(&endless)) && list.contains(id(&narrow)));
}

#[tokio::test]
async fn during_an_overlap_the_page_shows_who_uses_which_secret() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.poll(None, 0).await;
    let (key, first) = service.key("acme", json!({})).await;
    service.advance(600);
    let rotated = service.post(&format!("{key}/rotate"), json!({"overlap": "12h"})).await.json();
    let second = rotated["secret"].as_str().unwrap().to_owned();
    let visitor = Visitor::admin(&service).await;
    let rotation = format!("{}/rotation", key.replace("/v1/", "/console/"));
    let fresh = visitor.page(&rotation).await;
    assert!(fresh.contains("was not used yet") && fresh.contains("The old secret was not used recently."), "{fresh}");
    service.advance(300);
    let used = json!([{"secret": mark(&first), "at": NOW + 720}, {"secret": mark(&second), "at": NOW + 897}]);
    let entry = json!({"key": id(&key), "hour": NOW, "allowed": 2, "used": used, "address": "192.0.2.7"});
    post_as_edge(&service, "/edge/v1/usage", json!({"worker": "w", "sequence": 1, "keys": [entry]})).await;
    let page_text = visitor.page(&rotation).await;
    assert!(page_text.contains(">3 seconds ago</time>") && page_text.contains(">3 minutes ago</time>"), "{page_text}");
    assert!(page_text.contains("End the overlap now"), "{page_text}");
    let whole = page(&visitor, &key).await;
    assert!(whole.contains("<strong>2</strong> allowed") && whole.contains("192.0.2.7"), "{whole}");
    service.advance(12 * 3_600);
    let over = page(&Visitor::admin(&service).await, &key).await;
    assert!(over.contains("The old secret no longer works.") && !over.contains("End the overlap now"), "{over}");
}

#[tokio::test]
async fn denials_are_on_the_page_with_reason_address_and_route() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.poll(None, 0).await;
    let (key, _) = service.key("acme", json!({})).await;
    let denial = json!({"key": id(&key), "code": "address-not-allowed", "address": "203.0.113.9", "at": NOW - 60, "method": "POST",
                        "path": "/v1/<script>"});
    let counts = json!({"key": id(&key), "hour": NOW, "denied": {"address-not-allowed": 1_234}});
    post_as_edge(
        &service,
        "/edge/v1/usage",
        json!({"worker": "w", "sequence": 1, "keys": [counts], "denials": [denial]}),
    )
    .await;
    let page = page(&Visitor::admin(&service).await, &key).await;
    for text in [
        "<code>address-not-allowed</code>",
        "isn&#39;t on the allowlist",
        "203.0.113.9",
        "POST /v1/&#60;script&#62;",
        "<strong>1,234</strong> denied",
    ] {
        assert!(page.contains(text), "{text} is not in {page}");
    }
}

#[tokio::test]
async fn a_change_s_page_shows_how_many_workers_have_it_and_which_are_behind() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.edge("/edge/v1/feed?format=1&edge=edge-1&instance=i1&max_staleness=60").await;
    let (key, _) = service.key("acme", json!({})).await;
    let visitor = Visitor::admin(&service).await;
    let path = key.replace("/v1/", "/console/");
    acknowledged(&service, [service.revision(); 2]).await;
    let before = service.revision();
    let done = visitor.post(&format!("{path}/deactivate"), &[]).await;
    let to = done.header("location").unwrap().to_owned();
    assert_eq!(to, format!("{path}?done=deactivated&revision={}", before + 1));
    acknowledged(&service, [before, before + 1]).await;
    let waiting = visitor.page(&to).await;
    for text in [
        "The key is deactivated.",
        "Not enforced everywhere yet: 1 of 2 workers of 1 edge have it.",
        "1 of 2 workers have it",
        "denies all requests from then on",
    ] {
        assert!(waiting.contains(text), "{text} is not in {waiting}");
    }
    assert!(waiting.contains(&format!("data-live=\"/console/enforcement?of={}\"", before + 1)));
    acknowledged(&service, [before + 1; 2]).await;
    let part = visitor.page(&format!("/console/enforcement?of={}", before + 1)).await;
    assert!(part.contains("Enforced on 2 of 2 workers of 1 edge") && !part.contains("data-live"), "{part}");
    // A crafted URL can't make a page state something false.
    let ahead = visitor.page(&format!("{path}?done=deactivated&revision={}", before + 1_000)).await;
    assert!(!ahead.contains("nforced"), "{ahead}");
    let unknown = visitor.page(&format!("{path}?done=%3Cb%3Epwned&revision=1")).await;
    assert!(!unknown.contains("pwned"), "{unknown}");
    assert_eq!(visitor.get("/console/enforcement?of=999999").await.status, 404);
}

#[tokio::test]
async fn an_edge_that_is_silent_is_named_and_can_be_given_up() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.edge("/edge/v1/feed?format=1&edge=edge-1&instance=i1&max_staleness=600").await;
    acknowledged(&service, [service.revision(); 2]).await;
    service.advance(31);
    let visitor = Visitor::admin(&service).await;
    let page = visitor.page("/console/edges").await;
    assert!(page.contains(">disconnected<") && page.contains("/console/edges/i1/remove"), "{page}");
    let gone = visitor.post("/console/edges/i1/remove", &[]).await;
    assert!(gone.header("location").unwrap().starts_with("/console/edges?done=edge-removed"));
    assert!(visitor.page("/console/edges").await.contains("No edges yet"));
    let (_, token) = service.token("workspace_member", Some("acme")).await;
    service.edge("/edge/v1/feed?format=1&edge=edge-1&instance=i2&max_staleness=600").await;
    service.advance(31);
    let member = Visitor::sign_in(&service, &token).await.page("/console/edges").await;
    assert!(
        member.contains("disconnected") && !member.contains("/remove") && !member.contains("<th scope=\"col\">Address")
    );
}

#[tokio::test]
async fn an_unavailable_storage_is_reported_on_a_page() {
    let service = Service::start().await;
    let visitor = Visitor::admin(&service).await;
    service.store.close().await;
    let answer = visitor.get("/console/workspaces").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (503, Some("text/html; charset=utf-8")));
    assert!(answer.text().contains("The storage is unavailable"), "{}", answer.text());
}
