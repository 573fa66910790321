//! Connections of the binary: stalled ones, and those beyond a limit.

use std::fs::{read_to_string, write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::start::{Running, command};

const DEADLINE: Duration = Duration::from_secs(9);

struct Server {
    running: Running,
    directory: tempfile::TempDir,
}

impl Server {
    /// A server with this deadline for stalled connections, from which its other deadlines follow.
    fn start(still_ms: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = Running::start(command(directory.path(), &["--still-ms", &still_ms.to_string()]));
        Self { running, directory }
    }

    fn token(&self, name: &str) -> String {
        read_to_string(self.directory.path().join(format!("{name}.token"))).unwrap().trim_end().to_owned()
    }

    fn address(&self) -> SocketAddr {
        self.running.address.parse().unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// A connection whose client has a receive buffer of about this many bytes.
    async fn connect_keeping(&self, bytes: u32) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect(self.address()).await.unwrap()
    }

    /// The head of a request with the token in this file, without the line that ends it.
    fn head(&self, method: &str, path: &str, token: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n", self.token(token))
    }

    /// The head of a feed request, without the line that ends it.
    fn feed(&self, instance: &str, rest: &str) -> String {
        self.head("GET", &format!("/edge/v1/feed?format=1&edge=e&instance={instance}{rest}"), "edge")
    }

    /// The query parameters of an edge that is up to date.
    async fn since(&self) -> String {
        let mut stream = self.connect().await;
        let question = self.feed("since", "") + "connection: close\r\n\r\n";
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut manifest = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut manifest)).await.unwrap().unwrap();
        let body = manifest.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        let at = policy::table::Loading::start(&manifest[body..]).unwrap().position();
        format!("&epoch={}&since={}&head={}", at.epoch, at.revision, at.head)
    }

    /// Everything that a new connection receives for a request until it is closed.
    async fn closed_after(&self, head: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        rest(&mut stream).await
    }
}

/// Everything that arrives until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    rest_within(DEADLINE, stream).await
}

