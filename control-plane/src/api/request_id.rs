//! The id of each request, which links the log, the audit log and the client's records.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use policy::key_text::find_secret;
use uuid::Uuid;

use super::Api;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted from a client.
const MAX_BYTES: usize = 64;

/// The request's id, in the extensions of each request and in `X-Request-Id` of its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) String);

/// Takes the id from the request's `X-Request-Id`, so that it is the same in all proxies, or generates one.
pub(crate) async fn assign(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let id = from_request(&request).unwrap_or_else(|| generate(&api));
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    set_header(&mut response, id);
    response
}

/// The id that was assigned to the request, or was sent with it.
pub(super) fn from_request(request: &Request) -> Option<String> {
    let given =
        || request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|text| is_acceptable(text));
    match request.extensions().get() {
        Some(RequestId(id)) => Some(id.clone()),
        None => given().map(str::to_owned),
    }
}

/// A new id; empty without randomness, because only operations that need randomness have to fail then.
pub(super) fn generate(api: &Api) -> String {
    api.entropy.id::<Uuid>(&api.clock).map(|id| id.simple().to_string()).unwrap_or_default()
}

/// Sends the id to the client.
pub(super) fn set_header(response: &mut Response, id: String) {
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
}

/// Refuses an id that could break a log line, that may be a secret, even with a typo, or that contains one.
fn is_acceptable(text: &str) -> bool {
    (1..=MAX_BYTES).contains(&text.len())
        && !text.starts_with("lk")
        && find_secret(text.as_bytes()).is_none()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_request_id_is_short_plain_and_not_a_secret() {
        for (text, taken) in [
            ("0af7651916cd43dd8448eb211c80319c", true),
            ("f058ebd6-02f7-4d3f-942e-904344e8cde5", true),
            ("Root=1-67891233", false),
            ("a", true),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            ("lk_live_00000000000000000000000000000000004cjNQE", false),
            ("lk_live_000000000000000000000000000000004cjNQE", false),
            ("req-lk_live_000000000000000000000000000000004cjNQE-1", false),
            ("req-lk_live_000000000000000000000000000000004cjNQF-1", true),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(is_acceptable(text), taken, "{text:?}");
        }
    }
}
