//! A refusal of the control plane, as a sentence: what is wrong, where, and what to do next.

use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::failure::Failure;

/// The fields of `application/problem+json` that people are shown.
#[derive(Deserialize)]
struct Problem {
    code: String,
    title: String,
    detail: String,
    #[serde(default)]
    errors: Vec<FieldError>,
    #[serde(default)]
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct FieldError {
    field: String,
    message: String,
}

#[derive(Deserialize)]
struct Line {
    line: u64,
    errors: Vec<FieldError>,
}

/// The error of an unsuccessful answer.
pub fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> anyhow::Error {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let to = headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
        let message = match to.filter(|_| status.is_redirection()) {
            Some(to) => {
                format!("the answer was {status}, a redirect to {to}, which a token doesn't follow: give its URL")
            }
            None => format!("the answer was {status}, without a reason as a control plane gives it: is this its URL?"),
        };
        return Failure::Unreachable(message).into();
    };
    let text = problem.text();
    // These may succeed a moment later.
    match (status, problem.code.as_str()) {
        (StatusCode::SERVICE_UNAVAILABLE, _) | (StatusCode::CONFLICT, "in-progress") => {
            Failure::AnswerLost(text).into()
        }
        (status, _) if status.is_server_error() => Failure::Unreachable(text).into(),
        _ => anyhow::anyhow!(text),
    }
}

impl Problem {
    fn text(&self) -> String {
        let Self { code, title, detail, errors, lines } = self;
        if !lines.is_empty() {
            let lines: String = lines.iter().map(Line::text).collect();
            return format!("{detail} ({code})\n{}", lines.trim_end());
        }
        if !errors.is_empty() && code == "invalid-fields" {
            let errors: Vec<_> = errors.iter().map(FieldError::text).collect();
            return format!("{} ({code})\n{}", lowered(title), errors.join("\n"));
        }
        match next(code) {
            // A command replaces the next step that REST gives.
            Some(next) => format!("{}; {next} ({code})", detail.split(';').next().unwrap_or_default()),
            None => format!("{}: {detail} ({code})", lowered(title)),
        }
    }
}

impl FieldError {
    fn text(&self) -> String {
        let Self { field, message } = self;
        // Other fields in the message are also replaced by their flags.
        let message =
            FLAGS.iter().fold(message.clone(), |message, (field, flag)| message.replace(&format!("`{field}`"), flag));
        match flag(field) {
            "" => format!("  {message}"),
            flag => format!("  {flag} {message}"),
        }
    }
}

impl Line {
    fn text(&self) -> String {
        let errors = self.errors.iter().map(|FieldError { field, message }| match field.as_str() {
            "" => message.clone(),
            field => format!("{field} {message}"),
        });
        format!("  line {}: {}\n", self.line, errors.collect::<Vec<_>>().join("; "))
    }
}

/// The flags for REST's fields.
const FLAGS: [(&str, &str); 16] = [
    ("expires_in", "--expires-in"),
    ("expires_at", "--expires-at"),
    ("scopes", "--scope"),
    ("ip_allowlist", "--allow"),
    ("environment", "--environment"),
    ("metadata", "--metadata"),
    ("overlap", "--overlap"),
    ("workspace", "--workspace"),
    ("unused_days", "--unused-days"),
    ("unrotated_days", "--unrotated-days"),
    ("expiring_days", "--expiring-days"),
    ("status", "--status"),
    ("sort", "--sort"),
    ("slug", "--slug"),
    ("edge", "--edge"),
    ("role", "--role"),
];

fn flag(field: &str) -> &str {
    FLAGS.iter().find(|(own, _)| *own == field).map_or(field, |(_, flag)| flag)
}

/// The next step, as a command.
fn next(code: &str) -> Option<&'static str> {
    match code {
        "missing-token" | "bad-token" | "expired-token" | "revoked-token" => {
            Some("sign in again with `latchkey login`")
        }
        "unknown-workspace" => Some("`latchkey workspaces list` lists those you may see"),
        "unknown-key" => Some("`latchkey keys list` lists those of a workspace"),
        "stale" => Some("`latchkey keys show` says how it is now"),
        "unknown-revision" => Some("`latchkey audit list` shows those of changes"),
        "unknown-token" => Some("`latchkey tokens list` and `latchkey edge-tokens list` list them"),
        "unknown-instance" | "edge-connected" => Some("`latchkey edges list` lists them"),
        _ => None,
    }
}

/// A title in the middle of a line.
fn lowered(title: &str) -> String {
    let mut chars = title.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
