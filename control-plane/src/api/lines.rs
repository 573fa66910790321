//! A body of JSON lines: one object a line, read as they come.

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use futures_util::StreamExt as _;

use super::body::{NoObject, object};
use super::fields::Fields;
use crate::problem::{FieldError, Problem};

/// What the format is called: the first is what we say.
pub(super) const MEDIA_TYPES: [&str; 3] = ["application/jsonl", "application/x-ndjson", "application/json-lines"];

/// The most bytes of a body: as many lines as one may have, of 640 bytes each.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The most bytes of a line: one key with as much metadata and as many networks as it may have.
const MAX_LINE_BYTES: usize = 16 << 10;

/// The lines of a body that are still to be read.
pub(super) struct Lines {
    body: BodyDataStream,
    /// What was received and not read yet begins at `read`; there is no end of a line before `searched`.
    received: Vec<u8>,
    read: usize,
    searched: usize,
    has_ended: bool,
    bytes: usize,
    number: usize,
}

/// A line that isn't blank.
pub(super) struct Line {
    /// From 1 on, blank lines counted.
    pub(super) number: usize,
    /// Or why it is no JSON object.
    pub(super) fields: Result<Fields, FieldError>,
}

impl<S: Sync> FromRequest<S> for Lines {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !MEDIA_TYPES.iter().any(|name| essence.eq_ignore_ascii_case(name)) {
            let [name, ..] = MEDIA_TYPES;
            return Err(Problem::not_json_type(name));
        }
        Ok(Self::new(request.into_body()))
    }
}

impl Lines {
    fn new(body: Body) -> Self {
        let body = body.into_data_stream();
        Self { body, received: Vec::new(), read: 0, searched: 0, has_ended: false, bytes: 0, number: 0 }
    }

    /// The next line that isn't blank; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, Problem> {
        while let Some(line) = self.next_of_any_kind().await? {
            if !line.trim_ascii().is_empty() {
                let fields = object(&line).map_err(|error| match error {
                    NoObject::NotJson(message) => FieldError {
                        field: String::new(),
                        code: "not-json",
                        message: format!("is not JSON: {message}"),
                    },
                    NoObject::Other(error) => error,
                });
                return Ok(Some(Line { number: self.number, fields }));
            }
        }
        Ok(None)
    }

    async fn next_of_any_kind(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        loop {
            let unsearched = self.received.get(self.searched..).unwrap_or_default();
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let end = self.searched.saturating_add(at);
                return self.take(end).map(Some);
            }
            self.searched = self.received.len();
            if self.has_ended {
                let is_over = self.read == self.received.len();
                return if is_over { Ok(None) } else { self.take(self.received.len()).map(Some) };
            }
            if self.searched.saturating_sub(self.read) > MAX_LINE_BYTES {
                return Err(Problem::too_long_line(self.number.saturating_add(1), MAX_LINE_BYTES));
            }
            self.receive().await?;
        }
    }

    /// The line up to `end`, where its line feed or the end of the body is.
    fn take(&mut self, end: usize) -> Result<Vec<u8>, Problem> {
        self.number = self.number.saturating_add(1);
        let line = self.received.get(self.read..end).unwrap_or_default().to_vec();
        if line.len() > MAX_LINE_BYTES {
            return Err(Problem::too_long_line(self.number, MAX_LINE_BYTES));
        }
        self.read = end.saturating_add(1).min(self.received.len());
        self.searched = self.read;
        Ok(line)
    }

    async fn receive(&mut self) -> Result<(), Problem> {
        // Thousands of lines come at once: others get between.
        tokio::task::yield_now().await;
        match self.body.next().await {
            Some(Ok(bytes)) => {
                self.bytes = self.bytes.saturating_add(bytes.len());
                if self.bytes > MAX_BODY_BYTES {
                    return Err(Problem::too_large(MAX_BODY_BYTES));
                }
                self.received.drain(..self.read);
                self.searched = self.searched.saturating_sub(self.read);
                self.read = 0;
                self.received.extend_from_slice(&bytes);
            }
            // A client that went away gets no answer anyway, and what it began to send is no body.
            Some(Err(_)) => return Err(Problem::not_json("the body broke off".to_owned())),
            None => self.has_ended = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    /// The numbers of the lines of a body that comes in these pieces; of those that are refused, with the code.
    async fn numbers(pieces: Vec<Vec<u8>>) -> Result<Vec<String>, Problem> {
        let pieces = pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
        let mut lines = Lines::new(Body::from_stream(stream::iter(pieces)));
        let mut numbers = Vec::new();
        while let Some(line) = lines.next().await? {
            numbers.push(match line.fields {
                Ok(_) => line.number.to_string(),
                Err(error) => format!("{} {}", line.number, error.code),
            });
        }
        Ok(numbers)
    }

    #[tokio::test]
    async fn lines_are_the_same_however_they_are_cut() {
        let body = "{\"a\":1}\r\n\n{}\n[]\n{\"a\":1,\"a\":1}\n  \n{\"last\":\"ü\"}";
        let expected = ["1", "3", "4 wrong-type", "5 not-json", "7"];
        for size in 1..=body.len() {
            let pieces = body.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(numbers(pieces).await.unwrap(), expected, "pieces of {size}");
        }
        assert!(numbers(vec![]).await.unwrap().is_empty());
        assert!(numbers(vec![b"\n\n".to_vec()]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_line_or_a_body_without_end_is_refused_before_it_fills_the_memory() {
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        for pieces in [vec![long.clone()], vec![long.clone(), b"\n".to_vec()], vec![[long, b"\n".to_vec()].concat()]] {
            assert_eq!(numbers(pieces).await.unwrap_err().code(), "too-large");
        }
        let blank = vec![b'\n'; 1 << 20];
        assert_eq!(numbers(vec![blank; 65]).await.unwrap_err().code(), "too-large");
    }
}
