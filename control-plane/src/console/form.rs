//! Forms from the console's own pages. Their values are accessible only after that is proven.

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use policy::Digest;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::session::Visit;
use crate::api::Api;
use crate::api::fields::Fields;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::store::Once;

/// The maximum size of a form.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The field with the CSRF token, in each form of a session.
const CSRF_FIELD: &str = "csrf";

/// The field with the nonce, in forms whose change is made only once.
const NONCE_FIELD: &str = "nonce";

/// The maximum length of a nonce, in characters; ours have 32.
const MAX_NONCE: usize = 64;

/// The CSRF token of a session, derived from the cookie's text, which no script and no other site can read.
#[derive(Clone)]
pub(super) struct Csrf(String);

impl Csrf {
    pub(super) fn of(session: &Secret) -> Self {
        let digest = Digest::of(format!("latchkey console form {}", session.expose()).as_bytes());
        Self(digest.0.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// For the hidden field.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// The values of a form from a page of the same session. Only the extractor makes one.
pub(super) struct Posted(Values);

/// The values of a form from one of our pages, without a session.
pub(super) struct PostedByAnyone(Values);

type Values = Vec<(String, String)>;

impl Posted {
    /// The value of a field; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        first(&self.0, name)
    }

    /// Whether the form has a field that isn't empty.
    pub(super) fn has(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// Names the form's change, so that it is made only once, however often the form is sent.
    pub(super) fn once(&self) -> Result<Once, Problem> {
        let nonce = self.text(NONCE_FIELD);
        // Bound to the session, so that one session can't use up another's nonce.
        let name = || Digest::of(format!("{} {nonce}", self.text(CSRF_FIELD)).as_bytes());
        let named = || Once { name: name(), body: None };
        (1..=MAX_NONCE).contains(&nonce.len()).then(named).ok_or_else(Problem::stale_form)
    }

    /// These fields as REST expects them: text; empty fields are left out.
    pub(super) fn fields(&self, names: &[&str]) -> Map<String, Value> {
        let given = names.iter().filter(|name| self.has(name));
        given.map(|name| ((*name).to_owned(), Value::from(self.text(name)))).collect()
    }
}

impl PostedByAnyone {
    /// As [`Posted::text`].
    pub(super) fn text(&self, name: &str) -> &str {
        first(&self.0, name)
    }
}

/// Adds a field even if it is empty, so that it can be refused.
pub(super) fn with(mut given: Map<String, Value>, name: &str, value: impl Into<Value>) -> Map<String, Value> {
    given.insert(name.to_owned(), value.into());
    given
}

/// The fields as REST's functions read them.
pub(super) fn fields(given: Map<String, Value>) -> Fields {
    Fields::new(given)
}

/// The instant of a day and a time, UTC, as browsers send them.
pub(super) fn instant_of(text: &str) -> String {
    // Browsers leave out seconds that are 0.
    if text.len() == "2027-01-31T12:00".len() { format!("{text}:00Z") } else { format!("{text}Z") }
}

fn first<'a>(values: &'a Values, name: &str) -> &'a str {
    values.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
}

impl FromRequest<Api> for Posted {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let csrf = request.extensions().get::<Visit>().map(|visit| visit.csrf.clone()).ok_or_else(Problem::fault)?;
        let values = values(request, api).await?;
        if csrf.is(first(&values, CSRF_FIELD)) { Ok(Self(values)) } else { Err(Problem::stale_form()) }
    }
}

impl FromRequest<Api> for PostedByAnyone {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        values(request, api).await.map(Self)
    }
}

async fn values(request: Request, api: &Api) -> Result<Values, Problem> {
    if !is_of_our_page(api, request.headers()) {
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

/// Whether a page at our own address sent this, by `Origin`, or by `Sec-Fetch-Site` if a browser leaves that out.
/// Without either it is false.
fn is_of_our_page(api: &Api, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match text(header::ORIGIN) {
        Some(origin) => api.public_url.is_origin(origin),
        None => text(header::HeaderName::from_static("sec-fetch-site")) == Some("same-origin"),
    }
}
