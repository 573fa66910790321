//! HTTP/2 with request trailers: a client that sends them, and an upstream that reports them.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use h2::RecvStream;
use h2::server::SendResponse;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::connection::Response;
use crate::wait::DEADLINE;

/// Answers each request over HTTP/2 with its path, headers and trailers, as JSON.
pub struct Http2Upstream {
    pub port: u16,
    _runtime: Runtime,
}

impl Http2Upstream {
    pub fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { port, _runtime: runtime }
    }
}

async fn serve(stream: TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        tokio::spawn(report(request, respond));
    }
    Ok(())
}

async fn report(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    read(&mut body).await?;
    let trailers = body.trailers().await?.unwrap_or_default();
    let received = json!({
        "path": head.uri.path(),
        "headers": values(&head.headers),
        "trailers": values(&trailers),
    });
    let mut answer = respond.send_response(axum::http::Response::new(()), false)?;
    answer.send_data(Bytes::from(received.to_string()), true)
}

/// Config lines of a cluster to which Envoy speaks HTTP/2.
pub const HTTP2_CLUSTER: &str = "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
";

/// A POST over HTTP/2 with a body and these trailers. Returns an error if Envoy ends the stream without an answer.
pub fn post_with_trailers(
    port: u16,
    path: &str,
    headers: &[(&str, &str)],
    trailers: &[(&str, &str)],
) -> Result<Response, h2::Error> {
    let sent = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut client = client.ready().await.expect("a stream");
        let mut request = Request::post(format!("http://api.example{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (answer, mut body) = client.send_request(request.body(()).expect("a request"), false).expect("sent");
        body.send_data(Bytes::from_static(b"body"), false)?;
        let trailers = trailers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        body.send_trailers(HeaderMap::from_iter(trailers))?;
        let (head, mut body) = answer.await?.into_parts();
        let text = String::from_utf8(read(&mut body).await?).expect("UTF-8");
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Ok(Response { status: head.status.as_u16(), headers: headers.collect(), body: text })
    };
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, sent).await.expect("an answer in time") })
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        bytes.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len())?;
    }
    Ok(bytes)
}

fn values(headers: &HeaderMap) -> Value {
    let mut values: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        values.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    json!(values)
}
