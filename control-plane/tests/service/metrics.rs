//! GET /metrics: numbers for platform admins.

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::Service;

#[tokio::test]
async fn requests_are_counted_by_route_and_status_and_the_store_tells_its_numbers() {
    let service = Service::start().await;
    service.workspace("acme").await;
    for _ in 0..3 {
        service.key("acme", json!({})).await;
    }
    service.get("/v1/workspaces/acme").await;
    service.get("/v1/workspaces/nowhere").await;
    service.call_as("lkadm_wrong", Method::GET, "/v1/workspaces/acme", Value::Null, &[]).await;
    service.call(Method::from_bytes(b"BREW").unwrap(), "/v1/coffee", Value::Null).await;

    let answer = service.get("/metrics").await;
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = answer.text();
    for line in [
        r#"latchkey_http_requests_total{method="POST",route="/v1/workspaces/{workspace}/keys",status="201"} 3"#,
        r#"latchkey_http_requests_total{method="GET",route="/v1/workspaces/{workspace}",status="200"} 1"#,
        r#"latchkey_http_requests_total{method="GET",route="/v1/workspaces/{workspace}",status="404"} 1"#,
        r#"latchkey_http_requests_total{method="GET",route="/v1/workspaces/{workspace}",status="401"} 1"#,
        r#"latchkey_http_requests_total{method="other",route="none",status="404"} 1"#,
        r#"latchkey_http_request_duration_seconds_count{method="POST",route="/v1/workspaces/{workspace}/keys"} 3"#,
        &format!("latchkey_revision {}", service.revision()),
        "latchkey_writer_queue_depth 0",
        "latchkey_database_went_back 0",
        "latchkey_writes_total 5",
        "latchkey_commits_total 5",
        "latchkey_writes_refused_total 0",
    ] {
        assert!(text.lines().any(|own| own == line), "no line {line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    for from_a_client in ["acme", "nowhere", "coffee", "BREW", "lkadm"] {
        assert!(!text.contains(from_a_client), "{from_a_client} became a label");
    }
}
