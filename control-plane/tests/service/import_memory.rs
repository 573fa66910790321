//! Resources of imports: memory and disk while their bodies arrive, and memory while they are carried out.

use std::fs::{self, read_to_string};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use test_support::digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::start::{Running, command};

const DEADLINE: Duration = Duration::from_secs(60);

const MIB: u64 = 1 << 20;

/// A control plane with the workspace `acme`.
struct Server {
    running: Running,
    _directory: tempfile::TempDir,
    admin: String,
}

impl Server {
    async fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = Running::start(command(directory.path(), more));
        let admin = read_to_string(directory.path().join("admin.token")).unwrap().trim_end().to_owned();
        let server = Self { running, _directory: directory, admin };
        let made = server.ask("/v1/workspaces", "application/json", br#"{"name": "Acme", "slug": "acme"}"#).await;
        assert!(made.starts_with("HTTP/1.1 201 "), "{made}");
        server
    }

    fn address(&self) -> SocketAddr {
        self.running.address.parse().unwrap()
    }

    /// A connection with the head of a request with a body of this length.
    async fn begin(&self, path: &str, kind: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             content-type: {kind}\r\ncontent-length: {length}\r\n\r\n",
            self.admin
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn ask(&self, path: &str, kind: &str, body: &[u8]) -> String {
        let mut stream = self.begin(path, kind, body.len()).await;
        stream.write_all(body).await.unwrap();
        answer(&mut stream).await
    }

    async fn import(&self, body: &[u8]) -> String {
        self.ask("/v1/keys/import", "application/jsonl", body).await
    }

    /// An import of which only the first `sent` bytes are sent.
    async fn begin_import(&self, body: &[u8], sent: usize) -> TcpStream {
        let mut stream = self.begin("/v1/keys/import", "application/jsonl", body.len()).await;
        stream.write_all(&body[..sent]).await.unwrap();
        stream
    }

    /// `VmRSS` (now) or `VmHWM` (the maximum so far), in bytes.
    fn memory(&self, name: &str) -> u64 {
        let status = read_to_string(format!("/proc/{}/status", self.running.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Bytes in files without a name.
    fn spooled(&self) -> u64 {
        let all = fs::read_dir(format!("/proc/{}/fd", self.running.child.id())).unwrap();
        // One may be closed in the meantime.
        let spooled = all.filter_map(Result::ok).filter_map(|entry| {
            let is_unlinked = fs::read_link(entry.path()).ok()?.to_string_lossy().ends_with(" (deleted)");
            is_unlinked.then(|| fs::metadata(entry.path()).ok())?
        });
        spooled.map(|file| file.len()).sum()
    }

    /// Waits until the server has read everything that clients sent.
    async fn has_read_everything(&self) {
        let port = format!(":{:04X}", self.address().port());
        let waiting = || {
            let all = read_to_string("/proc/net/tcp").unwrap();
            let own = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let own = own.filter(|line| line.len() > 4 && (line[1].ends_with(&port) || line[2].ends_with(&port)));
            own.filter(|line| line[4] != "00000000:00000000").count()
        };
        let began = Instant::now();
        while waiting() > 0 {
            assert!(began.elapsed() < DEADLINE, "what was sent is not taken");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Everything that arrives until the other side closes.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_secs(300), stream.read_to_end(&mut bytes)).await;
    read.unwrap_or_else(|_| panic!("the connection stays: {}", String::from_utf8_lossy(&bytes))).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Lines of keys with this name.
fn lines(name: &str, keys: usize) -> Vec<u8> {
    lines_with(name, keys, "")
}

/// The same, each with this note.
fn lines_with(name: &str, keys: usize, note: &str) -> Vec<u8> {
    let line = |number: usize| {
        let digest = digest::hexadecimal(&format!("{name}-{number}"));
        format!(
            r#"{{"digest":"{digest}","name":"{name}","expires_in":"none","workspace":"acme","metadata":{{"note":"{note}"}}}}"#
        ) + "\n"
    };
    (0..keys).map(line).collect::<String>().into_bytes()
}

#[tokio::test]
async fn imports_that_are_not_complete_are_kept_on_disk_and_not_in_memory() {
    let server = Server::start(&[]).await;
    let body = lines("theirs", 16_000);
    let length = u64::try_from(body.len()).unwrap();
    let before = server.memory("VmRSS");
    let mut unfinished = Vec::new();
    for _ in 0..50 {
        unfinished.push(server.begin_import(&body, body.len() - 1).await);
    }
    server.has_read_everything().await;
    let grown = server.memory("VmRSS").saturating_sub(before);
    assert!(grown < 40 * MIB, "{grown} bytes for 50 unfinished bodies of {length}");
    let spooled = server.spooled();
    assert!(spooled > 50 * (length - MIB / 4) && spooled <= 50 * length, "{spooled} of 50 times {length} are on disk");

    // Clients that disconnect leave nothing behind; one that continues is imported.
    let mut last = unfinished.pop().unwrap();
    drop(unfinished);
    last.write_all(b"\n").await.unwrap();
    let answer = answer(&mut last).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""imported":16000"#), "{:.300}", answer);
    let began = Instant::now();
    while server.spooled() > 0 {
        assert!(began.elapsed() < DEADLINE, "{} bytes stay", server.spooled());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn beyond_the_room_for_bodies_an_import_is_refused_until_there_is_some_again() {
    let server = Server::start(&["--import-spool-bytes", "1000000", "--still-ms", "2000"]).await;
    let body = lines("theirs", 4_000);
    assert!((500_000..1_000_000).contains(&body.len()), "two of them have no room");
    for goes_away in [true, false] {
        let unfinished = server.begin_import(&body, body.len() - 1).await;
        server.has_read_everything().await;
        let refused = server.import(&body).await;
        assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
        for part in ["limit-reached", r#""limit":"import_spool_bytes""#, r#""maximum":1000000"#, "retry-after: 10"] {
            assert!(refused.contains(part), "no {part} in {refused}");
        }
        // A stalled one is ended by its deadline.
        let unfinished = (!goes_away).then_some(unfinished);
        let began = Instant::now();
        loop {
            let own = lines(&format!("other-{goes_away}"), 4_000);
            let answer = server.import(&own).await;
            if answer.starts_with("HTTP/1.1 200 ") {
                break;
            }
            assert!(answer.starts_with("HTTP/1.1 429 ") && began.elapsed() < DEADLINE, "{answer}");
            sleep(Duration::from_millis(50)).await;
        }
        drop(unfinished);
    }
}

#[tokio::test]
async fn a_slow_honest_import_is_taken() {
    let server = Server::start(&["--still-ms", "400"]).await;
    let body = lines("slow", 24);
    let mut stream = server.begin_import(&body, 0).await;
    let began = Instant::now();
    // About 1.5 KiB a second, for longer than any deadline here.
    for part in body.chunks(150) {
        sleep(Duration::from_millis(100)).await;
        stream.write_all(part).await.unwrap();
    }
    assert!(began.elapsed() > Duration::from_millis(1_600));
    let answer = answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn an_import_of_the_maximum_number_of_keys_takes_little_memory() {
    let server = Server::start(&[]).await;
    let body = lines_with("theirs", 100_000, &"x".repeat(200));
    let (before, began) = (server.memory("VmRSS"), Instant::now());
    let answer = server.import(&body).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""imported":100000"#), "{:.300}", answer);
    let grown = server.memory("VmHWM").saturating_sub(before);
    println!("100,000 keys: at most {} MiB more memory, {:?}", grown / MIB, began.elapsed());
    assert!(grown < 64 * MIB, "{grown} bytes more at most, for a body of {}", body.len());
}
