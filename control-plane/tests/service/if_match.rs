//! `If-Match`: no route changes an object that was changed in the meantime.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Service};
use crate::openapi::{assert_documented, routes_with};

/// Paths of objects that have an ETag, according to the document.
fn tagged() -> BTreeSet<String> {
    let shown = routes_with("responses").into_iter().filter_map(|(route, operation)| {
        let path = route.strip_prefix("GET ")?.to_owned();
        let has_tag = operation["responses"]["200"]["headers"].get("ETag").is_some();
        has_tag.then_some(path)
    });
    shown.collect()
}

/// Each route that changes one of those: at its own path, or an action below. A path with its own GET is another
/// object.
fn changing() -> Vec<(String, String)> {
    let tagged = tagged();
    let all: BTreeSet<_> = routes_with("responses").into_iter().map(|(route, _)| route).collect();
    let changes = all.iter().filter_map(|route| {
        let (method, path) = route.split_once(' ')?;
        let thing = if tagged.contains(path) { path } else { path.rsplit_once('/')?.0 };
        let is_change = method != "GET" && tagged.contains(thing);
        let is_own = tagged.contains(path) || !all.contains(&format!("GET {path}"));
        (is_change && is_own).then(|| (route.clone(), thing.to_owned()))
    });
    changes.collect()
}

/// Makes an object that is shown at this path; returns its path.
async fn made(service: &Service, thing: &str, number: usize) -> String {
    let token = async |path: &str, body: Value| {
        let made = service.post(path, body).await.json();
        format!("{path}/{}", made["token"]["id"].as_str().unwrap())
    };
    match thing {
        "/v1/workspaces/{workspace}" => {
            format!("/v1/workspaces/{}", service.workspace(&format!("w-{number}")).await)
        }
        "/v1/workspaces/{workspace}/keys/{key}" => service.key("acme", json!({})).await.0,
        "/v1/admin-tokens/{token}" => token("/v1/admin-tokens", json!({"name": "a", "role": "platform_admin"})).await,
        "/v1/edge-tokens/{token}" => token("/v1/edge-tokens", json!({"name": "e", "edge": "e"})).await,
        other => panic!("{other} has an ETag: say here how one is made, so that its changes are tried with If-Match"),
    }
}

#[tokio::test]
async fn each_change_of_a_thing_with_an_etag_honours_if_match() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let routes = changing();
    for (number, (route, thing)) in routes.iter().enumerate() {
        let (method, template) = route.split_once(' ').unwrap();
        let path = made(&service, thing, number).await;
        let at = format!("{path}{}", template.strip_prefix(thing.as_str()).unwrap());
        let send = async |tag: &str| -> Answer {
            let body = if method == "PATCH" { json!({"name": "another"}) } else { Value::Null };
            let method: Method = method.parse().unwrap();
            let answer = service.call_with(method, &at, body, &[("if-match", tag)]).await;
            assert_documented(route, &answer);
            answer
        };
        let (tag, revision) = (service.get(&path).await.header("etag").unwrap().to_owned(), service.revision());
        for stale in ["\"0\"", "\"1\", \"2\"", &format!("W/{tag}"), ""] {
            let refused = send(stale).await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (412, "stale"), "{route} {stale:?}");
        }
        assert_eq!(service.revision(), revision, "{route} changed something");
        let changed = send(&format!("\"0\", {tag}")).await;
        assert!(changed.status.is_success(), "{route}: {}", changed.text());
        let parameters =
            routes_with("responses").into_iter().find(|(own, _)| own == route).unwrap().1["parameters"].clone();
        let names: Vec<_> = parameters.as_array().unwrap().iter().map(|parameter| &parameter["name"]).collect();
        assert!(names.contains(&&json!("If-Match")), "{route} has no If-Match in the document: {names:?}");
    }
    // The routes that the contract names, so that the loop above can't have missed one.
    let routes: Vec<_> = routes.into_iter().map(|(route, _)| route).collect();
    for route in [
        "PATCH /v1/workspaces/{workspace}",
        "PATCH /v1/workspaces/{workspace}/keys/{key}",
        "DELETE /v1/workspaces/{workspace}/keys/{key}",
        "POST /v1/workspaces/{workspace}/keys/{key}/rotate",
        "POST /v1/workspaces/{workspace}/keys/{key}/end-overlap",
        "POST /v1/workspaces/{workspace}/keys/{key}/activate",
        "POST /v1/workspaces/{workspace}/keys/{key}/deactivate",
        "DELETE /v1/admin-tokens/{token}",
        "DELETE /v1/edge-tokens/{token}",
    ] {
        assert!(routes.contains(&route.to_owned()), "{route} is not among {routes:?}");
    }
}

#[tokio::test]
async fn a_stale_repeat_is_refused_though_it_would_change_nothing() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (path, _) = service.key("acme", json!({})).await;
    let tag = service.get(&path).await.header("etag").unwrap().to_owned();
    let deactivate = async || {
        let headers = [("if-match", tag.as_str())];
        service.call_with(Method::POST, &format!("{path}/deactivate"), Value::Null, &headers).await.status.as_u16()
    };
    assert_eq!((deactivate().await, deactivate().await), (200, 412));
}
