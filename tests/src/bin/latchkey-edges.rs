//! Many simulated edges without Envoy: each waits in the feed as a filter does, and records when a change arrives.

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Time limit of a stage: until all edges wait in the feed, or until all have received a change.
const STAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Lets edges wait in the feed of control planes, and measures how long a change takes to reach all of them.
///
/// Prints a line of JSON when all wait. Then each line `change` on standard input makes a change (the key is
/// deactivated, or activated), and prints a line of JSON with how long it took. Ends with its input.
#[derive(Parser)]
struct Arguments {
    /// Address and port of a control plane. Of several each edge stays with one, and the first makes the changes.
    #[arg(long, required = true)]
    control_plane: Vec<SocketAddr>,
    #[arg(long)]
    admin_token_file: PathBuf,
    #[arg(long)]
    edge_token_file: PathBuf,
    /// The path of the key that is changed: /v1/workspaces/{workspace}/keys/{key}.
    #[arg(long)]
    key: String,
    #[arg(long, default_value_t = 10_000)]
    edges: usize,
}

/// An edge has reached this revision.
struct RevisionEvent {
    edge: usize,
    revision: u64,
    at: Instant,
}

fn main() -> anyhow::Result<()> {
    // One thread, because the control plane is what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let token = |path: &PathBuf| -> anyhow::Result<String> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(text.trim_end().to_owned())
    };
    let (admin, edge) = (token(&arguments.admin_token_file)?, Rc::<str>::from(token(&arguments.edge_token_file)?));
    let (events, mut reached) = mpsc::unbounded_channel();
    let began = Instant::now();
    let first = *arguments.control_plane.first().context("no --control-plane")?;
    for (number, control_plane) in (0..arguments.edges).zip(arguments.control_plane.iter().cycle().copied()) {
        let edge = Edge {
            number,
            control_plane,
            token: Rc::clone(&edge),
            position: None,
            applied: None,
            acknowledged: false,
            failures: 0,
            events: events.clone(),
        };
        tokio::task::spawn_local(edge.run());
    }
    let mut revisions = vec![0; arguments.edges];
    gather(&mut reached, &mut revisions, 1).await.context("not all edges wait in the feed")?;
    print(&json!({"waiting": arguments.edges, "ms": ms(began.elapsed())}))?;

    let mut lines = lines();
    let mut action = "deactivate";
    while let Some(line) = lines.recv().await {
        ensure!(line == "change", "unknown command `{line}`: the only one is `change`");
        let sent = Instant::now();
        let path = format!("{}/{action}", arguments.key);
        let changing = tokio::task::spawn_local(change(first, admin.clone(), path));
        action = if action == "deactivate" { "activate" } else { "deactivate" };
        // Each change is one revision.
        let revision = revisions.iter().max().copied().unwrap_or_default() + 1;
        let mut times =
            gather(&mut reached, &mut revisions, revision).await.context("not all edges received a change")?;
        times.sort_unstable();
        let EnforcedChange { revision, edges, at } = changing.await??;
        ensure!(edges == arguments.edges, "enforced on {edges} edges");
        let until = |share: usize| times.get((times.len() * share).div_ceil(100).saturating_sub(1)).copied();
        let since_sent = |at: Option<Instant>| at.map(|at| ms(at.saturating_duration_since(sent)));
        print(&json!({
            "revision": revision, "enforced_ms": since_sent(Some(at)),
            "p50_ms": since_sent(until(50)), "p99_ms": since_sent(until(99)), "all_ms": since_sent(until(100)),
        }))?;
    }
    Ok(())
}

/// Waits until every edge has reached `revision`; returns when each one did.
async fn gather(
    reached: &mut mpsc::UnboundedReceiver<RevisionEvent>,
    revisions: &mut [u64],
    revision: u64,
) -> anyhow::Result<Vec<Instant>> {
    let mut times = Vec::with_capacity(revisions.len());
    let all = async {
        while times.len() < revisions.len() {
            let one = reached.recv().await.context("all edges have ended")?;
            if revisions[one.edge] < revision && one.revision >= revision {
                times.push(one.at);
            }
            revisions[one.edge] = one.revision;
        }
        anyhow::Ok(())
    };
    let ended = timeout(STAGE_TIMEOUT, all).await;
    match ended {
        Ok(done) => done.map(|()| times),
        Err(_) => bail!("{} of {} after {STAGE_TIMEOUT:?}", times.len(), revisions.len()),
    }
}

/// One edge: its position in the feed, without a table.
struct Edge {
    number: usize,
    control_plane: SocketAddr,
    token: Rc<str>,
    /// Epoch, revision and chain hash from the last message's header.
    position: Option<Position>,
    /// The revision that the next request acknowledges.
    applied: Option<u64>,
    acknowledged: bool,
    /// Failures since the last answer.
    failures: u32,
    events: mpsc::UnboundedSender<RevisionEvent>,
}

#[derive(Clone)]
struct Position {
    epoch: String,
    revision: u64,
    head: String,
}

