//! Forms of the console's own pages: their values are accessible only after the origin and the CSRF token are checked.

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use policy::Digest;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::session::ConsoleSession;
use crate::api::Api;
use crate::base::secret::Secret;
use crate::operations::fields::Fields;
use crate::store::OnceKey;
use crate::web::problem::Problem;

/// The maximum size of a form.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The field with the CSRF token, in each form of a session.
const CSRF_FIELD: &str = "csrf";

/// The field with the nonce, in forms that take effect only once.
const NONCE_FIELD: &str = "nonce";

/// The maximum length of a nonce, in characters; ours have 32.
const MAX_NONCE: usize = 64;

/// The CSRF token of a session, derived from the cookie's text, which no script and no other site can read.
#[derive(Clone)]
pub(super) struct CsrfToken(String);

impl CsrfToken {
    pub(super) fn of(session: &Secret) -> Self {
        let digest = Digest::of(format!("latchkey console form {}", session.expose()).as_bytes());
        Self(digest.0.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// For the hidden field.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    fn matches(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

/// The values of a form from a page of the same session. Only the extractor can build one.
pub(super) struct VerifiedForm(Values);

/// The values of a form from a page at our own address, without a session.
pub(super) struct SameOriginForm(Values);

type Values = Vec<(String, String)>;

impl VerifiedForm {
    /// The value of a field; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        first(&self.0, name)
    }

    /// Whether the form has a field that isn't empty.
    pub(super) fn has(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// The idempotency key of the form's change, which is made only once, however often the form is sent.
    pub(super) fn once_key(&self) -> Result<OnceKey, Problem> {
        let nonce = self.text(NONCE_FIELD);
        // Bound to the session, so that one session can't use up another's nonce.
        let name = || Digest::of(format!("{} {nonce}", self.text(CSRF_FIELD)).as_bytes());
        let key = || OnceKey { name: name(), body: None };
        (1..=MAX_NONCE).contains(&nonce.len()).then(key).ok_or_else(Problem::stale_form)
    }

    /// These fields as REST expects them: text; empty fields are left out.
    pub(super) fn fields(&self, names: &[&str]) -> Map<String, Value> {
        let present = names.iter().filter(|name| self.has(name));
        present.map(|name| ((*name).to_owned(), Value::from(self.text(name)))).collect()
    }
}

impl SameOriginForm {
    /// As [`VerifiedForm::text`].
    pub(super) fn text(&self, name: &str) -> &str {
        first(&self.0, name)
    }
}

/// Adds a field even if it is empty, so that it can be refused.
pub(super) fn with_field(mut input: Map<String, Value>, name: &str, value: impl Into<Value>) -> Map<String, Value> {
    input.insert(name.to_owned(), value.into());
    input
}

/// The fields as REST's functions read them.
pub(super) fn fields(input: Map<String, Value>) -> Fields {
    Fields::new(input)
}

/// The instant of a day and a time, UTC, as browsers send them.
pub(super) fn instant_of(text: &str) -> String {
    // Browsers leave out seconds that are 0.
    if text.len() == "2027-01-31T12:00".len() { format!("{text}:00Z") } else { format!("{text}Z") }
}

fn first<'a>(values: &'a Values, name: &str) -> &'a str {
    values.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
}

impl FromRequest<Api> for VerifiedForm {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let csrf = request
            .extensions()
            .get::<ConsoleSession>()
            .map(|session| session.csrf.clone())
            .ok_or_else(Problem::fault)?;
        let values = read_form(request, api).await?;
        if csrf.matches(first(&values, CSRF_FIELD)) { Ok(Self(values)) } else { Err(Problem::stale_form()) }
    }
}

impl FromRequest<Api> for SameOriginForm {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        read_form(request, api).await.map(Self)
    }
}

/// The values of a form, if its origin, type and size are right.
async fn read_form(request: Request, api: &Api) -> Result<Values, Problem> {
    if !is_same_origin(api, request.headers()) {
        return Err(Problem::foreign_form(&api.public_url));
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Problem::not_form_type());
    }
    let body = to_bytes(request.into_body(), MAX_BODY_BYTES).await;
    let bytes = body.map_err(|_| Problem::too_large(MAX_BODY_BYTES))?;
    Ok(form_urlencoded::parse(&bytes).into_owned().collect())
}

/// Whether a page at our own address sent the request, by `Origin`, or by `Sec-Fetch-Site` if a browser omits that.
/// Without either header it is false.
fn is_same_origin(api: &Api, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match text(header::ORIGIN) {
        Some(origin) => api.public_url.is_origin(origin),
        None => text(header::HeaderName::from_static("sec-fetch-site")) == Some("same-origin"),
    }
}
