//! An upstream that answers each request with what it received.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Json;
use axum::body::Bytes;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use clap::Parser;
use serde_json::json;

/// Answers each request with its method, path, headers and the size of its body, as JSON. A request with the header
/// `x-echo-redirect` is redirected there. `/echo/seen` answers how many other requests there were.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen } = Arguments::parse();
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(listener, axum::Router::new().fallback(echo)).await?;
    Ok(())
}

static SEEN: AtomicU64 = AtomicU64::new(0);

async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if uri.path() == "/echo/seen" {
        return Json(json!(SEEN.load(Ordering::SeqCst))).into_response();
    }
    SEEN.fetch_add(1, Ordering::SeqCst);
    // Envoy repeats the header when it follows the redirect, so only a request for another path is redirected.
    if let Some(to) = headers.get("x-echo-redirect").filter(|to| !to.as_bytes().ends_with(uri.path().as_bytes())) {
        return (StatusCode::FOUND, [(LOCATION, to.clone())]).into_response();
    }
    let mut received: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &headers {
        received.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    Json(json!({
        "method": method.as_str(),
        "path": uri.to_string(),
        "headers": received,
        "body_bytes": body.len(),
    }))
    .into_response()
}
