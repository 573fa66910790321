//! The link between an Envoy and its control plane, on which a test injects faults into answers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use crate::wait::{eventually, pause};

/// What happens to the control plane's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// They arrive unchanged.
    Nothing,
    /// None arrives, and the connection stays open.
    Silence,
    /// They arrive byte by byte, with pauses.
    Slow,
    /// Half of the body arrives, then the sending side closes.
    HalfClosed,
    /// Half of the body arrives, then the connection closes.
    CutOff,
    /// One bit of the body is flipped.
    Flipped,
    /// The head is right, the body is random.
    RandomBody,
    /// Not HTTP at all.
    Random,
    /// More than Envoy buffers of an answer, with a `content-length`.
    Oversized,
    /// Chunks without an end.
    Endless,
    /// The page of a captive portal in between, with status 200.
    CaptivePortal,
}

/// The most bytes that Envoy's `dispatch_http_call` buffers of an answer.
const ENVOY_BUFFER_LIMIT: usize = 32 << 20;

/// A port that forwards to another one, with a chosen fault. Ends with the test.
pub struct Link {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to: u16,
    fault: Mutex<LinkFault>,
    open: Mutex<Vec<TcpStream>>,
    damaged: AtomicU64,
}

impl Link {
    /// A link to a port of this machine.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("its port").port();
        let shared = Shared {
            to: port,
            fault: Mutex::new(LinkFault::Nothing),
            open: Mutex::default(),
            damaged: AtomicU64::new(0),
        };
        let shared = Arc::new(shared);
        let link = Self { port: own, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&shared);
                lock(&shared.open).push(stream.try_clone().expect("a second handle"));
                // A failure here only ends the connection.
                std::thread::spawn(move || drop(shared.handle(stream)));
            }
        });
        link
    }

    /// From now on answers have this fault. Closes the open connections.
    pub fn set(&self, fault: LinkFault) {
        *lock(&self.shared.fault) = fault;
        for stream in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until `more` further answers are damaged.
    pub fn wait_damaged(&self, more: u64) {
        let damaged = || self.shared.damaged.load(Ordering::Relaxed);
        let until = damaged() + more;
        eventually("answers are damaged", || match damaged() {
            seen if seen >= until => Ok(()),
            seen => Err(format!("{} to go", until - seen)),
        });
    }
}

impl Shared {
    /// Handles one request; the connection ends with it.
    fn handle(&self, mut edge: TcpStream) -> std::io::Result<()> {
        let request = read_request(&mut edge)?;
        let fault = *lock(&self.fault);
        if fault != LinkFault::Nothing {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
        let is_current = || *lock(&self.fault) == fault;
        match fault {
            LinkFault::Nothing => drop(std::io::copy(&mut self.forward(&request)?, &mut edge)?),
            LinkFault::Silence => {}
            LinkFault::Slow => {
                for byte in read_answer(&mut self.forward(&request)?)? {
                    edge.write_all(&[byte])?;
                    (0..20).for_each(|_| pause());
                }
            }
            LinkFault::HalfClosed | LinkFault::CutOff => {
                let answer = read_answer(&mut self.forward(&request)?)?;
                edge.write_all(&answer[..answer.len() - body_of(&answer).len().div_ceil(2)])?;
                edge.shutdown(if fault == LinkFault::CutOff { Shutdown::Both } else { Shutdown::Write })?;
            }
            LinkFault::Flipped | LinkFault::RandomBody => {
                let mut answer = read_answer(&mut self.forward(&request)?)?;
                let (mut random, start) = (Rng::new(), answer.len() - body_of(&answer).len());
                if fault == LinkFault::RandomBody {
                    answer[start..].iter_mut().for_each(|byte| *byte = random.u8(..));
                } else if start < answer.len() {
                    let at = random.usize(start..answer.len());
                    answer[at] ^= 1 << random.u8(..8);
                }
                edge.write_all(&answer)?;
            }
            LinkFault::Random => {
                let mut random = Rng::new();
                edge.write_all(&(0..10_000).map(|_| random.u8(..)).collect::<Vec<_>>())?;
            }
            LinkFault::Oversized => {
                let bytes = vec![0; ENVOY_BUFFER_LIMIT + 1];
                edge.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len()).as_bytes())?;
                edge.write_all(&bytes)?;
            }
            LinkFault::Endless => {
                edge.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                let chunk = [b"100000\r\n".as_slice(), &vec![0; 1 << 20], b"\r\n"].concat();
                while is_current() {
                    edge.write_all(&chunk)?;
                }
            }
            LinkFault::CaptivePortal => {
                let page = "<html>please sign in</html>";
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", page.len());
                edge.write_all([head.as_bytes(), page.as_bytes()].concat().as_slice())?;
            }
        }
        // Only `CutOff` closes the connection before the fault changes.
        while is_current() && !matches!(fault, LinkFault::Nothing | LinkFault::CutOff) {
            if edge.read(&mut [0; 4_096])? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Forwards the request; the answer ends with its connection.
    fn forward(&self, request: &[u8]) -> std::io::Result<TcpStream> {
        let mut control_plane = TcpStream::connect(("127.0.0.1", self.to))?;
        let line = request.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (line, rest) = request.split_at(line);
        control_plane.write_all(&[line, b"connection: close\r\n", rest].concat())?;
        Ok(control_plane)
    }
}

fn read_answer(control_plane: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    control_plane.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Head and body of a request.
fn read_request(edge: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut request, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        let head = request.len() - body_of(&request).len();
        let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        if head > 0 && request.len() >= head + length.unwrap_or(0) {
            return Ok(request);
        }
        match edge.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
}

/// What follows the head; the whole message while the head is incomplete.
fn body_of(message: &[u8]) -> &[u8] {
    let end = message.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    &message[end.map_or(0, |end| end + 4)..]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
