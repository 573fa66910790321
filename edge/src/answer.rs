//! The answers that the filter gives itself.

use policy::DenyReason;

use crate::host::Host;

/// The response header that names the reason of a denial.
const CODE: &str = "latchkey-code";

/// How long a client should wait before it asks an edge without keys again, in seconds.
const RETRY_AFTER_SECS: &str = "5";

/// What a client of this kind reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// problem+json, RFC 9457.
    Problem,
    /// A sentence: Envoy makes it the grpc-message, and maps the status to a grpc-status.
    Grpc,
}

impl Form {
    /// The form for a request with this content type; Envoy's own test of what is gRPC.
    pub fn of(content_type: &[u8]) -> Self {
        let is_grpc =
            |start: &[u8]| content_type.strip_prefix(start).is_some_and(|rest| matches!(rest, [] | [b'+', ..]));
        if is_grpc(b"application/grpc") { Self::Grpc } else { Self::Problem }
    }
}

/// Answers a denied request: why and what to do, the code as a header, and a challenge on 401 (RFC 9110 11.6.1).
pub fn deny(host: &dyn Host, reason: DenyReason<'_>, form: Form) {
    let status = reason.status();
    let mut headers = vec![(CODE, reason.code())];
    match status {
        401 => headers.push(("www-authenticate", "Bearer realm=\"latchkey\"")),
        503 => headers.push(("retry-after", RETRY_AFTER_SECS)),
        _ => {}
    }
    match form {
        Form::Grpc => host.respond(status, &headers, reason.detail().as_bytes()),
        Form::Problem => {
            headers.push(("content-type", "application/problem+json"));
            host.respond(status, &headers, problem(reason).as_bytes());
        }
    }
}

fn problem(reason: DenyReason<'_>) -> String {
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
    problem.to_string()
}

/// Answers a readiness probe. When all is ready it names the instance, which whoever ends this Envoy retires before.
pub fn ready(host: &dyn Host, instance: Option<&str>, form: Form) {
    match instance {
        Some(instance) => {
            host.respond(200, &[("content-type", "text/plain"), ("latchkey-instance", instance)], b"ready\n");
        }
        None => deny(host, DenyReason::NotReady, form),
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
