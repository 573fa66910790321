//! A log that can't be written: the control plane starts, serves and shuts down as with any other.

use std::fs::OpenOptions;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::start::{Running, command};
use crate::waiting::{DEADLINE, until};

/// More than a pipe holds, in lines of a hundred bytes and more.
const REQUESTS: usize = 700;

/// Makes changes and opens pages, each of which is logged, and shuts it down. Returns how many lines were lost.
async fn serve_and_end(mut running: Running, directory: &Path, requests: usize) -> u64 {
    let token = std::fs::read_to_string(directory.join("admin.token")).unwrap();
    let client = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
    let at = |path: &str| format!("http://{}{path}", running.address);
    for number in 0..3 {
        let body = json!({"name": "Acme", "slug": format!("acme-{number}")});
        let made = client.post(at("/v1/workspaces")).bearer_auth(token.trim_end()).json(&body).send().await;
        assert_eq!(made.expect("an answer to a change").status(), 201);
        let page = client.get(at("/console/sign-in")).send().await.expect("a page of the console");
        assert_eq!(page.status(), 200);
    }
    for _ in 0..requests {
        let answer = client.get(at("/v1/workspaces")).bearer_auth(token.trim_end()).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    let metrics = async || {
        let answer = client.get(at("/metrics")).bearer_auth(token.trim_end()).send().await.expect("the metrics");
        let text = answer.text().await.unwrap();
        let lost = text.lines().find_map(|line| line.strip_prefix("latchkey_log_lines_lost_total "));
        lost.expect("the number of lines that were lost").parse::<u64>().unwrap()
    };
    // These requests are logged as well, and the writing thread comes to them a little later.
    let mut lost = metrics().await;
    if requests == 0 {
        until("all lines are counted as lost", async || {
            lost = metrics().await;
            lost >= 6
        })
        .await;
    }
    let began = Instant::now();
    running.signal("-TERM");
    assert!(running.child.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(9), "the log held the end up for {:?}", began.elapsed());
    lost
}

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

#[tokio::test]
async fn a_log_that_fails_costs_its_lines_and_nothing_else() {
    let (reader, dead) = pipe();
    drop(reader);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (name, log) in [("a dead pipe", Stdio::from(dead)), ("a full disk", Stdio::from(full))] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command(directory.path(), &[]);
        command.stderr(log);
        let lost = serve_and_end(Running::start(command), directory.path(), 0).await;
        assert!(lost >= 6, "{name}: {lost} lines are counted as lost");
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_no_request_up() {
    let (mut unread, log) = pipe();
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path(), &[]);
    command.stderr(log);
    let running = Running::start(command);
    serve_and_end(running, directory.path(), REQUESTS).await;
    let mut logged = Vec::new();
    unread.read_to_end(&mut logged).unwrap();
    assert!(logged.len() > 60 << 10, "the pipe was not full: {} bytes", logged.len());
}

#[tokio::test]
async fn it_starts_without_a_standard_error() {
    let directory = tempfile::tempdir().unwrap();
    let plain = command(directory.path(), &[]);
    let mut closed = Command::new("sh");
    closed.current_dir(directory.path()).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    closed.args(["-c", "exec \"$0\" \"$@\" 2>&-"]).arg(plain.get_program()).args(plain.get_args());
    serve_and_end(Running::start(closed), directory.path(), 1).await;
}

/// A pipe that is full.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (unread, mut full) = pipe();
    full.write_all(&[b'\n'; 64 << 10]).unwrap();
    (unread, full)
}

#[tokio::test]
async fn neither_a_start_nor_its_failure_waits_for_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ((_unread, full), (_unread_too, full_too)) = (full_pipe(), full_pipe());
    let mut starts = command(directory.path(), &["--listen", &address]);
    let child = Killed(starts.stdout(full.try_clone().unwrap()).stderr(full_too.try_clone().unwrap()).spawn().unwrap());
    let client = reqwest::Client::builder().timeout(Duration::from_secs(1)).build().unwrap();
    let health = format!("http://{address}/healthz");
    until("it serves without a reader of its first line", async || client.get(&health).send().await.is_ok()).await;
    drop(child);

    let mut fails = command(directory.path(), &["--listen", "0.0.0.0:0"]);
    let mut child = Killed(fails.stdout(full).stderr(full_too).spawn().unwrap());
    until("it ends without a reader of its error", async || child.0.try_wait().unwrap().is_some()).await;
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
}

/// A process that doesn't outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
