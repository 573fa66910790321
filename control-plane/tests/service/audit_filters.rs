//! Audit events by who acted, from where, and when.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::harness::{ADMIN, Answer, Service};
use crate::visitor::Visitor;

/// Sends a body, of JSON or of JSON lines, from this address.
async fn from(service: &Service, address: &str, token: &str, path: &str, (kind, body): (&str, String)) -> Answer {
    let request = Request::builder().method(Method::POST).uri(path).header("content-type", kind);
    let mut request =
        request.header("authorization", format!("Bearer {token}")).body(Body::from(body)).expect("a request");
    request.extensions_mut().insert(ConnectInfo(address.parse::<IpAddr>().unwrap()));
    let answer = service.send(request).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text());
    answer
}

fn key(name: &str) -> (&'static str, String) {
    ("application/json", json!({"name": name, "expires_in": "none"}).to_string())
}

/// More pages than any filter has here: a cursor that goes back would have no last page.
const MAX_PAGES: usize = 50;

/// The names of the events' targets, over as many pages as there are; the action where there is no single target.
async fn found(service: &Service, path: &str, query: &str) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), String::new());
    for _ in 0..MAX_PAGES {
        let page = service.get(&format!("{path}?sort=at&limit=2&{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{query}: {}", page.text());
        let page = page.json();
        names.extend(page["items"].as_array().unwrap().iter().map(|event| {
            let name = event["target"]["name"].as_str().or(event["action"].as_str());
            name.unwrap().to_owned()
        }));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return names,
        }
    }
    panic!("{query}: more than {MAX_PAGES} pages, with {names:?}")
}

const OF_ALL: &str = "/v1/audit-events";
const OF_ACME: &str = "/v1/workspaces/acme/audit-events";

/// A service with a log in which each filter matches another part, created at 08:00, 08:01 and 08:02, and the id of a
/// token.
async fn log() -> (Service, String) {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let (id, token) = service.token("workspace_admin", Some("acme")).await;
    let (acme, other) = ("/v1/workspaces/acme/keys", "/v1/workspaces/other/keys");
    from(&service, "192.0.2.1", &token, acme, key("a")).await;
    from(&service, "192.0.2.1", ADMIN, acme, key("b")).await;
    from(&service, "192.0.2.1", ADMIN, other, key("x")).await;
    service.advance(60);
    from(&service, "192.0.2.200", &token, acme, key("c")).await;
    from(&service, "2001:db8::7", ADMIN, acme, key("d")).await;
    from(&service, "2001:db8::7", ADMIN, other, key("y")).await;
    service.advance(60);
    let line = json!({"digest": "00".repeat(32), "name": "e", "expires_in": "none"}).to_string();
    from(&service, "198.51.100.9", &token, &format!("{acme}/import"), ("application/jsonl", line)).await;
    (service, id)
}

#[tokio::test]
async fn events_are_found_by_who_acted_from_where_and_when() {
    let (service, id) = log().await;
    let (first, second, third) = ("2026-11-23T08:00:00Z", "2026-11-23T08:01:00Z", "2026-11-23T08:02:00Z");
    for (query, of_all, of_acme) in [
        (format!("actor={id}"), &["a", "c", "keys.import"][..], &["a", "c", "keys.import"][..]),
        ("actor=workspace_admin".to_owned(), &["a", "c", "keys.import"], &["a", "c", "keys.import"]),
        ("actor=platform-admin&action=key.create".to_owned(), &["b", "x", "d", "y"], &["b", "d"]),
        ("actor=token%20file&action=key.create".to_owned(), &["b", "x", "d", "y"], &["b", "d"]),
        ("actor=system".to_owned(), &["catalogue.define"], &[]),
        ("actor=control%20plane".to_owned(), &["catalogue.define"], &[]),
        ("actor=nobody".to_owned(), &[], &[]),
        ("address=192.0.2.1".to_owned(), &["a", "b", "x"], &["a", "b"]),
        ("address=192.0.2.0/24".to_owned(), &["a", "b", "x", "c"], &["a", "b", "c"]),
        ("address=192.0.2.0/25".to_owned(), &["a", "b", "x"], &["a", "b"]),
        ("address=2001:db8::/32".to_owned(), &["d", "y"], &["d"]),
        ("address=::ffff:192.0.2.0/120".to_owned(), &["a", "b", "x", "c"], &["a", "b", "c"]),
        ("address=0.0.0.0/0".to_owned(), &["a", "b", "x", "c", "keys.import"], &["a", "b", "c", "keys.import"]),
        ("address=203.0.113.0/24".to_owned(), &[], &[]),
        (format!("since={second}"), &["c", "d", "y", "keys.import"], &["c", "d", "keys.import"]),
        (format!("since={second}&until={third}"), &["c", "d", "y"], &["c", "d"]),
        (format!("until={second}&action=key.create"), &["a", "b", "x"], &["a", "b"]),
        (format!("until={first}"), &[], &[]),
        ("since=2026-11-23T09:01:30%2B01:00".to_owned(), &["keys.import"], &["keys.import"]),
        (format!("since=5&until={second}"), &["b", "x"], &["b"]),
        ("since=4&until=6".to_owned(), &["a", "b"], &["a", "b"]),
        (format!("actor={id}&address=192.0.2.0/24&since={second}"), &["c"], &["c"]),
    ] {
        assert_eq!(found(&service, OF_ALL, &query).await, of_all, "{query}");
        assert_eq!(found(&service, OF_ACME, &query).await, of_acme, "{query} of acme");
    }
}

