//! A keep-alive connection that sends exactly the given bytes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::wait::DEADLINE;

/// One HTTP/1.1 connection. Unlike a client library it sends malformed headers too.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer. A repeated header has all its values, joined by commas.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Response {
    /// Status and `latchkey-code`, as in `401 missing-key`.
    pub fn verdict(&self) -> String {
        format!("{} {}", self.status, self.headers.get("latchkey-code").map_or("-", String::as_str))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Connection {
    pub fn open(port: u16) -> Self {
        Self::try_open(port).unwrap_or_else(|error| panic!("port {port}: {error}"))
    }

    pub fn try_open(port: u16) -> Result<Self, String> {
        Self::try_open_at(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// As [`Self::try_open`], at any address.
    pub fn try_open_at(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(DEADLINE)).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// A GET with `host` and these headers.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.try_get(path, headers).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub fn try_get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Response, String> {
        self.try_request("GET", path, headers)
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.try_request(method, path, headers).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub fn try_request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Response, String> {
        let request = request_text(method, path, headers);
        self.try_raw(request.as_bytes())
    }

    /// A HEAD, whose answer has a length and no body.
    pub fn head(&mut self, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = request_text("HEAD", path, headers);
        self.send(request.as_bytes())
            .and_then(|()| self.read_head())
            .unwrap_or_else(|error| panic!("HEAD {path}: {error}"))
    }

    /// Sends bytes as they are and reads one answer.
    pub fn raw(&mut self, bytes: &[u8]) -> Response {
        self.try_raw(bytes).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(bytes)))
    }

    pub fn try_raw(&mut self, bytes: &[u8]) -> Result<Response, String> {
        self.send(bytes)?;
        self.read_answer()
    }

    /// Reads the next answer, with its body.
    pub fn read_answer(&mut self) -> Result<Response, String> {
        let mut answer = self.read_head()?;
        let body = if answer.headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
            self.read_chunks()?
        } else {
            let length = answer.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            self.read_exactly(length)?
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| error.to_string())
    }

    /// The next bytes, when the connection is no longer HTTP.
    pub fn read_bytes(&mut self, length: usize) -> Vec<u8> {
        self.try_read_bytes(length).unwrap_or_else(|error| panic!("{length} bytes: {error}"))
    }

    /// As [`Self::read_bytes`], on a connection that may have ended.
    pub fn try_read_bytes(&mut self, length: usize) -> Result<Vec<u8>, String> {
        self.read_exactly(length)
    }

    /// Status and headers of the next answer.
    pub fn read_head(&mut self) -> Result<Response, String> {
        let head = self.read_until_blank_line()?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("no status in {head:?}"))?;
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let values = headers.entry(name.to_ascii_lowercase()).or_default();
            if !values.is_empty() {
                values.push(',');
            }
            values.push_str(value.trim());
        }
        Ok(Response { status, headers, body: String::new() })
    }

    fn read_until_blank_line(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < length {
            self.fill()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn read_chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            while !self.unread.contains(&b'\n') {
                self.fill()?;
            }
            let end = self.unread.iter().position(|byte| *byte == b'\n').expect("a line");
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let size = String::from_utf8_lossy(&line).trim().to_owned();
            let size = usize::from_str_radix(&size, 16).map_err(|error| format!("chunk size {size:?}: {error}"))?;
            let chunk = self.read_exactly(size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    fn fill(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err("the connection was closed".to_owned()),
            Ok(length) => {
                self.unread.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            // A process that was stopped and continued: with a timeout, Linux doesn't restart the call (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn request_text(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: api.example\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !matches!(method, "GET" | "HEAD" | "CONNECT") {
        request.push_str("content-length: 0\r\n");
    }
    request.push_str("\r\n");
    request
}
