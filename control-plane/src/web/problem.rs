//! Error responses as RFC 9457 `application/problem+json`: a code for programs, and for people a sentence and the next
//! step.

mod body;
mod causes;
mod edges;
mod imports;
mod limits;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::base::limit::Limit;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policy::Revision;
use serde::Serialize;
use utoipa::ToSchema;

use crate::base::public_url::PublicUrl;
use crate::operations::fields::FieldError;

/// An error response. Its detail never repeats a secret, a header or a body.
#[derive(Clone, Debug)]
pub struct Problem(Box<Content>);

#[derive(Clone, Debug)]
struct Content {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    lines: Vec<LineErrors>,
    limit: Option<Limit>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// What is wrong with one line of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LineErrors {
    /// From 1 on, blank lines counted.
    pub line: usize,
    pub errors: Vec<FieldError>,
}

/// A refusal as JSON.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    status: u16,
    /// For programs; never changes.
    code: &'a str,
    title: &'a str,
    /// For people: what is wrong, and what to do next.
    detail: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    /// For a body of JSON lines: the first 1,000 refused lines.
    #[serde(skip_serializing_if = "<[LineErrors]>::is_empty")]
    lines: &'a [LineErrors],
    /// With `limit-reached`: the limit's name in the operator's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    limit: Option<&'a str>,
    /// With `limit-reached`: the limit's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false)]
    maximum: Option<u64>,
}

