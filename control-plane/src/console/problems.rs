//! Refusals as pages: what is wrong, and what to do.

use askama::Template;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::page::{Area, Frame, html};
use super::session::Visit;
use crate::api::request_id::RequestId;
use crate::problem::Problem;

#[derive(Template)]
#[template(path = "problem.html")]
struct Page {
    frame: Frame,
    status: u16,
    title: String,
    detail: String,
    code: &'static str,
    /// To find it in the log.
    request_id: String,
}

/// Turns each refusal into a page, wherever it came from.
pub(super) async fn as_pages(request: Request, next: Next) -> Response {
    let visit = request.extensions().get::<Visit>().cloned();
    let request_id = request.extensions().get().map(|RequestId(id)| id.clone()).unwrap_or_default();
    let response = next.run(request).await;
    match response.extensions().get::<Problem>() {
        Some(problem) => {
            let mut page = page(visit.as_ref(), &request_id, &problem.clone());
            for (name, value) in response.headers() {
                // Keep `Allow` and `Retry-After`, but nothing that describes the replaced body.
                if !page.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
                    page.headers_mut().insert(name.clone(), value.clone());
                }
            }
            page
        }
        None => response,
    }
}

/// A refusal as a page.
pub(super) fn page(visit: Option<&Visit>, request_id: &str, problem: &Problem) -> Response {
    let frame = visit.map_or_else(Frame::outside, |visit| Frame::new(visit, Area::Elsewhere));
    let page = Page {
        frame,
        status: problem.status().as_u16(),
        title: problem.title().to_owned(),
        detail: detail(problem),
        code: problem.code(),
        request_id: request_id.to_owned(),
    };
    html(problem.status(), &page).unwrap_or_else(IntoResponse::into_response)
}

/// What to do, for people, who see pages instead of REST's paths.
fn detail(problem: &Problem) -> String {
    match problem.code() {
        "unknown-path" => {
            "No page is at this address. It may have been mistyped, or what it showed is gone.".to_owned()
        }
        "unknown-workspace" => "No workspace that you may see has this name.".to_owned(),
        "unknown-key" => {
            "This workspace has no such key. It may have been deleted: the audit trail says so.".to_owned()
        }
        "unknown-token" => "No token that you may see has this id. It may have been revoked.".to_owned(),
        "method-not-allowed" => "This address takes no request of this kind. Open it from the menu.".to_owned(),
        _ => sentence(problem.detail()),
    }
}

/// With a capital letter and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    let rest = letters.as_str();
    let end = if rest.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{rest}{end}")
}

/// The errors of a form, to be shown in it. What was typed stays.
pub(super) struct Errors {
    pub(super) summary: Option<String>,
    fields: Vec<(String, String)>,
}

impl Errors {
    pub(super) fn none() -> Self {
        Self { summary: None, fields: Vec::new() }
    }

    /// Of a refusal that its form can show; any other is returned, and gets its own page.
    pub(super) fn of(problem: Problem) -> Result<Self, Problem> {
        if problem.errors().is_empty() && !matches!(problem.code(), "stale" | "expired-key" | "edge-connected") {
            return Err(problem);
        }
        let mut errors = Self::none();
        for error in problem.errors() {
            errors.add(&error.field, said(&error.field, error.code, &error.message));
        }
        errors.summary = Some(match problem.code() {
            "stale" => {
                "Somebody changed this key since you opened the form. Open it again to see what it is now.".to_owned()
            }
            _ if errors.fields.is_empty() => sentence(problem.detail()),
            _ if errors.fields.len() == 1 => "One value doesn't fit. Nothing was changed.".to_owned(),
            _ => format!("{} values don't fit. Nothing was changed.", errors.fields.len()),
        });
        Ok(errors)
    }

    /// Of a list that isn't shown, for errors in these fields of its form; any other refusal is returned.
    pub(super) fn of_search(problem: Problem, fields: &[&str]) -> Result<Self, Problem> {
        if problem.errors().iter().any(|error| !fields.contains(&error.field.as_str())) {
            return Err(problem);
        }
        let mut errors = Self::of(problem)?;
        errors.summary = Some("Nothing is listed: a filter can't be read.".to_owned());
        Ok(errors)
    }

    /// An error that the form itself found.
    pub(super) fn one(field: &str, message: impl Into<String>) -> Self {
        let mut errors = Self::none();
        errors.add(field, message.into());
        errors.summary = Some("One value doesn't fit. Nothing was changed.".to_owned());
        errors
    }

    fn add(&mut self, field: &str, message: String) {
        self.fields.push((field.to_owned(), message));
    }

    /// What is wrong with a field.
    pub(super) fn at(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == field).map(|(_, message)| message.as_str())
    }
}

/// The error of an allowlist, without the entry's index: people count lines from 1, if at all.
fn of_allowlist(message: &str) -> String {
    let message = message.strip_prefix("is refused: ").unwrap_or(message);
    let entry = message.strip_prefix("entry ").and_then(|rest| rest.split_once(", ")).map(|(_, rest)| rest);
    sentence(&entry.unwrap_or(message).replace("`, ", "` ").replace('`', ""))
}

/// A field's error for people, who see labels instead of JSON.
pub(super) fn said(field: &str, code: &str, message: &str) -> String {
    match (field, code) {
        ("expires_in", "required") => "Choose how long it is valid.".to_owned(),
        ("expires_at", "bad-instant") => "Choose a day and a time.".to_owned(),
        ("ip_allowlist", "empty-allowlist") => {
            "List at least one address or range, or choose “Any address”.".to_owned()
        }
        ("ip_allowlist", _) => of_allowlist(message),
        ("since" | "until", "out-of-range") => "Choose a day and a time.".to_owned(),
        ("workspace", "required") => "Choose a workspace: this role belongs to one.".to_owned(),
        ("workspace", "ambiguous") => "A platform admin belongs to no workspace: choose none.".to_owned(),
        _ => {
            let label = match field {
                "expires_in" | "expires_at" => "The expiration".to_owned(),
                "secret" => "The text".to_owned(),
                "edge" => "The edge's name".to_owned(),
                field => format!("The {}", field.replace('_', " ")),
            };
            sentence(&format!("{label} {message}"))
        }
    }
}
