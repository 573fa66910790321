//! Problems of request bodies: too large, too slow, of the wrong type, or with refused lines.

use axum::http::StatusCode;

use super::{LineErrors, Problem};

impl Problem {
    /// 400: the body isn't JSON.
    pub fn not_json(cause: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "not-json", format!("the body can't be read as JSON: {}", cause.into()))
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("a body may have at most {limit} bytes; send less");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    /// 413: more lines than one change may have.
    pub fn too_many_lines(limit: usize) -> Self {
        let detail = format!("a body may have at most {limit} lines; send the rest in another request");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    /// 413: a line is too long.
    pub fn too_long_line(line: usize, limit: usize) -> Self {
        let detail = format!("line {line} has more than {limit} bytes; put each key on a line of its own");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    /// 415.
    pub fn not_json_type(accepted: &'static str) -> Self {
        let detail = format!("send the body with `Content-Type: {accepted}`");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
    }

    /// 422: `refused` lines of a body are refused, and nothing was done. `lines` are the first of them.
    pub fn refused_lines(lines: Vec<LineErrors>, refused: usize) -> Self {
        let shown =
            if lines.len() < refused { format!("; `lines` has the first {}", lines.len()) } else { String::new() };
        let (are, them) = if refused == 1 { ("line is", "it") } else { ("lines are", "them") };
        let detail = format!("{refused} {are} refused, so nothing was done{shown}; correct {them}, and send all again");
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused-lines", detail);
        problem.0.lines = lines;
        problem
    }

    /// 408: the body arrived too slowly. The connection is closed.
    pub fn slow_body() -> Self {
        let detail = "the body stalled, or arrived at less than 1 KiB a second; send it again, faster";
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", detail)
    }
}
