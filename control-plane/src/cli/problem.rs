//! Error responses of the control plane, as text for people: what is wrong, where, and the next step.

use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::failure::Failure;

/// The fields of `application/problem+json` that are shown to people.
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

/// The error of a response that isn't a success.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> anyhow::Error {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let to = headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
        let message = match to.filter(|_| status.is_redirection()) {
            Some(to) => {
                format!("the response was {status}, a redirect to {to}, which a token must not follow: give that URL")
            }
            None => format!("the response was {status}, and not a control plane's: check the URL"),
        };
        return Failure::Unreachable(message).into();
    };
    let text = problem.text();
    // A retry of these may succeed.
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
            let summary = match errors.len() {
                1 => "1 value is invalid; correct it, and try again".to_owned(),
                count => format!("{count} values are invalid; correct them, and try again"),
            };
            return format!("{summary} ({code})\n{}", errors.join("\n"));
        }
        match next_step(code) {
            // A command replaces REST's next step.
            Some(next) => format!("{}; {next} ({code})", detail.split(';').next().unwrap_or_default()),
            None => format!("{}: {detail} ({code})", title.to_lowercase()),
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
const FLAGS: [(&str, &str); 17] = [
    ("expires_in", "--expires-in"),
    ("expires_at", "--expires-at"),
    ("scopes", "--scope"),
    ("ip_allowlist", "--allow"),
    ("may_make", "--may-make"),
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
fn next_step(code: &str) -> Option<&'static str> {
    match code {
        "missing-token" | "bad-token" | "expired-token" | "revoked-token" => {
            Some("sign in again with `latchkey login`")
        }
        "unknown-workspace" => Some("`latchkey workspaces list` lists the workspaces that you may see"),
        "unknown-key" => Some("`latchkey keys list` lists the keys of a workspace"),
        "stale" => Some("`latchkey keys show` shows its current state"),
        "unknown-revision" => Some("`latchkey audit list` lists the revisions of changes"),
        "unknown-token" => Some("`latchkey tokens list` and `latchkey edge-tokens list` list the tokens"),
        "unknown-instance" => Some("`latchkey edges list` lists the instances"),
        _ => None,
    }
}
