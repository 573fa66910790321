//! Problems as pages and as errors in forms: what is wrong, and what to do next.

use askama::Template;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use policy::allowlist::AllowlistError;

use super::page::{Area, Frame, html};
use super::session::ConsoleSession;
use crate::api::request_id::RequestId;
use crate::operations::OperationError;
use crate::operations::fields::FieldError;
use crate::store::StoreError;
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

    /// The errors that a form can show; any other error is returned, and gets its own page.
    pub(super) fn of(error: OperationError) -> Result<Self, OperationError> {
        match error.into_fields() {
            Ok(fields) => Ok(Self::of_fields(&fields)),
            Err(OperationError::Store(StoreError::Stale { .. })) => Ok(Self::summary(
                "Conflict: somebody changed this key after you opened the form. Nothing was saved. Open the form again \
                 to see the current values.",
            )),
            Err(OperationError::Store(StoreError::ExpiredKey)) => {
                Ok(Self::summary("An expired key can't be rotated; create another key."))
            }
            Err(other) => Err(other),
        }
    }

    /// The errors of a list's filters, if all of them are in these fields; any other error is returned.
    pub(super) fn of_search(error: OperationError, fields: &[&str]) -> Result<Self, OperationError> {
        let refused = error.into_fields()?;
        if refused.iter().any(|error| !fields.contains(&error.field.as_str())) {
            return Err(OperationError::Invalid(refused));
        }
        let summary = Some("A filter is invalid, so nothing is listed. Fix it and try again.".to_owned());
        Ok(Self { summary, ..Self::of_fields(&refused) })
    }

    fn of_fields(refused: &[FieldError]) -> Self {
        let fields: Vec<_> = refused.iter().map(|error| (error.field.clone(), field_message(error))).collect();
        let summary = match fields.len() {
            1 => ONE_FIELD.to_owned(),
            count => format!("Fix {count} fields. Nothing was saved."),
        };
        Self { summary: Some(summary), fields }
    }

    /// An error of no single field.
    pub(super) fn summary(text: impl Into<String>) -> Self {
        Self { summary: Some(text.into()), fields: Vec::new() }
    }

    /// One error that the console itself found in a form.
    pub(super) fn single(field: &str, message: impl Into<String>) -> Self {
        Self { summary: Some(ONE_FIELD.to_owned()), fields: vec![(field.to_owned(), message.into())] }
    }

    /// What is wrong with a field.
    pub(super) fn for_field(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == field).map(|(_, message)| message.as_str())
    }
}

/// The message about an allowlist. Entries aren't numbered, because the form shows them.
pub(super) fn allowlist_message(error: Option<&AllowlistError>) -> String {
    match error {
        Some(AllowlistError::NotANetwork { entry, .. }) => {
            sentence(&format!("{entry} is not an IP address or CIDR range"))
        }
        Some(AllowlistError::HostBits { entry, meant, .. }) => {
            sentence(&format!("{entry} has host bits set; the range is {meant}"))
        }
        Some(error @ AllowlistError::TooMany { .. }) => sentence(&error.to_string()),
        Some(AllowlistError::Empty) | None => "List at least one address or range, or choose “Any address”.".to_owned(),
    }
}

/// The message about a field for people, who see labels instead of JSON.
fn field_message(error: &FieldError) -> String {
    let FieldError { field, code, message, allowlist } = error;
    match (field.as_str(), *code) {
        ("expires_in", "required") => "Choose how long it is valid.".to_owned(),
        ("expires_at", "bad-instant") => "Choose a date and a time.".to_owned(),
        ("ip_allowlist", _) => allowlist_message(allowlist.as_ref()),
        ("since" | "until", "out-of-range") => "Choose a date and a time.".to_owned(),
        ("workspace", "required") => "Choose a workspace: this role belongs to one.".to_owned(),
        ("workspace", "ambiguous") => "A platform admin doesn't belong to a workspace: choose “None”.".to_owned(),
        _ => {
            let label = match field.as_str() {
                "expires_in" | "expires_at" => "The expiration".to_owned(),
                "secret" => "The text".to_owned(),
                "edge" => "The edge's name".to_owned(),
                field => format!("The {}", field.replace('_', " ")),
            };
            sentence(&format!("{label} {message}"))
        }
    }
}
