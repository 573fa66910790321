//! The OpenAPI document: current, complete, and served.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};
use latchkey::api::openapi;
use serde_json::Value;

use crate::harness::{Answer, EDGE, PUBLIC_URL, Service};

/// Method, path and description of each route. The router is built from the same list, so none is missing.
fn operations() -> Vec<(String, Value)> {
    let document = openapi::document();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((format!("{} {path}", method.to_uppercase()), operation.clone()));
        }
    }
    operations
}

/// Method, path and description of each route that takes a body, or of each that takes a query.
pub(crate) fn routes_with(part: &str) -> Vec<(String, Value)> {
    let has = |operation: &Value| match part {
        "query" => operation["parameters"].as_array().unwrap().iter().any(|parameter| parameter["in"] == "query"),
        part => operation.get(part).is_some(),
    };
    operations().into_iter().filter(|(_, operation)| has(operation)).collect()
}

/// Asserts that the document has this answer of the route, and that a refusal is a problem.
pub(crate) fn assert_documented(route: &str, answer: &Answer) {
    let document = openapi::document();
    let (method, path) = route.split_once(' ').unwrap();
    let answers = &document["paths"][path][method.to_lowercase()]["responses"];
    let documented = &answers[answer.status.as_str()];
    assert!(!documented.is_null(), "{route} has no {} in the document: {}", answer.status, answer.text());
    if answer.status.is_client_error() || answer.status.is_server_error() {
        let pointer = documented["$ref"].as_str().unwrap_or_else(|| panic!("{route}: {documented}"));
        let problem = document.pointer(pointer.trim_start_matches('#')).unwrap();
        assert!(problem["content"]["application/problem+json"].is_object(), "{route}: {problem}");
        assert!(!answer.code().is_empty());
    }
}

/// Method and path of each route, as `GET /v1/workspaces/{workspace}`.
pub(crate) fn routes() -> Vec<String> {
    operations().into_iter().map(|(route, _)| route).collect()
}

#[test]
fn the_committed_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let is_current = std::fs::read_to_string(path).unwrap() == openapi::text();
    assert!(is_current, "update it: cargo run -p latchkey -- openapi > docs/openapi.json");
}

