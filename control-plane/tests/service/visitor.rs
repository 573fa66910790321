//! A user of the console, who keeps the cookie and sends forms as a browser does.

use axum::body::Body;
use axum::http::Request;
use axum::http::request::Builder;

use crate::harness::{ADMIN, Answer, PUBLIC_URL, Service};

pub(crate) struct Visitor<'a> {
    pub service: &'a Service,
    pub cookie: String,
}

impl<'a> Visitor<'a> {
    pub(crate) async fn sign_in(service: &'a Service, token: &str) -> Self {
        let answer = Self { service, cookie: String::new() }
            .send(Request::post("/console/sign-in"), &[("token", token), ("next", "")])
            .await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie = answer.header("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned();
        let visitor = Self { service, cookie };
        let location = answer.header("location").unwrap();
        assert_eq!(visitor.get(location).await.header("location"), Some("/console"));
        visitor
    }

    pub(crate) async fn admin(service: &'a Service) -> Self {
        Self::sign_in(service, ADMIN).await
    }

    fn with_cookie(&self, request: Builder) -> Builder {
        if self.cookie.is_empty() { request } else { request.header("cookie", &self.cookie) }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.with_cookie(Request::get(path));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.service.send(request.body(Body::empty()).unwrap()).await
    }

    /// A page that must be there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }

    async fn send(&self, request: Builder, values: &[(&str, &str)]) -> Answer {
        self.service.send(self.with_cookie(request.header("origin", PUBLIC_URL)).form(values)).await
    }

    /// Sends the form that the page at `from` has, with these values in it.
    pub(crate) async fn post_from(&self, from: &str, path: &str, values: &[(&str, &str)]) -> Answer {
        let page = self.page(from).await;
        let hidden = |name| hidden(&page, name);
        let (csrf, nonce) = (hidden("csrf").expect("a form"), hidden("nonce").unwrap_or_default());
        let mut all = vec![("csrf", csrf.as_str()), ("nonce", nonce.as_str())];
        all.extend(values);
        self.send(Request::post(path), &all).await
    }

    /// The token for forms of this session.
    pub(crate) async fn csrf(&self) -> String {
        hidden(&self.page("/console/edges").await, "csrf").expect("a form")
    }

    pub(crate) async fn post(&self, path: &str, values: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf().await;
        let mut all = vec![("csrf", csrf.as_str())];
        all.extend(values);
        self.send(Request::post(path), &all).await
    }
}

/// A request with a form in it.
pub(crate) trait Form {
    fn form(self, values: &[(&str, &str)]) -> Request<Body>;
}

impl Form for Builder {
    fn form(self, values: &[(&str, &str)]) -> Request<Body> {
        let body = values.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>();
        self.header("content-type", "application/x-www-form-urlencoded").body(Body::from(body.join("&"))).unwrap()
    }
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}

/// The value of a hidden field.
pub(crate) fn hidden(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

/// The secret that a page shows.
pub(crate) fn shown_secret(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("id=\"secret\"")?;
    let (_, rest) = rest.split_once('>')?;
    rest.split_once('<').map(|(secret, _)| secret.to_owned())
}
