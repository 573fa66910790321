//! The answers that the filter gives itself.

use policy::DenyReason;

use crate::host::Host;

/// The response header that names the reason of a denial.
const CODE: &str = "latchkey-code";

/// How long a client should wait before it asks an edge without keys again, in seconds.
const RETRY_AFTER_SECS: &str = "5";

/// Answers a denied request: problem+json (RFC 9457), the code as a header, and a challenge on 401 (RFC 9110 11.6.1).
pub fn deny(host: &dyn Host, reason: DenyReason<'_>) {
    let status = reason.status();
    let mut problem = serde_json::json!({
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "code": reason.code(),
        "detail": reason.detail(),
    });
    if let (DenyReason::MissingScope { scope, level }, Some(fields)) = (reason, problem.as_object_mut()) {
        fields.insert("scope".to_owned(), scope.into());
        fields.insert("level".to_owned(), level.as_str().into());
    }
    let mut headers = vec![("content-type", "application/problem+json"), (CODE, reason.code())];
    match status {
        401 => headers.push(("www-authenticate", "Bearer realm=\"latchkey\"")),
        503 => headers.push(("retry-after", RETRY_AFTER_SECS)),
        _ => {}
    }
    host.respond(status, &headers, problem.to_string().as_bytes());
}

/// Answers a readiness probe.
pub fn ready(host: &dyn Host, is_ready: bool) {
    if is_ready {
        host.respond(200, &[("content-type", "text/plain")], b"ready\n");
    } else {
        deny(host, DenyReason::NotReady);
    }
}

fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        _ => "Service Unavailable",
    }
}
