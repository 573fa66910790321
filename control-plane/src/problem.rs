//! Error answers as RFC 9457 `application/problem+json`: a code for programs, and for people a sentence with what to
//! do.

mod body;
mod causes;
mod edges;
mod imports;
mod limits;
#[cfg(test)]
mod tests;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policy::Revision;
use serde::Serialize;
use utoipa::ToSchema;

use crate::public_url::PublicUrl;

/// An error answer. Its detail never repeats a secret, a header or a body.
#[derive(Clone, Debug)]
pub struct Problem(Box<Content>);

#[derive(Clone, Debug)]
struct Content {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    lines: Vec<LineErrors>,
    limit: Option<Limit>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name in the operator's file.
    pub name: &'static str,
    pub maximum: u64,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    pub field: String,
    pub code: &'static str,
    pub message: String,
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
    /// For people: what is wrong, and what to do.
    detail: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    /// Where a body has one thing a line: the first 1,000 that are refused.
    #[serde(skip_serializing_if = "<[LineErrors]>::is_empty")]
    lines: &'a [LineErrors],
    /// With `limit-reached`: the limit's name in the operator's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    limit: Option<&'a str>,
    /// And what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false)]
    maximum: Option<u64>,
}

/// The most lines that an answer lists.
pub const MAX_SHOWN_LINES: usize = 1_000;