#[tokio::test]
async fn the_document_is_served_to_everybody() {
    let service = Service::start().await;
    let answer = service.send(Request::get("/openapi.json").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/json")));
    let mut expected = openapi::document();
    expected["servers"] = serde_json::json!([{"url": PUBLIC_URL}]);
    assert_eq!(answer.json(), expected);
}

#[test]
fn each_operation_documents_its_purpose_its_answer_and_its_refusals() {
    let mut ids = BTreeSet::new();
    for (route, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{route} has no operationId"));
        assert!(ids.insert(id.to_owned()), "{route}: another operation is {id}, too");
        assert!(operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{route} has no summary");
        let answers = operation["responses"].as_object().unwrap();
        let (good, refusals): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| status.starts_with('2'));
        assert_eq!(good.len(), 1, "{route} has one good answer");
        assert!(good[0].0 == "204" || good[0].1["content"].is_object(), "{route} doesn't document its answer");
        let is_guarded = route.contains(" /v1/") || route.ends_with(" /metrics");
        let refusals: Vec<_> = refusals.into_iter().map(|(status, _)| status.as_str()).collect();
        for (applies, statuses) in [
            (is_guarded, ["401", "429", "500", "503"].as_slice()),
            (is_guarded && id != "list_workspaces", &["403"]),
            (route.contains('{'), &["404"]),
            (operation.get("requestBody").is_some(), &["400", "413", "415", "422"]),
        ] {
            for status in statuses.iter().filter(|_| applies) {
                assert!(refusals.contains(status), "{route} has no problem answer {status}");
            }
        }
    }
}

/// Routes that aren't in the document: those of the feed's format, and those that only refuse or lead to the console.
/// For the console's pages, `console.rs` has a table.
const UNDOCUMENTED: [&str; 9] = [
    "/edge/v1/acknowledgements",
    "/edge/v1/usage",
    "/edge/v1/instances/{instance}",
    "/edge/v1/feed",
    "/edge/v1/snapshots/{epoch}/{revision}/{page}",
    "/",
    "/v1",
    "/v1/",
    "/edge/v1",
];

#[tokio::test]
async fn no_route_is_left_out_of_the_document() {
    let service = Service::start().await;
    let document = openapi::document();
    let documented: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let router = service.described_router();
    // The debug format has each path in quotes, whatever else it contains.
    let served: BTreeSet<_> = router
        .split('"')
        .filter(|text| text.starts_with('/') && !text.contains('*') && !text.starts_with("/console"))
        .collect();
    let known: BTreeSet<_> = documented.iter().copied().chain(UNDOCUMENTED).collect();
    assert_eq!(served, known);

    for path in documented {
        let methods = document["paths"][path].as_object().unwrap();
        for method in ["get", "post", "put", "patch", "delete"].into_iter().filter(|it| !methods.contains_key(*it)) {
            let method: Method = method.to_uppercase().parse().unwrap();
            let refused = service.call(method.clone(), &path.replace(['{', '}'], ""), Value::Null).await;
            assert_eq!(refused.code(), "method-not-allowed", "{method} {path} is not in the document");
        }
    }
}

#[test]
fn each_reference_leads_somewhere() {
    let document = openapi::document();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn answers_have_exactly_the_fields_of_their_schema() {
    use serde_json::json;
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, secret) = service.key("acme", json!({"scopes": {"reviews": "write"}})).await;
    let (admin, _) = service.token("workspace_member", Some("acme")).await;
    let edge = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "e"})).await.json();
    let document = openapi::document();
    let events = service.get("/v1/audit-events").await.json();
    let identified = service.post("/v1/keys/identify", json!({"secret": secret})).await.json();
    let missing = service.get("/v1/workspaces/nowhere").await.json();
    service.edge("/edge/v1/feed?format=1&edge=e&instance=i").await;
    let id = key.rsplit('/').next().unwrap();
    let body = json!({"edge": "e", "instance": "i", "worker": "w", "sequence": 1, "keys": [{"key": id, "hour": 1_795_420_800, "allowed": 1}],
                      "denials": [{"key": id, "code": "expired-key", "at": 1_795_420_800, "method": "GET", "path": "/"}]});
    service.call_as(EDGE, Method::POST, "/edge/v1/usage", body, &[]).await;
    let usage = service.get(&format!("{key}/usage")).await.json();
    for (schema, answer) in [
        ("Workspace", service.get("/v1/workspaces/acme").await.json()),
        ("Key", service.get(&key).await.json()),
        ("Warning", service.get(&key).await.json()["warnings"][0].clone()),
        ("Page_Key", service.get("/v1/workspaces/acme/keys").await.json()),
        ("AdminToken", service.get(&format!("/v1/admin-tokens/{admin}")).await.json()),
        ("EdgeTokenWithSecret", edge.clone()),
        ("EdgeToken", edge["token"].clone()),
        ("Usage", usage.clone()),
        ("UsageTotals", usage["totals"].clone()),
        ("UsagePeriod", usage["hours"][0].clone()),
        ("Denial", usage["denials"][0].clone()),
        ("Identified", identified),
        ("AuditEvent", events["items"][0].clone()),
        ("Actor", events["items"][0]["actor"].clone()),
    ] {
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let schema = &document["components"]["schemas"][schema];
        assert_eq!(names(&answer), names(&schema["properties"]), "{answer}");
        assert_eq!(schema["required"].as_array().unwrap().len(), names(&answer).len(), "{schema}");
    }
    let known = document["components"]["schemas"]["Problem"]["properties"].as_object().unwrap();
    assert!(missing.as_object().unwrap().keys().all(|name| known.contains_key(name)), "{missing}");
}