async fn rest_within(deadline: Duration, stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(deadline, stream.read_to_end(&mut bytes)).await;
    read.unwrap_or_else(|_| panic!("the connection stays: {}", String::from_utf8_lossy(&bytes))).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The result of the next read; an answer here fits into one.
async fn next(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 64 << 10];
    let read = timeout(DEADLINE, stream.read(&mut bytes)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// Sends many requests whose answers exceed what the system keeps for a client that doesn't read.
async fn ask_for_much(stream: &mut TcpStream) {
    let request = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request.repeat(400).as_bytes()).await.unwrap();
}

/// Bytes that the server's end has written and the client's end hasn't taken; `None` if the server has closed the
/// connection.
fn unsent(server: SocketAddr, client: SocketAddr) -> Option<u64> {
    let end = |address: SocketAddr| format!(":{:04X} ", address.port());
    let all = read_to_string("/proc/net/tcp").unwrap();
    let own = all.lines().find(|line| {
        let mut ends = line.split_whitespace().skip(1).map(|end| format!("{end} "));
        ends.next().is_some_and(|own| own.ends_with(&end(server)))
            && ends.next().is_some_and(|other| other.ends_with(&end(client)))
    });
    let queues = own?.split_whitespace().nth(4)?;
    u64::from_str_radix(queues.split(':').next()?, 16).ok()
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_connection_and_a_slow_one_does_not() {
    let server = Server::start(1_000);
    let mut unread = server.connect().await;
    ask_for_much(&mut unread).await;
    // A small buffer: with one of megabytes, a system announces room only once a sixteenth was read, which is too late
    // for these deadlines.
    let mut slow = server.connect_keeping(128 << 10).await;
    ask_for_much(&mut slow).await;
    let began = Instant::now();
    let mut bytes = vec![0; 64 << 10];
    // It reads slowly, and for so long that the system's buffers alone can't hold the answers.
    loop {
        let read = timeout(DEADLINE, slow.read(&mut bytes)).await.unwrap().expect("a slow client keeps its connection");
        assert!(read > 0, "a slow client keeps its connection");
        if unsent(server.address(), unread.local_addr().unwrap()).is_none() && began.elapsed() > Duration::from_secs(2)
        {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "a client that reads nothing is still there");
        sleep(Duration::from_millis(40)).await;
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_does_not_hold_the_end_up() {
    let mut server = Server::start(6_000);
    let mut stream = server.connect().await;
    ask_for_much(&mut stream).await;
    let (own, began) = (stream.local_addr().unwrap(), Instant::now());
    // Until the buffers of the system are full, and stay so for a while.
    let (mut before, mut unchanged) = (None, 0);
    while unchanged < 10 {
        let now = unsent(server.address(), own);
        unchanged = if now.is_some_and(|now| now > 0) && now == before { unchanged + 1 } else { 0 };
        before = now;
        assert!(began.elapsed() < DEADLINE, "nothing waits for its client");
        sleep(Duration::from_millis(50)).await;
    }
    let began = Instant::now();
    server.running.signal("-TERM");
    assert!(server.running.child.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(4), "the end took {:?}", began.elapsed());
}

/// The number of connections with bytes that the server has written and the client hasn't taken.
fn stalled(server: SocketAddr) -> usize {
    let own = format!(":{:04X}", server.port());
    let all = read_to_string("/proc/net/tcp").unwrap();
    let lines = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(|line| line.len() > 4 && line[1].ends_with(&own) && !line[4].starts_with("00000000:")).count()
}

#[tokio::test]
async fn clients_that_take_nothing_share_the_answer_that_waits_for_them() {
    let server = Server::start(30_000);
    let memory = || {
        let status = read_to_string(format!("/proc/{}/status", server.running.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    let before = memory();
    let mut clients = Vec::new();
    for _ in 0..500 {
        let mut stream = server.connect_keeping(4_096).await;
        let request = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request.repeat(10).as_bytes()).await.unwrap();
        clients.push(stream);
    }
    let began = Instant::now();
    while stalled(server.address()) < clients.len() {
        assert!(began.elapsed() < DEADLINE, "not all of them take nothing");
        sleep(Duration::from_millis(20)).await;
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 30, "{grown} MiB more for {} clients", clients.len());
}

const BODIES: [(&str, &str); 4] = [
    ("/v1/workspaces", "admin"),
    ("/v1/keys/import", "admin"),
    ("/edge/v1/acknowledgements", "edge"),
    ("/edge/v1/usage", "edge"),
];

/// The answer before the connection ends, to a body that begins and then stops, or continues with one byte at a time.
async fn answer_to_slow_body(server: &Server, path: &str, token: &str, each: Option<Duration>) -> String {
    let mut stream = server.connect().await;
    let kind = if path.ends_with("import") { "application/jsonl" } else { "application/json" };
    let more = format!("content-type: {kind}\r\ncontent-length: 100000\r\n\r\n{{");
    stream.write_all((server.head("POST", path, token) + &more).as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let trickle = async {
        if let Some(each) = each {
            while to.write_all(b" ").await.is_ok() {
                sleep(each).await;
            }
        }
        std::future::pending::<String>().await
    };
    let answer = async {
        let mut answer = Vec::new();
        let ended = timeout(DEADLINE, from.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        // A byte in flight at the close may be an error here: the connection has ended either way.
        if ended.is_ok() { answer.into_owned() } else { format!("the connection stays: {answer}") }
    };
    tokio::select! {
        answer = answer => answer,
        never = trickle => never,
    }
}

#[tokio::test]
async fn a_body_that_stalls_or_is_too_slow_ends_its_connection() {
    let server = Server::start(500);
    let all = BODIES.into_iter().flat_map(|body| [(body, None), (body, Some(Duration::from_millis(100)))]);
    futures_util::future::join_all(all.map(async |((path, token), each)| {
        let answer = answer_to_slow_body(&server, path, token, each).await;
        let is_ended = answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow-body");
        assert!(is_ended, "{path}, a byte each {each:?}: {answer}");
    }))
    .await;
}

#[tokio::test]
async fn a_slow_honest_body_is_taken() {
    let server = Server::start(400);
    let body = format!("{:<3000}", r#"{"name": "Acme", "slug": "acme"}"#);
    let mut stream = server.connect().await;
    let head = server.head("POST", "/v1/workspaces", "admin");
    let head = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    // About 1.5 KiB a second, for longer than any deadline here.
    for part in body.as_bytes().chunks(150) {
        sleep(Duration::from_millis(100)).await;
        stream.write_all(part).await.unwrap();
    }
    assert!(began.elapsed() > Duration::from_millis(1_600));
    let answer = next(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

#[tokio::test]
async fn a_feed_request_that_waits_is_not_idle() {
    let server = Server::start(200);
    let waits = server.feed("i", &format!("{}&wait=2", server.since().await)) + "connection: close\r\n";
    let began = Instant::now();
    let answer = server.closed_after(&waits).await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && began.elapsed() > Duration::from_millis(1_900), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_one_address_an_edge_is_served_beside_5000_others() {
    const OTHERS: usize = 5_000;
    const BACKOFF: Duration = Duration::from_millis(200);
    let server = limited("", "");
    let since = server.since().await;
    // All at the same time, as after a restart of the control plane. One that found no place backs off, as a filter
    // does.
    let mut others = JoinSet::new();
    for number in 0..OTHERS {
        let waits = server.feed(&format!("i{number}"), &format!("{since}&wait=60")) + "\r\n";
        let address = server.address();
        others.spawn(async move {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut bytes = [0; 12];
                let sent = stream.write_all(waits.as_bytes()).await;
                if sent.is_ok() && stream.read_exact(&mut bytes).await.is_ok() && &bytes == b"HTTP/1.1 200" {
                    return;
                }
                tokio::time::sleep(BACKOFF).await;
            }
        });
    }
    let metrics = server.head("GET", "/metrics", "admin") + "connection: close\r\n";
    // The others are many, and this request waits for its turn behind them.
    let known = async || {
        let mut stream = server.connect().await;
        stream.write_all(format!("{metrics}\r\n").as_bytes()).await.unwrap();
        let metrics = rest_within(3 * DEADLINE, &mut stream).await;
        let states = metrics.lines().filter_map(|line| line.strip_prefix("latchkey_edges{")?.split_once("} "));
        states.filter_map(|(_, number)| number.parse::<usize>().ok()).sum::<usize>()
    };
    let began = Instant::now();
    while known().await < OTHERS + 1 {
        assert!(
            began.elapsed() < 3 * DEADLINE,
            "of {OTHERS} edges and one that was there before, {} are known",
            known().await
        );
    }
    // One more, which the server doesn't know yet.
    let mut stream = server.connect().await;
    stream.write_all((server.feed("one-more", "") + "\r\n").as_bytes()).await.unwrap();
    let answer = next(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // A change reaches all of them.
    let body = r#"{"name": "Acme", "slug": "acme"}"#;
    let head =
        server.head("POST", "/v1/workspaces", "admin") + "connection: close\r\ncontent-type: application/json\r\n";
    let answer = server.closed_after(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    timeout(3 * DEADLINE, others.join_all()).await.expect("a change comes to all");
}

/// A server with this configuration, in a shell with these limits.
fn limited(config: &str, shell: &str) -> Server {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path().join("latchkey.toml"), config).unwrap();
    let plain = command(directory.path(), &["--config", "latchkey.toml"]);
    let mut limited = Command::new("sh");
    limited.current_dir(directory.path()).env_clear().stdout(Stdio::piped()).stderr(Stdio::null());
    limited.args(["-c", &format!("{shell} exec \"$0\" \"$@\"")]).arg(plain.get_program()).args(plain.get_args());
    let running = Running::start(limited);
    Server { running, directory }
}

/// Asserts that `server` refuses clients without a token by the limit with this name, and serves clients with one.
async fn assert_full(server: &Server, limit: &str) {
    for head in [
        "GET /healthz HTTP/1.1\r\nhost: a\r\n",
        "GET /v1/workspaces HTTP/1.1\r\nhost: a\r\nauthorization: Bearer x\r\n",
    ] {
        let answer = server.closed_after(head).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{limit}: {answer}");
        for part in ["limit-reached", &format!("\"{limit}\""), "connection: close", "retry-after: 30"] {
            assert!(answer.contains(part), "{limit}: no {part} in {answer}");
        }
    }
    for (path, token) in [("/v1/workspaces", "admin"), ("/edge/v1/feed?format=1&edge=e&instance=i", "edge")] {
        let mut stream = server.connect().await;
        stream.write_all((server.head("GET", path, token) + "\r\n").as_bytes()).await.unwrap();
        let answer = next(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{limit}: {path}: {answer}");
    }
}

/// Waits until all places of clients without a token are free again.
async fn assert_free(server: &Server) {
    let began = Instant::now();
    while !server.closed_after("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n").await.contains(" 200 OK") {
        assert!(began.elapsed() < DEADLINE, "the places stay taken");
    }
}

#[tokio::test]
async fn beyond_the_limit_of_an_address_a_right_token_is_needed() {
    let server = limited("[limits]\nconnections_per_address = 3\n", "");
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(server.connect().await);
    }
    assert_full(&server, "connections_per_address").await;
    // Many with a token, all of which stay open.
    let mut proven = Vec::new();
    for _ in 0..50 {
        let mut stream = server.connect().await;
        stream.write_all((server.head("GET", "/v1/workspaces", "admin") + "\r\n").as_bytes()).await.unwrap();
        let answer = next(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        proven.push(stream);
    }
    drop(idle);
    assert_free(&server).await;
    // Connections with a token have places of their own.
    drop(proven);
}

#[tokio::test]
async fn when_all_places_are_taken_those_with_a_token_still_get_in() {
    // The limit of open files leaves only a few places.
    let server = limited("[limits]\nconnections_per_address = 0\n", "ulimit -n 300;");
    let mut idle = Vec::new();
    for _ in 0..140 {
        idle.push(server.connect().await);
    }
    assert_full(&server, "connections").await;
    drop(idle);
    assert_free(&server).await;
}