impl FieldError {
    /// A digest that is refused. Gives no reason, so that nobody learns whether it is known here.
    pub fn refused_digest() -> Self {
        Self { field: "digest".to_owned(), code: "refused", message: "is refused".to_owned() }
    }
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Content {
            status,
            code,
            title,
            detail: detail.into(),
            errors: Vec::new(),
            lines: Vec::new(),
            limit: None,
            header: None,
        }))
    }

    /// A limit was reached. `detail` states what to do.
    fn limit_reached(status: StatusCode, limit: Limit, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(status, "limit-reached", "A limit is reached", detail);
        problem.0.limit = Some(limit);
        problem
    }

    /// 400: the query can't be read.
    pub fn bad_query(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-query", "The query can't be read", detail)
    }

    /// 401, with a challenge.
    pub fn unauthenticated(code: &'static str, detail: &'static str) -> Self {
        let challenge = match code {
            "missing-token" => "Bearer realm=\"latchkey\"",
            _ => "Bearer realm=\"latchkey\", error=\"invalid_token\"",
        };
        Self::new(StatusCode::UNAUTHORIZED, code, "A valid token is needed", detail)
            .with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// 404 for a path that nothing answers.
    pub fn unknown_path() -> Self {
        let detail = "nothing answers at this path; docs/api.md lists those that are";
        Self::new(StatusCode::NOT_FOUND, "unknown-path", "There is nothing here", detail)
    }

    pub fn unknown_workspace() -> Self {
        let detail = "no workspace has this id or slug; GET /v1/workspaces lists those you may see";
        Self::new(StatusCode::NOT_FOUND, "unknown-workspace", "There is no such workspace", detail)
    }

    pub fn unknown_key() -> Self {
        let detail = "this workspace has no key with this id; it may have been deleted";
        Self::new(StatusCode::NOT_FOUND, "unknown-key", "There is no such key", detail)
    }

    pub fn unknown_token() -> Self {
        let detail = "no token that you may see has this id; it may have been revoked";
        Self::new(StatusCode::NOT_FOUND, "unknown-token", "There is no such token", detail)
    }

    /// 404: the principal may see no such secret. Repeats nothing of the request.
    pub fn unknown_secret() -> Self {
        let detail = "nothing that you may see has, or lately had, this secret";
        Self::new(StatusCode::NOT_FOUND, "unknown-secret", "The secret is not known here", detail)
    }

    /// 403. `whose` token would suffice.
    pub fn forbidden(whose: &'static str) -> Self {
        let detail = format!("your token's role does not reach this; it takes {whose} token");
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This is not yours to do", detail)
    }

    /// 404: a revision that does not exist yet.
    pub fn unknown_revision(head: Revision) -> Self {
        let detail = format!("the newest revision is {head}; changes say theirs in `Latchkey-Revision`");
        Self::new(StatusCode::NOT_FOUND, "unknown-revision", "There is no such revision", detail)
    }

    /// 405; the router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        let detail = "this path takes other methods; the `Allow` header lists them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This method does not go here", detail)
    }

    /// 409: another workspace has the slug.
    pub fn slug_taken() -> Self {
        let detail = "another workspace has this slug; choose a different one";
        Self::new(StatusCode::CONFLICT, "slug-taken", "The slug is taken", detail).with_field(
            "slug",
            "slug-taken",
            detail,
        )
    }

    /// 403: a form that was not sent by a page of the console's own address.
    pub fn foreign_form(public_url: &PublicUrl) -> Self {
        let detail = format!(
            "this form was not sent by a page at {public_url}, where this console is; open it there, or have the control \
             plane started with the --public-url that people use"
        );
        Self::new(StatusCode::FORBIDDEN, "foreign-form", "The form came from elsewhere", detail)
    }

    /// 403: a form of another session.
    pub fn stale_form() -> Self {
        let detail = "this form belongs to another sign-in; nothing was changed; open the page again";
        Self::new(StatusCode::FORBIDDEN, "stale-form", "The form is not valid any more", detail)
    }

    /// 415 for a form.
    pub fn not_form_type() -> Self {
        let detail = "a form is sent as application/x-www-form-urlencoded";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body's type is not taken", detail)
    }

    /// 400: an invalid `Idempotency-Key` header.
    pub fn invalid_idempotency_key(code: &'static str, message: &str) -> Self {
        let detail = format!("`Idempotency-Key` {message}");
        Self::new(StatusCode::BAD_REQUEST, "invalid-idempotency-key", "The idempotency key doesn't fit", detail)
            .with_field("Idempotency-Key", code, message)
    }

    /// 409: a request with the same idempotency key has no answer yet.
    pub fn in_progress() -> Self {
        let detail = "a request with this `Idempotency-Key` is still running; send the same again in a moment";
        Self::new(StatusCode::CONFLICT, "in-progress", "The request is in progress", detail)
            .with_header(header::RETRY_AFTER, "1")
    }

    /// 422: an idempotency key that another request used.
    pub fn idempotency_key_reused() -> Self {
        let detail = "another request was sent with this `Idempotency-Key` in the last 24 hours, and made its change; send \
                      a different one with each change";
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The idempotency key was used before",
            detail,
        )
    }

    /// 409: a form that was sent before.
    pub fn made_before() -> Self {
        let detail = "this form was sent before, and did what it says; a secret is shown once";
        Self::new(StatusCode::CONFLICT, "made-before", "This was done already", detail)
    }

    /// 422 with the wrong fields. One code takes precedence over the others, because programs check for it: a key's
    /// expiration can't be changed.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let is_expiration = errors.iter().any(|error| error.code == "expiration-immutable");
        let (code, title, detail) = if is_expiration {
            (
                "expiration-immutable",
                "A key's expiration can't be changed",
                "the expiration is fixed when a key is made; create another key, and delete this one".to_owned(),
            )
        } else {
            let sentences: Vec<_> = errors.iter().map(|error| format!("`{}` {}", error.field, error.message)).collect();
            ("invalid-fields", "Some values don't fit", sentences.join("; "))
        };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, title, detail);
        problem.0.errors = errors;
        problem
    }

    /// 422: digests of an import are taken, and the principal may not learn which. Nothing was done.
    pub fn refused_digests() -> Self {
        let detail =
            "some digests are refused, so nothing was done; a platform admin who sends the same learns which lines";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused-lines", "Some lines are refused", detail)
    }

    /// 429: a workspace's imports were refused too often for digests that are taken.
    pub fn too_many_refused_imports(wait_secs: u64) -> Self {
        let detail = format!(
            "too many imports into this workspace were refused for digests that are taken; try again in {wait_secs} s, or \
             ask a platform admin to import them"
        );
        let title = "Too many refused imports";
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-refused-imports", title, detail);
        problem.0.header = Some((header::RETRY_AFTER, HeaderValue::from(wait_secs)));
        problem
    }

    /// 429: too many wrong tokens from one address.
    pub fn too_many_attempts(wait_secs: u64) -> Self {
        let detail = format!(
            "too many wrong tokens came from this address; try again in {wait_secs} s; a right one is taken at once"
        );
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", "Too many attempts", detail);
        problem.0.header = Some((header::RETRY_AFTER, HeaderValue::from(wait_secs)));
        problem
    }

    /// 500: a fault of the control plane. The cause is in the log.
    pub fn fault() -> Self {
        let detail = "nothing was changed; the control plane's log says why; please report it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The control plane is at fault", detail)
    }

    /// 500: a handler panicked, and how far it came is unknown.
    pub fn panicked() -> Self {
        let detail = "a change may have been made or not: look before you repeat it; the control plane's log says why, under \
                      this answer's X-Request-Id; please report it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The control plane is at fault", detail)
    }

    /// 503: the request took too long.
    pub fn timeout() -> Self {
        let detail = "no answer in time; a change may have been made or not: look before you repeat it";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "The request took too long", detail)
    }

    pub fn code(&self) -> &'static str {
        self.0.code
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// An additional header of the answer, such as `Retry-After`.
    pub fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        self.0.header.clone()
    }

    pub fn title(&self) -> &'static str {
        self.0.title
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
        self.0.errors.push(FieldError { field: field.to_owned(), code, message: message.to_owned() });
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let told = self.clone();
        let Content { status, code, title, detail, errors, lines, limit, header } = *self.0;
        let body = Body {
            status: status.as_u16(),
            code,
            title,
            detail: &detail,
            errors: &errors,
            lines: &lines,
            limit: limit.map(|limit| limit.name),
            maximum: limit.map(|limit| limit.maximum),
        };
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let mut response = (status, kind, header.map(|header| [header]), json).into_response();
        // For the layer that renders it in another form.
        response.extensions_mut().insert(told);
        response
    }
}
