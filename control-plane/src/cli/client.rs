//! A REST client that turns refusals into sentences.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::http::{HeaderMap, Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{self, crypto::ring};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body, Proxy, SendBody};
use zeroize::Zeroizing;

use super::connection::is_loopback;
use super::failure::Failure;
use super::problem;
use crate::base::entropy::Entropy;
use crate::base::secret::Secret;

/// The time limit of a request that doesn't wait for edges: a little longer than the control plane's own.
const TIMEOUT: Duration = Duration::from_secs(40);

/// The time to add to that for a large request.
pub(super) const LARGE_REQUEST_EXTRA: Duration = Duration::from_secs(330);

/// The delays before the retries of a change whose answer was lost.
const RETRY_DELAYS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// The time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of an answer that is read into memory as a whole.
const MAX_ANSWER: u64 = 64 << 20;

/// What to do when a certificate isn't trusted.
const TRUST_ADVICE: &str = "for a certificate authority of your own give --ca-certificate";

/// What is encoded in a segment of a path: everything that could end it.
const ENCODED_IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A client of one control plane, as one admin.
pub(super) struct Client {
    agent: Agent,
    base: String,
    token: Secret,
}

/// A request to be sent.
pub(super) struct Call {
    method: Method,
    path: String,
    body: Option<Value>,
    headers: Vec<(&'static str, String)>,
    timeout: Duration,
    /// Whether it has an idempotency key, so that it may be retried.
    is_idempotent: bool,
}

/// An answer: JSON, or null if its body is empty.
pub(super) struct Answer {
    pub body: Value,
    headers: HeaderMap,
}

impl Call {
    fn new(method: Method, path: &[&str]) -> Self {
        let path =
            path.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, ENCODED_IN_SEGMENT))).collect();
        Self { method, path, body: None, headers: Vec::new(), timeout: TIMEOUT, is_idempotent: false }
    }

    pub(super) fn get(path: &[&str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: &[&str], body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }

    /// A change that is made once: it has its own idempotency key, and is retried if its answer is lost.
    pub(super) fn post_idempotent(path: &[&str], body: Value) -> anyhow::Result<Self> {
        let key = Entropy::system().text()?;
        let call = Self::post(path, body).header("idempotency-key", key.expose().to_owned());
        Ok(Self { is_idempotent: true, ..call })
    }

    pub(super) fn patch(path: &[&str], body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PATCH, path) }
    }

    pub(super) fn delete(path: &[&str]) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Adds a parameter to the query, if it has a value.
    pub(super) fn query(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            let separator = if self.path.contains('?') { '&' } else { '?' };
            let pair = form_urlencoded::Serializer::new(String::new()).append_pair(name, &value.to_string()).finish();
            let _ = write!(self.path, "{separator}{pair}");
        }
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Extends the time limit by `more`.
    pub(super) fn extend_timeout(mut self, more: Duration) -> Self {
        self.timeout = self.timeout.saturating_add(more);
        self
    }
}

impl Answer {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The revision that contains the change.
    pub(super) fn revision(&self) -> Option<u64> {
        self.header("latchkey-revision")?.parse().ok()
    }
}

impl Client {
    /// A client for `base`. It trusts the authority in `ca`, else those that the system trusts.
    pub(super) fn new(base: String, token: Secret, ca: Option<&Path>) -> anyhow::Result<Self> {
        let tls = if base.starts_with("https://") { tls(ca)? } else { TlsConfig::default() };
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // No redirects: the token is only for the server that was named.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(if is_loopback(&base) || base.starts_with("http://") { None } else { Proxy::try_from_env() })
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("latchkey/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.new_agent(), base, token })
    }

    /// Sends a request; any answer but success is an error with its reason.
    pub(super) fn send(&self, call: Call) -> anyhow::Result<Answer> {
        let body = call.body.as_ref().map(|body| Zeroizing::new(body.to_string()));
        send_with_retries(&call, || match &body {
            Some(text) => {
                let mut bytes = text.as_bytes();
                self.send_body(&call, "application/json", SendBody::from_reader(&mut bytes), text.len())
            }
            None => self.read_answer(&call, self.send_request(&call, None, SendBody::none())?),
        })
    }

    /// Sends JSON lines while they are read; `lines` starts from the beginning for each attempt. The control plane can
    /// refuse them before they are sent.
    pub(super) fn send_lines<R: Read>(
        &self,
        call: Call,
        lines: impl Fn() -> R,
        length: usize,
    ) -> anyhow::Result<Answer> {
        let call = call.header("expect", "100-continue".to_owned());
        send_with_retries(&call, || {
            let mut lines = lines();
            self.send_body(&call, "application/jsonl", SendBody::from_reader(&mut lines), length)
        })
    }

    /// Sends a request and streams its answer, which may have any length.
    pub(super) fn stream(&self, call: Call) -> anyhow::Result<impl Read + 'static> {
        let (parts, body) = self.send_request(&call, None, SendBody::none())?.into_parts();
        if !parts.status.is_success() {
            return Err(problem::refused(parts.status, &parts.headers, &read_body(body, &call.path)?));
        }
        Ok(body.into_reader())
    }

