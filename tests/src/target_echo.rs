//! An upstream that answers with the exact bytes of the request target.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Listens until this process ends. It validates nothing, so it refuses no request.
pub struct TargetEcho {
    pub port: u16,
}

/// What the upstream received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRequest {
    pub target: Vec<u8>,
    /// The header `x-latchkey-key-id` was present: the filter allowed the request for its key.
    pub is_identified: bool,
}

impl TargetEcho {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream));
            }
        });
        Self { port }
    }
}

impl ReceivedRequest {
    /// From the body of the upstream's answer.
    pub fn parse(body: &str) -> Option<Self> {
        let (identity, target) = body.split_once(' ')?;
        let is_identified = match identity {
            "identified" => true,
            "nobody" => false,
            _ => return None,
        };
        let digits: Vec<u8> = target
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        Some(Self { target: digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect(), is_identified })
    }
}

/// Answers each request on a connection. Requests have no body.
fn serve(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (mut reader, mut writer) = (BufReader::new(stream.try_clone().ok()?), stream);
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).ok().filter(|length| *length > 0)?;
        let mut parts = line.splitn(2, |byte| *byte == b' ');
        let rest = parts.nth(1)?;
        let end = rest.windows(6).rposition(|window| window == b" HTTP/")?;
        let mut identity = "nobody";
        loop {
            let mut header = Vec::new();
            reader.read_until(b'\n', &mut header).ok().filter(|length| *length > 0)?;
            if header == b"\r\n" {
                break;
            }
            if header.to_ascii_lowercase().starts_with(b"x-latchkey-key-id:") {
                identity = "identified";
            }
        }
        let target: String = rest[..end].iter().map(|byte| format!("{byte:02x}")).collect();
        let length = identity.len() + 1 + target.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{identity} {target}");
        writer.write_all(answer.as_bytes()).ok()?;
    }
}