/// The maximum number of lines that a response lists.
pub const MAX_SHOWN_LINES: usize = 1_000;

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Content {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            lines: Vec::new(),
            limit: None,
            header: None,
        }))
    }

    /// A limit was reached. `detail` states what to do.
    fn limit_reached(status: StatusCode, limit: Limit, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(status, "limit-reached", detail);
        problem.0.limit = Some(limit);
        problem
    }

    /// 400: the query can't be read.
    pub fn bad_query(cause: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-query", format!("the query can't be read: {}", cause.into()))
    }

    /// 401, with a challenge.
    pub fn unauthenticated(code: &'static str, detail: &'static str) -> Self {
        let challenge = match code {
            "missing-token" => "Bearer realm=\"latchkey\"",
            _ => "Bearer realm=\"latchkey\", error=\"invalid_token\"",
        };
        Self::new(StatusCode::UNAUTHORIZED, code, detail).with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// 404 for a path without a route.
    pub fn unknown_path() -> Self {
        let detail = "nothing is at this path; docs/api.md lists all paths";
        Self::new(StatusCode::NOT_FOUND, "unknown-path", detail)
    }

    pub fn unknown_workspace() -> Self {
        let detail = "no workspace has this id or slug; GET /v1/workspaces lists those you may see";
        Self::new(StatusCode::NOT_FOUND, "unknown-workspace", detail)
    }

    pub fn unknown_key() -> Self {
        let detail = "this workspace has no key with this id; it may have been deleted";
        Self::new(StatusCode::NOT_FOUND, "unknown-key", detail)
    }

    pub fn unknown_token() -> Self {
        let detail = "no token that you may see has this id; it may have been revoked";
        Self::new(StatusCode::NOT_FOUND, "unknown-token", detail)
    }

    /// 404: there is no such secret, or the principal may not see it. Repeats nothing of the request.
    pub fn unknown_secret() -> Self {
        let detail =
            "no key or token that you may see has or recently had this secret; check that its text is complete";
        Self::new(StatusCode::NOT_FOUND, "unknown-secret", detail)
    }

    /// 403. `may` is what a sufficient token may do: "manage keys".
    pub fn forbidden(may: &str) -> Self {
        let detail = format!("your token's role does not allow this; use a token that may {may}");
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 403: the token may not be used from this address; `None`: a Unix socket.
    pub fn token_address_not_allowed(from: Option<IpAddr>) -> Self {
        let from = from.map_or_else(|| "a Unix socket".to_owned(), |from| from.to_string());
        let detail = format!("your token may not be used from {from}; use it from a network in its `ip_allowlist`");
        Self::new(StatusCode::FORBIDDEN, "address-not-allowed", detail)
    }

    /// 403: the token has the permission in its workspace, but not for the whole platform.
    pub fn forbidden_in_workspace(may: &str) -> Self {
        let detail = format!("your token is bound to a workspace; use a token that may {may} on the whole platform");
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 403: a new token would have a role that its creator's role does not include.
    pub fn role_not_included() -> Self {
        let detail = "a token may only create tokens with permissions that it has itself; use one whose role includes \
                      the new token's role";
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: a revision that does not exist yet.
    pub fn unknown_revision(head: Revision) -> Self {
        let detail = format!("the newest revision is {head}; use the `Latchkey-Revision` of a change's response");
        Self::new(StatusCode::NOT_FOUND, "unknown-revision", detail)
    }

    /// 405; the router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        let detail = "this path does not support the method; the `Allow` header lists those that it supports";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
    }

    /// 409: another workspace has the slug.
    pub fn slug_taken(errors: Vec<FieldError>) -> Self {
        let detail = "another workspace has this slug; choose a different one";
        let mut problem = Self::new(StatusCode::CONFLICT, "slug-taken", detail);
        problem.0.errors = errors;
        problem
    }

    /// 403: a form that was not sent by a page of the console's own address.
    pub fn foreign_form(public_url: &PublicUrl) -> Self {
        let detail = format!(
            "this form was not sent from {public_url}, which is the console's address; open the console there, or ask \
             an operator to start the control plane with the --public-url that people use"
        );
        Self::new(StatusCode::FORBIDDEN, "foreign-form", detail)
    }

    /// 403: a form of another session.
    pub fn stale_form() -> Self {
        let detail = "this form belongs to another session, so nothing was changed; open the page again";
        Self::new(StatusCode::FORBIDDEN, "stale-form", detail)
    }

    /// 415 for a form.
    pub fn not_form_type() -> Self {
        let detail = "send the form as `application/x-www-form-urlencoded`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
    }

    /// 400: an invalid `Idempotency-Key` header.
    pub fn invalid_idempotency_key(code: &'static str, message: &str) -> Self {
        let detail = format!("`Idempotency-Key` {message}");
        Self::new(StatusCode::BAD_REQUEST, "invalid-idempotency-key", detail).with_field(
            "Idempotency-Key",
            code,
            message,
        )
    }

    /// 409: a request with the same idempotency key is in flight.
    pub fn in_progress() -> Self {
        let detail = "a request with this `Idempotency-Key` is still running; send the same request again in a moment";
        Self::new(StatusCode::CONFLICT, "in-progress", detail).with_header(header::RETRY_AFTER, "1")
    }

    /// 422: an idempotency key that another request used.
    pub fn idempotency_key_reused() -> Self {
        let detail = "a different request with this `Idempotency-Key` made its change in the last 24 hours; send a new \
                      idempotency key with each change";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail)
    }

    /// 409: a form that was sent before.
    pub fn made_before() -> Self {
        let detail = "this form was sent before, and its change was made; a secret is shown only once";
        Self::new(StatusCode::CONFLICT, "made-before", detail)
    }

    /// 422 with the wrong fields. One code takes precedence over the others, because programs check for it: a key's
    /// expiration can't be changed.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let is_expiration = errors.iter().any(|error| error.code == "expiration-immutable");
        let (code, detail) = if is_expiration {
            (
                "expiration-immutable",
                "a key's expiration can't be changed; create another key, and delete this one".to_owned(),
            )
        } else {
            let sentences: Vec<_> = errors.iter().map(|error| format!("`{}` {}", error.field, error.message)).collect();
            ("invalid-fields", sentences.join("; "))
        };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
        problem.0.errors = errors;
        problem
    }

    /// 422: digests of an import are taken, and the principal may not learn which. Nothing was imported.
    pub fn refused_digests() -> Self {
        let detail = "some digests are refused, so nothing was imported; ask a platform admin to send the same import, whose \
             response lists the lines";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused-lines", detail)
    }

    /// 429: a workspace's imports were refused too often because their digests are taken.
    pub fn too_many_refused_imports(wait_secs: u64) -> Self {
        let detail = format!(
            "too many imports into this workspace were refused because their digests are taken; try again in \
             {wait_secs} s, or ask a platform admin to import them"
        );
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-refused-imports", detail);
        problem.0.header = Some((header::RETRY_AFTER, HeaderValue::from(wait_secs)));
        problem
    }

    /// 429: too many wrong tokens from one address.
    pub fn too_many_attempts(wait_secs: u64) -> Self {
        let detail = format!(
            "too many invalid tokens came from this address; try again in {wait_secs} s; a valid token is never refused"
        );
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", detail);
        problem.0.header = Some((header::RETRY_AFTER, HeaderValue::from(wait_secs)));
        problem
    }

    /// 500: a fault of the control plane. The cause is in the log.
    pub fn fault() -> Self {
        let detail = "nothing was changed; the control plane's log has the cause; please report it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// 500: a handler panicked. Whether its change was committed is unknown.
    pub fn panicked() -> Self {
        let detail = "a change may have been made or not; check before you repeat it; the control plane's log has the \
                      cause, under this response's X-Request-Id; please report it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// 503: the request took too long.
    pub fn timeout() -> Self {
        let detail = "the request took too long; a change may have been made or not; check before you repeat it";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail)
    }

    pub fn code(&self) -> &'static str {
        self.0.code
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// An additional header of the response, such as `Retry-After`.
    pub fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        self.0.header.clone()
    }

    /// The status's reason phrase. RFC 9457 (section 4.2.1) recommends it where a problem has no `type`.
    pub fn title(&self) -> &'static str {
        title(self.0.status)
    }

    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What is wrong with fields.
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// Leaves out a value that a header can't hold.
    fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.0.header = HeaderValue::from_str(value).ok().map(|value| (name, value));
        self
    }

    fn with_field(mut self, field: &str, code: &'static str, message: &str) -> Self {
        self.0.errors.push(FieldError::new(field, code, message));
        self
    }
}

/// The reason phrase of RFC 9110; `http` has older ones for two statuses.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
        StatusCode::UNPROCESSABLE_ENTITY => "Unprocessable Content",
        other => other.canonical_reason().unwrap_or_default(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let problem = self.clone();
        let Content { status, code, detail, errors, lines, limit, header } = *self.0;
        let body = Body {
            status: status.as_u16(),
            code,
            title: title(status),
            detail: &detail,
            errors: &errors,
            lines: &lines,
            limit: limit.map(|limit| limit.name),
            maximum: limit.map(|limit| limit.maximum),
        };
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let mut response = (status, kind, header.map(|header| [header]), json).into_response();
        // For the layer that renders it as a page.
        response.extensions_mut().insert(problem);
        response
    }
}
