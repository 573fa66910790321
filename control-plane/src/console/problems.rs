//! Problems as pages and as errors in forms: what is wrong, and what to do next.

use askama::Template;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::page::{Area, Frame, html};
use super::session::ConsoleSession;
use crate::api::request_id::RequestId;
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "problem.html")]
struct Page {
    frame: Frame,
    status: u16,
    title: String,
    detail: String,
    code: &'static str,
    /// For finding the request in the log.
    request_id: String,
}

/// Renders each problem as a page, whichever handler or layer returned it.
pub(super) async fn render_problems(request: Request, next: Next) -> Response {
    let session = request.extensions().get::<ConsoleSession>().cloned();
    let request_id = request.extensions().get().map(|RequestId(id)| id.clone()).unwrap_or_default();
    let response = next.run(request).await;
    match response.extensions().get::<Problem>() {
        Some(problem) => {
            let mut page = page(session.as_ref(), &request_id, &problem.clone());
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

/// The page of a problem.
pub(super) fn page(session: Option<&ConsoleSession>, request_id: &str, problem: &Problem) -> Response {
    let frame = session.map_or_else(Frame::signed_out, |session| Frame::new(session, Area::Elsewhere));
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

/// The detail for people, who see pages instead of REST's paths.
fn detail(problem: &Problem) -> String {
    match problem.code() {
        "unknown-path" => {
            "No page exists at this address. Check the address; what it showed may have been deleted.".to_owned()
        }
        "unknown-workspace" => "No workspace that you may see has this name.".to_owned(),
        "unknown-key" => {
            "This workspace has no such key. If it was deleted, the audit trail shows when and by whom.".to_owned()
        }
        "unknown-token" => "No token that you may see has this id. It may have been revoked.".to_owned(),
        "method-not-allowed" => {
            "This address doesn't accept this kind of request. Open the page from the menu.".to_owned()
        }
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

/// The summary of a form with one error.
const ONE_FIELD: &str = "Fix 1 field. Nothing was saved.";

/// The errors of a form, shown in it beside what was typed.
pub(super) struct FormErrors {
    pub(super) summary: Option<String>,
    fields: Vec<(String, String)>,
}

impl FormErrors {
    pub(super) fn none() -> Self {
        Self { summary: None, fields: Vec::new() }
    }

    /// The errors of a problem that its form can show; any other problem is returned, and gets its own page.
    pub(super) fn from_problem(problem: Problem) -> Result<Self, Problem> {
        if problem.errors().is_empty() && !matches!(problem.code(), "stale" | "expired-key" | "edge-connected") {
            return Err(problem);
        }
        let mut errors = Self::none();
        for error in problem.errors() {
            errors.add(&error.field, field_message(&error.field, error.code, &error.message));
        }
        errors.summary = Some(match problem.code() {
            "stale" => "Conflict: somebody changed this key after you opened the form. Nothing was saved. Open the \
                        form again to see the current values."
                .to_owned(),
            _ if errors.fields.is_empty() => sentence(problem.detail()),
            _ if errors.fields.len() == 1 => ONE_FIELD.to_owned(),
            _ => format!("Fix {} fields. Nothing was saved.", errors.fields.len()),
        });
        Ok(errors)
    }

    /// The errors of a list's filters, if all of them are in these fields; any other problem is returned.
    pub(super) fn from_search(problem: Problem, fields: &[&str]) -> Result<Self, Problem> {
        if problem.errors().iter().any(|error| !fields.contains(&error.field.as_str())) {
            return Err(problem);
        }
        let mut errors = Self::from_problem(problem)?;
        errors.summary = Some("A filter is invalid, so nothing is listed. Fix it and try again.".to_owned());
        Ok(errors)
    }

    /// One error that the console itself found in a form.
    pub(super) fn single(field: &str, message: impl Into<String>) -> Self {
        let mut errors = Self::none();
        errors.add(field, message.into());
        errors.summary = Some(ONE_FIELD.to_owned());
        errors
    }

    fn add(&mut self, field: &str, message: String) {
        self.fields.push((field.to_owned(), message));
    }

    /// What is wrong with a field.
    pub(super) fn for_field(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == field).map(|(_, message)| message.as_str())
    }
}

/// The message about an allowlist, without the entry's index, which counts from 0.
fn allowlist_message(message: &str) -> String {
    let message = message.strip_prefix("is refused: ").unwrap_or(message);
    let entry = message.strip_prefix("entry ").and_then(|rest| rest.split_once(", ")).map(|(_, rest)| rest);
    sentence(&entry.unwrap_or(message).replace("`, ", "` ").replace('`', ""))
}

/// The message about a field for people, who see labels instead of JSON.
pub(super) fn field_message(field: &str, code: &str, message: &str) -> String {
    match (field, code) {
        ("expires_in", "required") => "Choose how long it is valid.".to_owned(),
        ("expires_at", "bad-instant") => "Choose a date and a time.".to_owned(),
        ("ip_allowlist", "empty-allowlist") => {
            "List at least one address or range, or choose “Any address”.".to_owned()
        }
        ("ip_allowlist", _) => allowlist_message(message),
        ("since" | "until", "out-of-range") => "Choose a date and a time.".to_owned(),
        ("workspace", "required") => "Choose a workspace: this role belongs to one.".to_owned(),
        ("workspace", "ambiguous") => "A platform admin doesn't belong to a workspace: choose “None”.".to_owned(),
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
