//! A noisy neighbour: a tenant and clients that use more than their share of a control plane.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::{Admin, ControlPlane};

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(10);

/// Keys that a round imports and deletes again.
const KEYS: usize = 200;

/// Networks of each key, as many as a large tenant has.
pub const NETWORKS: usize = 28;

/// Rounds after which the server has closed the connections of the first: three times its deadline of 30 s.
const HELD_ROUNDS: usize = 9;

const WORKSPACE: &str = "disturber";

/// A thread that imports large keys and deletes them, sends requests whose answers it never reads, and starts imports
/// that it never completes.
pub struct NoisyNeighbour {
    end: Sender<()>,
    thread: JoinHandle<usize>,
}

impl NoisyNeighbour {
    /// Creates its own workspace.
    pub fn start(control_plane: &ControlPlane) -> Self {
        let (end, ended) = mpsc::channel();
        let (admin, port, token) = (control_plane.admin(), control_plane.port, control_plane.admin_token());
        admin.create_workspace(WORKSPACE);
        let thread = std::thread::spawn(move || {
            let (mut rounds, mut held) = (0, VecDeque::new());
            loop {
                import_and_delete(&admin, rounds * KEYS..(rounds + 1) * KEYS);
                held.push_back((send_without_reading(port), send_incomplete_import(port, &token)));
                if held.len() > HELD_ROUNDS
                    && let Some((unread, unfinished)) = held.pop_front()
                {
                    assert_closed(unread, "a connection that reads nothing");
                    assert_closed(unfinished, "an incomplete body");
                }
                rounds += 1;
                if ended.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return rounds;
                }
            }
        });
        Self { end, thread }
    }

    /// Stops it after the current round; returns the number of rounds. Fails if a round failed.
    pub fn stop(self) -> usize {
        drop(self.end);
        self.thread.join().expect("each round of the noisy neighbour passes")
    }
}

/// An import line for each of these numbers: a key with many networks and the digest of no known secret.
pub fn large_lines(numbers: Range<usize>) -> String {
    let networks: Vec<_> = (0..NETWORKS).map(|number| format!("10.{number}.0.0/16")).collect();
    let line = |number: usize| {
        // Uniformly distributed, as digests are.
        let digest = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = json!({
            "digest": format!("{digest:016x}{number:048x}"),
            "name": format!("key {number}"),
            "expires_in": "none",
            "ip_allowlist": networks,
        });
        format!("{key}\n")
    };
    numbers.map(line).collect()
}

fn import_and_delete(admin: &Admin, numbers: Range<usize>) {
    let keys = format!("/v1/workspaces/{WORKSPACE}/keys");
    let (status, answer) = admin.send_lines(&format!("{keys}/import"), large_lines(numbers));
    assert_eq!(status, 200, "{answer}");
    let all = json!({"dry_run": false, "status": "active"});
    let deleted = admin.send("POST", &format!("{keys}/delete-matching"), Some(&all));
    assert!(
        deleted.as_ref().is_some_and(|(status, answer)| *status == 200 && answer["matched"] == KEYS),
        "{deleted:?}"
    );
}

fn send(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.write_all(bytes).expect("the request is sent");
    stream
}

/// Many requests whose answers are never read.
fn send_without_reading(port: u16) -> TcpStream {
    send(port, "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(400).as_bytes())
}

/// The first part of an import.
fn send_incomplete_import(port: u16, token: &str) -> TcpStream {
    let head = format!(
        "POST /v1/workspaces/{WORKSPACE}/keys/import HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         content-type: application/jsonl\r\ncontent-length: 10000000\r\n\r\n"
    );
    send(port, format!("{head}{}", large_lines(0..1_000)).as_bytes())
}

fn assert_closed(mut stream: TcpStream, what: &str) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a deadline");
    let mut bytes = vec![0; 1 << 20];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{what} is still open: {error}"),
        }
    }
}
