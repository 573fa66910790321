//! `Idempotency-Key`: a client may safely retry a change, because it is made only once.

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use policy::Digest;
use policy::key_text::find_secret;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::Api;
use super::precondition::optional_header;
use super::response::set_revision;
use crate::operations::principal::Principal;
use crate::operations::request::string_schema;
use crate::store::{OnceKey, OnceResult};
use crate::web::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The maximum length of an idempotency key, in characters.
const MAX_KEY: usize = 128;

/// The idempotency key of a request, as the digest of actor, method, path and key. Handlers extract it after the role.
pub(super) struct IdempotencyKey(Option<Digest>);

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = "Random text, the same in each retry of this change: it is made once, and the response to a retry \
                    within 24 hours shows the resource as it is now, without its secret";
        let schema = string_schema().pattern(Some(format!("^[!-~]{{1,{MAX_KEY}}}$")));
        vec![optional_header("Idempotency-Key", text, schema)]
    }
}

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = given.next() else { return Ok(Self(None)) };
        if given.next().is_some() {
            return Err(Problem::invalid_idempotency_key("twice", "is sent twice; send one"));
        }
        let key = read(key)?.to_owned();
        let principal = Principal::from_request_parts(parts, api).await?;
        // The router below /v1 sees only the rest of the path.
        let Ok(OriginalUri(uri)) = OriginalUri::from_request_parts(parts, api).await;
        // No part contains a line feed.
        let named = format!("request\n{}\n{}\n{}\n{key}", principal.actor().id, parts.method, uri.path());
        Ok(Self(Some(Digest::of(named.as_bytes()))))
    }
}

fn read(key: &HeaderValue) -> Result<&str, Problem> {
    let text = key.to_str().ok().filter(|text| (1..=MAX_KEY).contains(&text.len()));
    let Some(text) = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic())) else {
        let message = format!("must be 1 to {MAX_KEY} visible ASCII characters, such as a UUID");
        return Err(Problem::invalid_idempotency_key("bad-characters", &message));
    };
    if find_secret(text.as_bytes()).is_some() {
        let message = "contains a key or token; use random text without another meaning, such as a UUID";
        return Err(Problem::invalid_idempotency_key("contains-secret", message));
    }
    Ok(text)
}

impl IdempotencyKey {
    /// The change that a request with this body makes; `None` without a key.
    pub(super) fn for_body(&self, body: Digest) -> Option<OnceKey> {
        self.0.map(|name| OnceKey { name, body: Some(body) })
    }

    /// The change of a request whose body isn't read yet; `None` without a key. For look-ups only, not to make it.
    pub(super) fn for_any_body(&self) -> Option<OnceKey> {
        self.0.map(|name| OnceKey { name, body: None })
    }
}

/// Responds with `change`, which claims the idempotency key `once` in its transaction. If that change was made before,
/// `change` isn't started, and `build_response` shows its result as it is now.
pub(super) async fn run_once<R: Future<Output = Result<Response, Problem>>>(
    api: &Api,
    once: Option<OnceKey>,
    change: impl Future<Output = Result<Response, Problem>>,
    build_response: impl FnOnce(OnceResult) -> R,
) -> Result<Response, Problem> {
    let Some(once) = once else { return change.await };
    let _running = api.store.begin_once(once)?;
    match api.store.once_result(once, api.clock.now()).await? {
        Some(made) => replay(once.body, made, build_response).await,
        None => run_or_replay(api, Some(once), change, build_response).await,
    }
}

/// The same after a look-up that found no such change.
pub(super) async fn run_or_replay<R: Future<Output = Result<Response, Problem>>>(
    api: &Api,
    once: Option<OnceKey>,
    change: impl Future<Output = Result<Response, Problem>>,
    build_response: impl FnOnce(OnceResult) -> R,
) -> Result<Response, Problem> {
    let (problem, once) = match (change.await, once) {
        (Err(problem), Some(once)) => (problem, once),
        (answer, _) => return answer,
    };
    // In the meantime another replica may have made it, or this one for a client that disconnected. Then that change
    // caused the conflict here (the row, a taken slug or digest).
    match api.store.once_result(once, api.clock.now()).await {
        Ok(Some(made)) => replay(once.body, made, build_response).await,
        Ok(None) | Err(_) => Err(problem),
    }
}

/// The response to a request whose change was made before, if that request had the same body.
pub(super) async fn replay<R: Future<Output = Result<Response, Problem>>>(
    body: Option<Digest>,
    made: OnceResult,
    build_response: impl FnOnce(OnceResult) -> R,
) -> Result<Response, Problem> {
    if made.body != body {
        return Err(Problem::idempotency_key_reused());
    }
    let revision = made.revision;
    let mut response = build_response(made).await?;
    set_revision(&mut response, revision);
    response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_is_short_visible_and_not_a_secret() {
        let secret = "lk_live_000000000000000000000000000000004cjNQE";
        for (key, expected) in [
            ("7d2b0f9e-5c2b-4a55-9b57-4a0c7a5b9f10", None),
            ("!", None),
            ("\"quoted\"", None),
            (&"x".repeat(128), None),
            // A secret only with a right checksum.
            (&secret.replace("QE", "QF"), None),
            ("", Some("bad-characters")),
            (&"x".repeat(129), Some("bad-characters")),
            ("two words", Some("bad-characters")),
            ("tab\t", Some("bad-characters")),
            ("schlüssel", Some("bad-characters")),
            (secret, Some("contains-secret")),
            (&format!("retry-{secret}-1"), Some("contains-secret")),
        ] {
            let value = HeaderValue::from_bytes(key.as_bytes()).unwrap();
            let refused = read(&value).err();
            assert_eq!(refused.as_ref().map(|problem| problem.errors()[0].code), expected, "{key:?}");
            if let Some(refused) = refused {
                assert_eq!((refused.status().as_u16(), refused.code()), (400, "invalid-idempotency-key"));
                assert!(!refused.detail().contains("0000000000"), "{}", refused.detail());
            }
        }
    }
}