impl Edge {
    /// Requests the feed repeatedly. After a failure it waits with a growing, random backoff, as a filter does.
    async fn run(mut self) {
        // Spread the starts, as when edges are started one by one.
        sleep(Duration::from_micros(fastrand::u64(..2_000_000))).await;
        while !self.events.is_closed() {
            if self.follow_feed().await.is_err() {
                let pause = (200_u64 << self.failures.min(4)).min(2_000);
                self.failures += 1;
                sleep(Duration::from_millis(fastrand::u64(pause.max(400) / 2..=pause.max(400)))).await;
            }
        }
    }

    /// Sends requests over one connection until it ends.
    async fn follow_feed(&mut self) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.control_plane).await?;
        stream.set_nodelay(true)?;
        let mut answer = Answer::default();
        loop {
            let path = match &self.position {
                None => String::new(),
                Some(Position { epoch, revision, head }) => {
                    let applied = self.applied.map(|applied| format!("&applied={applied}")).unwrap_or_default();
                    format!("&epoch={epoch}&since={revision}&head={head}&wait=20{applied}")
                }
            };
            let request = format!(
                "GET /edge/v1/feed?format=1&edge=edge&instance=i{}{path} HTTP/1.1\r\nhost: latchkey\r\nauthorization: Bearer {}\r\n\r\n",
                self.number, self.token
            );
            stream.write_all(request.as_bytes()).await?;
            answer.read(&mut stream).await?;
            match answer.status {
                200 => {
                    let position = position(answer.body()).context("a message without a header")?;
                    let (edge, revision) = (self.number, position.revision);
                    if self.acknowledged {
                        self.applied = Some(revision);
                    } else {
                        self.acknowledge(&position, &mut stream, &mut answer).await?;
                        self.acknowledged = true;
                    }
                    self.position = Some(position);
                    drop(self.events.send(RevisionEvent { edge, revision, at: Instant::now() }));
                }
                204 => {}
                status => bail!("status {status}"),
            }
            self.failures = 0;
        }
    }
}

impl Edge {
    /// Acknowledges for its one worker, as a filter does. Only after that, `applied` in a feed request counts.
    async fn acknowledge(
        &self,
        Position { epoch, revision, .. }: &Position,
        stream: &mut TcpStream,
        answer: &mut Answer,
    ) -> anyhow::Result<()> {
        let body = format!(
            r#"{{"edge":"edge","instance":"i{}","epoch":"{epoch}","max_staleness_secs":null,"workers":[{{"id":"0","applied":{revision},"started_at":0}}]}}"#,
            self.number
        );
        let request = format!(
            "POST /edge/v1/acknowledgements HTTP/1.1\r\nhost: latchkey\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        answer.read(stream).await?;
        ensure!(answer.status == 200, "an acknowledgement was answered {}", answer.status);
        Ok(())
    }
}

/// The position that a message leads to, from its header: `docs/feed-format.md`.
fn position(message: &[u8]) -> Option<Position> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let epoch = hex(message.strip_prefix(b"LATCHKEY")?.get(12..28)?);
    let revision = u64::from_le_bytes(message.get(36..44)?.try_into().ok()?);
    Some(Position { epoch, revision, head: hex(message.get(44..76)?) })
}

/// A change that all edges have acknowledged.
struct EnforcedChange {
    revision: u64,
    edges: usize,
    at: Instant,
}

/// Makes the change and waits until it is enforced. Retries while the control plane isn't reachable.
async fn change(control_plane: SocketAddr, token: String, path: String) -> anyhow::Result<EnforcedChange> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: latchkey\r\nauthorization: Bearer {token}\r\nprefer: wait=60\r\ncontent-length: 0\r\n\r\n"
    );
    let deadline = Instant::now() + STAGE_TIMEOUT;
    let mut stream = loop {
        match TcpStream::connect(control_plane).await {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
            Err(error) => return Err(error).context("can't connect to the control plane"),
        }
    };
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Answer::default();
    answer.read(&mut stream).await?;
    ensure!(answer.status == 200, "the change was answered {}", answer.status);
    let at = Instant::now();
    let revision = answer.header("latchkey-revision").and_then(|value| value.parse().ok());
    let enforcement = answer.header("latchkey-enforcement").context("an answer without its enforcement")?;
    let edges = enforcement.strip_prefix("enforced=true, edges=").and_then(|rest| rest.split(',').next()?.parse().ok());
    let edges = edges.with_context(|| enforcement.to_owned())?;
    Ok(EnforcedChange { revision: revision.context("a change without a revision")?, edges, at })
}

/// An HTTP/1.1 answer with a `content-length`. Its buffer is reused for the next answer.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    head: usize,
    status: u16,
}

impl Answer {
    async fn read(&mut self, stream: &mut TcpStream) -> anyhow::Result<()> {
        self.bytes.clear();
        self.head = loop {
            if let Some(at) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(stream.read_buf(&mut self.bytes).await? > 0, "the connection has ended");
        };
        self.status = std::str::from_utf8(self.bytes.get(9..12).unwrap_or_default())?.parse()?;
        let length: usize = self.header("content-length").map_or(Ok(0), str::parse)?;
        while self.bytes.len() < self.head + length {
            ensure!(stream.read_buf(&mut self.bytes).await? > 0, "the connection has ended");
        }
        Ok(())
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(self.bytes.get(..self.head)?).ok()?;
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }
}

/// The lines of standard input, read by a separate thread.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn print(line: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("can't write to standard output")
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 100.0
}