    fn send_body(&self, call: &Call, kind: &'static str, body: SendBody<'_>, length: usize) -> anyhow::Result<Answer> {
        self.read_answer(call, self.send_request(call, Some((kind, length)), body)?)
    }

    fn send_request(
        &self,
        call: &Call,
        content: Option<(&'static str, usize)>,
        body: SendBody<'_>,
    ) -> anyhow::Result<axum::http::Response<Body>> {
        let authorization = Zeroizing::new(format!("Bearer {}", self.token.expose()));
        let mut request = Request::builder()
            .method(&call.method)
            .uri(format!("{}{}", self.base, call.path))
            .header("authorization", authorization.as_str())
            .header("accept-encoding", "identity");
        if let Some((kind, length)) = content {
            request = request.header("content-type", kind).header("content-length", length);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        // The error itself could quote the header that it is about.
        let request =
            request.body(body).map_err(|_| anyhow::anyhow!("{}: not a valid path for a request", call.path))?;
        let request = self.agent.configure_request(request).timeout_global(Some(call.timeout)).build();
        Ok(self.agent.run(request).map_err(|error| self.connection_failure(&error))?)
    }

    fn read_answer(&self, call: &Call, response: axum::http::Response<Body>) -> anyhow::Result<Answer> {
        let (parts, body) = response.into_parts();
        let text = read_body(body, &call.path)?;
        if !parts.status.is_success() {
            return Err(problem::refused(parts.status, &parts.headers, &text));
        }
        if text.is_empty() {
            return Ok(Answer { body: Value::Null, headers: parts.headers });
        }
        let body = serde_json::from_slice(&text).map_err(|_| {
            let base = &self.base;
            Failure::Unreachable(format!("{base} did not answer with JSON: is it the URL of a control plane?"))
        })?;
        Ok(Answer { body, headers: parts.headers })
    }

    fn connection_failure(&self, error: &ureq::Error) -> Failure {
        let base = &self.base;
        let is_tls = |error: &std::io::Error| error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
        let advice = match error {
            ureq::Error::Io(error) if is_tls(error) => TRUST_ADVICE,
            ureq::Error::Timeout(_) => "a change may or may not have been made: check before you repeat it",
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => TRUST_ADVICE,
            _ => "check --url, and that the control plane runs",
        };
        let cause = match error {
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        let text = format!("no answer from {base}: {cause}; {advice}");
        // No retry after a timeout: the user has waited long enough.
        let is_lost = matches!(error, ureq::Error::Io(error) if CONNECTION_LOST.contains(&error.kind()));
        if is_lost { Failure::AnswerLost(text) } else { Failure::Unreachable(text) }
    }
}

/// The ways in which an established connection ends.
const CONNECTION_LOST: [ErrorKind; 4] =
    [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];

/// Sends a call, and retries it with the same idempotency key if its answer is lost.
fn send_with_retries(call: &Call, mut send: impl FnMut() -> anyhow::Result<Answer>) -> anyhow::Result<Answer> {
    let mut delays = RETRY_DELAYS.iter();
    loop {
        let answer = send();
        let is_lost = answer.as_ref().is_err_and(|error| matches!(error.downcast_ref(), Some(Failure::AnswerLost(_))));
        match delays.next().filter(|_| is_lost && call.is_idempotent) {
            Some(delay) => wait(*delay),
            None => return answer,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the control plane has nothing to wait on while it doesn't answer")]
fn wait(delay: Duration) {
    std::thread::sleep(delay);
}

/// The whole answer, which may contain a secret.
fn read_body(body: Body, path: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let bytes = body.into_with_config().limit(MAX_ANSWER).read_to_vec();
    let broke_off = |error| Failure::AnswerLost(format!("the answer to {path} broke off: {error}"));
    Ok(Zeroizing::new(bytes.map_err(broke_off)?))
}

fn tls(ca: Option<&Path>) -> anyhow::Result<TlsConfig> {
    let owned = |certificate: &CertificateDer<'_>| Certificate::from_der(certificate).to_owned();
    let roots: Vec<_> = match ca {
        Some(path) => {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let roots = read.with_context(|| format!("certificate authority {}: cannot read it", path.display()))?;
            if roots.is_empty() {
                bail!("certificate authority {}: it contains no certificate (PEM)", path.display());
            }
            roots.iter().map(owned).collect()
        }
        None => rustls_native_certs::load_native_certs().certs.iter().map(owned).collect(),
    };
    let builder = TlsConfig::builder().provider(TlsProvider::Rustls).root_certs(RootCerts::new_with_certs(&roots));
    Ok(builder.unversioned_rustls_crypto_provider(Arc::new(ring::default_provider())).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_typed_becomes_another_path() {
        let call = Call::get(&["v1", "workspaces", "a/../b?c#d é", "keys"])
            .query("q", Some("a&b=c"))
            .query("sort", None::<String>);
        assert_eq!(call.path, "/v1/workspaces/a%2F..%2Fb%3Fc%23d%20%C3%A9/keys?q=a%26b%3Dc");
    }
}
