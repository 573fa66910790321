//! A body of JSON lines, one object per line: stored until it is complete, then read line by line.

use std::io::{self, BufRead as _, BufReader, Read as _};

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{Extensions, HeaderMap, header};
use policy::WorkspaceId;
use tracing::error;

use super::body::{NotAnObject, declared_length, object};
use super::{Api, principal};
use crate::operations::fields::{FieldError, Fields};
use crate::web::problem::Problem;
use crate::web::spool::{Spool, SpooledBody};

/// Media types of the format. Messages name the first.
pub(super) const MEDIA_TYPES: [&str; 3] = ["application/jsonl", "application/x-ndjson", "application/json-lines"];

/// The maximum size of a body: the maximum number of lines, of 640 bytes each.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The maximum size of a line: a key with the maximum of metadata and networks.
const MAX_LINE_BYTES: usize = 16 << 10;

/// A body that isn't received yet, with what authenticates its client.
pub(super) struct LinesBody {
    body: Body,
    headers: HeaderMap,
    extensions: Extensions,
}

/// The unread lines of a complete body. Reading blocks on the disk, so it must not run on async threads.
pub(super) struct Lines {
    body: BufReader<SpooledBody>,
    number: usize,
}

/// A line that isn't blank.
pub(super) struct Line {
    /// Counted from 1, including blank lines.
    pub(super) number: usize,
    /// An error if it isn't a JSON object.
    pub(super) fields: Result<Fields, FieldError>,
}

impl<S: Sync> FromRequest<S> for LinesBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !MEDIA_TYPES.iter().any(|name| essence.eq_ignore_ascii_case(name)) {
            let [name, ..] = MEDIA_TYPES;
            return Err(Problem::not_json_type(name));
        }
        if declared_length(request.headers()).is_some_and(|length| length > MAX_BODY_BYTES) {
            return Err(Problem::too_large(MAX_BODY_BYTES));
        }
        let (parts, body) = request.into_parts();
        Ok(Self { body, headers: parts.headers, extensions: parts.extensions })
    }
}

impl LinesBody {
    /// Receives the whole body, then checks that its token still works: a slow body may take hours. `of_tenant` is the
    /// workspace whose own admin sends it.
    pub(super) async fn complete(self, api: &Api, of_tenant: Option<WorkspaceId>) -> Result<Lines, Problem> {
        let lines = Lines::receive(self.body, api.imports.spool(), of_tenant).await?;
        principal::reauthenticate(api, &self.headers, &self.extensions).await?;
        Ok(lines)
    }
}

impl Lines {
    async fn receive(body: Body, spool: &Spool, of_tenant: Option<WorkspaceId>) -> Result<Self, Problem> {
        let spooled = spool.receive(body, MAX_BODY_BYTES, of_tenant).await?;
        Ok(Self { body: BufReader::new(spooled), number: 0 })
    }

    /// The next line that isn't blank; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Line>, Problem> {
        while let Some(line) = self.next_or_blank()? {
            if !line.trim_ascii().is_empty() {
                let fields = object(&line).map_err(|error| match error {
                    NotAnObject::NotJson(message) => FieldError::new("", "not-json", format!("is not JSON: {message}")),
                    NotAnObject::Other(error) => error,
                });
                return Ok(Some(Line { number: self.number, fields }));
            }
        }
        Ok(None)
    }

    /// The same lines, from the beginning.
    pub(super) fn rewound(self) -> Result<Self, Problem> {
        // This drops the reader, with what it had read ahead.
        let mut body = self.body.into_inner();
        body.rewind().map_err(unreadable)?;
        Ok(Self { body: BufReader::new(body), number: 0 })
    }

    fn next_or_blank(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        // One more byte, for the line feed.
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        let mut line = Vec::new();
        let read = self.body.by_ref().take(most).read_until(b'\n', &mut line).map_err(unreadable)?;
        if read == 0 {
            return Ok(None);
        }
        self.number = self.number.saturating_add(1);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(Problem::too_long_line(self.number, MAX_LINE_BYTES));
        }
        Ok(Some(line))
    }
}

/// The stored body can't be read from the disk. Logs the cause for the operator.
fn unreadable(cause: io::Error) -> Problem {
    error!(%cause, "the stored body of an import can't be read: check the disk of the database's directory");
    Problem::spool_unreadable()
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    /// The lines of a body that arrives in these pieces.
    async fn lines(pieces: Vec<Vec<u8>>) -> Result<Lines, Problem> {
        let pieces = pieces.into_iter().map(|piece| Ok::<_, io::Error>(Bytes::from(piece)));
        let spool = Spool::new(std::env::temp_dir(), u64::MAX);
        Lines::receive(Body::from_stream(stream::iter(pieces)), &spool, None).await
    }

    /// The numbers of the lines, with the code of those that are refused.
    fn numbers(lines: &mut Lines) -> Result<Vec<String>, Problem> {
        let mut numbers = Vec::new();
        while let Some(line) = lines.next()? {
            numbers.push(match line.fields {
                Ok(_) => line.number.to_string(),
                Err(error) => format!("{} {}", line.number, error.code),
            });
        }
        Ok(numbers)
    }

    #[tokio::test]
    async fn lines_are_the_same_however_they_are_cut_and_as_often_as_they_are_read() {
        let body = "{\"a\":1}\r\n\n{}\n[]\n{\"a\":1,\"a\":1}\n  \n{\"last\":\"ü\"}";
        let expected = ["1", "3", "4 wrong-type", "5 not-json", "7"];
        for size in 1..=body.len() {
            let pieces = body.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            let mut first = lines(pieces).await.unwrap();
            assert_eq!(numbers(&mut first).unwrap(), expected, "pieces of {size}");
            assert_eq!(numbers(&mut first.rewound().unwrap()).unwrap(), expected, "pieces of {size}, again");
        }
        for blank in [vec![], vec![b"\n\n".to_vec()]] {
            assert!(numbers(&mut lines(blank).await.unwrap()).unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_line_or_a_body_without_end_is_refused_before_it_fills_the_memory() {
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        for pieces in [vec![long.clone()], vec![long.clone(), b"\n".to_vec()], vec![[long, b"\n".to_vec()].concat()]] {
            let mut lines = lines(pieces).await.unwrap();
            assert_eq!(numbers(&mut lines).unwrap_err().code(), "too-large");
        }
        let mut longest = lines(vec![vec![b' '; MAX_LINE_BYTES], b"\n{}".to_vec()]).await.unwrap();
        assert_eq!(numbers(&mut longest).unwrap(), ["2"]);
        let blank = vec![b'\n'; 1 << 20];
        assert_eq!(lines(vec![blank; 65]).await.err().unwrap().code(), "too-large");
    }
}