#[tokio::test]
async fn an_export_has_what_the_filter_fits_and_a_sweep_is_found_too() {
    let (service, _) = log().await;
    let text = async |query: &str| {
        let accept = [("accept", "application/jsonl")];
        let export = service.call_with(Method::GET, &format!("{OF_ALL}?{query}"), Value::Null, &accept).await;
        assert_eq!(export.status, 200);
        export.text()
    };
    for (query, lines) in [("actor=workspace_admin&address=192.0.2.0/24", 2), ("since=2026-11-23T08:02:00Z", 1)] {
        assert_eq!(text(query).await.lines().count(), lines, "{query}");
    }
    let (path, _) = service.key("acme", json!({})).await;
    service.delete(&path).await;
    service.advance(400 * 86_400);
    service.sweep().await;
    let swept = found(&service, OF_ALL, "actor=system&since=2027-01-01T00:00:00Z").await;
    assert!(swept.iter().any(|action| action == "keys.forget"), "{swept:?}");
}

#[tokio::test]
async fn an_event_of_a_clock_that_was_set_back_is_found_by_its_own_instant() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.advance(3_600);
    service.key("acme", json!({"name": "an hour later"})).await;
    service.set_wall_back(3_000);
    service.key("acme", json!({"name": "set back"})).await;
    service.advance(3_600);
    service.key("acme", json!({"name": "later again"})).await;
    // Between two matching revisions there is one that doesn't match.
    let later = found(&service, OF_ALL, "since=2026-11-23T08:30:00Z").await;
    assert_eq!(later, ["an hour later", "later again"]);
    let between = found(&service, OF_ALL, "since=2026-11-23T08:05:00Z&until=2026-11-23T08:30:00Z").await;
    assert_eq!(between, ["set back"]);
    let before = found(&service, OF_ALL, "until=2026-11-23T08:30:00Z&action=key.create").await;
    assert_eq!(before, ["set back"]);
}

#[tokio::test]
async fn a_filter_that_can_not_be_read_names_its_field() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let long = format!("actor={}", "a".repeat(101));
    for (query, expected) in [
        (long.as_str(), "actor too-long"),
        ("address=here", "address not-a-network"),
        ("address=", "address not-a-network"),
        ("address=10.1.0.0/8", "address host-bits"),
        ("since=yesterday", "since out-of-range"),
        ("since=2026-11-23T08:00:00", "since out-of-range"),
        ("until=-1", "until out-of-range"),
    ] {
        for path in [OF_ALL, OF_ACME] {
            let refused = service.get(&format!("{path}?{query}")).await;
            assert_eq!((refused.status.as_u16(), refused.fields()), (422, vec![expected.to_owned()]), "{path} {query}");
        }
    }
}

#[tokio::test]
async fn the_console_s_form_filters_and_keeps_what_was_typed() {
    let (service, _) = log().await;
    let visitor = Visitor::admin(&service).await;
    let query =
        "action=&target=&actor=workspace_admin&address=192.0.2.0%2F24&since=2026-11-23T08:01&until=2026-11-23T08:02";
    for path in ["/console/audit", "/console/workspaces/acme/audit"] {
        let page = visitor.page(&format!("{path}?{query}")).await;
        assert!(page.contains(">c</span>") && !page.contains(">a</span>"), "{page}");
        for value in ["workspace_admin", "192.0.2.0/24", "2026-11-23T08:01:00", "2026-11-23T08:02:00"] {
            assert!(page.contains(&format!("value=\"{value}\"")), "{value} is not in {page}");
        }
        let export = visitor.page(&format!("{path}/export?{query}")).await;
        assert_eq!(export.lines().count(), 1, "{export}");
        let refused = visitor.get(&format!("{path}?actor=CI&address=10.1.0.0%2F8&since=yesterday")).await;
        let page = refused.text();
        assert_eq!(refused.status, 422, "{page}");
        for text in ["value=\"CI\"", "value=\"10.1.0.0/8\"", "id=\"address-error\"", "10.0.0.0/8", "id=\"since-error\""]
        {
            assert!(page.contains(text), "{text} is not in {page}");
        }
        // A parameter that no field of the form can produce isn't a typing mistake.
        assert!(!visitor.get(&format!("{path}?sort=x")).await.text().contains("<form class=\"filters\""));
    }
}
