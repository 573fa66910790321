//! A handler that panics: its client gets an answer, and the operator learns of it.

use axum::http::Method;
use serde_json::{Value, json};
use tracing::Level;

use crate::captured_log::CapturedLog;
use crate::harness::Service;
use crate::visitor::Visitor;

const ID: (&str, &str) = ("x-request-id", "from-the-test");

#[tokio::test]
async fn a_handler_that_panics_is_answered_with_500_and_counted() {
    let (logged, _guard) = CapturedLog::of_this_thread();
    let service = Service::start().await;
    service.workspace("acme").await;
    let visitor = Visitor::admin(&service).await;
    let key = json!({"name": "key", "expires_in": "none"});

    service.break_clocks(true);
    let keys = "/v1/workspaces/acme/keys";
    let rest = service.call_with(Method::POST, keys, key.clone(), &[ID]).await;
    assert_eq!((rest.status.as_u16(), rest.code().as_str()), (500, "internal"));
    assert_eq!(rest.header("x-request-id"), Some("from-the-test"));
    assert!(rest.json()["detail"].as_str().unwrap().contains("may have been made"), "{}", rest.text());

    let feed = "/edge/v1/feed?format=1&edge=edge-1&instance=i1&wait=0";
    let feed = service.call_as(crate::harness::EDGE, Method::GET, feed, Value::Null, &[ID]).await;
    assert_eq!((feed.status.as_u16(), feed.code().as_str()), (500, "internal"));
    assert_eq!(feed.header("x-request-id"), Some("from-the-test"));

    // Without an id from the client, the layer that generates one panics.
    let layer = service.post(keys, key.clone()).await;
    assert_eq!((layer.status.as_u16(), layer.code().as_str()), (500, "internal"));

    for path in ["/console/sign-in/check", "/console/workspaces"] {
        let page = visitor.get_with(path, &[ID]).await;
        assert_eq!(page.status, 500, "{path}: {}", page.text());
        assert!(page.header("content-type").unwrap().starts_with("text/html"), "{path}: {:?}", page.headers);
        assert!(page.header("content-security-policy").is_some(), "{path}: {:?}", page.headers);
        assert!(page.text().contains("from-the-test"), "{path}: {}", page.text());
        assert_eq!(page.header("x-request-id"), Some("from-the-test"), "{path}");
    }
    service.break_clocks(false);

    assert_eq!(service.post(keys, key).await.status, 201, "the next request");
    let metrics = service.get("/metrics").await.text();
    for line in [
        "latchkey_panics_total 5",
        "latchkey_log_lines_lost_total 0",
        r#"latchkey_http_requests_total{method="POST",route="/v1/workspaces/{workspace}/keys",status="500"} 1"#,
    ] {
        assert!(metrics.lines().any(|own| own == line), "no line {line} in\n{metrics}");
    }
    let errors = logged.lines(Level::ERROR);
    let named = errors.iter().filter(|line| line.contains("a handler panicked") && line.contains("from-the-test"));
    assert_eq!(named.count(), 4, "{errors:?}");
}
