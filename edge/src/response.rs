//! Responses that the filter sends itself: denials and the answer to readiness probes.

use policy::DenyReason;
use policy::decide::{Denial, RequiredScope};

use crate::host::Host;

/// The response header that names the reason of a denial.
const CODE: &str = "latchkey-code";

/// How long a client should wait before it retries at an edge without keys, in seconds.
const RETRY_AFTER_SECS: &str = "5";

/// The format of a denial, by the kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialFormat {
    /// problem+json, RFC 9457.
    Problem,
    /// A sentence: Envoy sends it as grpc-message, and maps the HTTP status to a grpc-status.
    Grpc,
}

impl DenialFormat {
    /// The format for a request with this content type, by Envoy's own test for gRPC.
    pub fn of(content_type: &[u8]) -> Self {
        let is_grpc =
            |start: &[u8]| content_type.strip_prefix(start).is_some_and(|rest| matches!(rest, [] | [b'+', ..]));
        if is_grpc(b"application/grpc") { Self::Grpc } else { Self::Problem }
    }
}

/// Answers a denied request: the reason and the next step, the code as a header, and a challenge on 401 (RFC 9110
/// 11.6.1).
pub fn deny(host: &dyn Host, denial: &Denial<'_>, format: DenialFormat) {
    let (reason, status) = (denial.reason, denial.reason.status());
    let mut headers = vec![(CODE, reason.code())];
    match status {
        401 => headers.push(("www-authenticate", "Bearer realm=\"latchkey\"")),
        503 => headers.push(("retry-after", RETRY_AFTER_SECS)),
        _ => {}
    }
    match format {
        DenialFormat::Grpc => host.respond(status, &headers, reason.detail().as_bytes()),
        DenialFormat::Problem => {
            headers.push(("content-type", "application/problem+json"));
            host.respond(status, &headers, problem(denial).as_bytes());
        }
    }
}

fn problem(denial: &Denial<'_>) -> String {
    let (reason, status) = (denial.reason, denial.reason.status());
    let mut problem = serde_json::json!({
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "code": reason.code(),
        "detail": reason.detail(),
    });
    if let (Some(RequiredScope { scope, level }), Some(fields)) = (denial.required, problem.as_object_mut()) {
        fields.insert("scope".to_owned(), scope.into());
        fields.insert("level".to_owned(), level.as_str().into());
    }
    problem.to_string()
}

/// Answers a readiness probe. When the Envoy is ready, the response names its instance, so that a script can retire the
/// instance before it ends this Envoy.
pub fn ready(host: &dyn Host, instance: Option<&str>, format: DenialFormat) {
    match instance {
        Some(instance) => {
            host.respond(200, &[("content-type", "text/plain"), ("latchkey-instance", instance)], b"ready\n");
        }
        None => deny(host, &Denial::anonymous(DenyReason::NotReady), format),
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
