//! The binary: how it starts, why it doesn't, and how it ends.

use std::fs::{Permissions, read_to_string, set_permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn command(directory: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    command.current_dir(directory).env_clear().arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped());
    for (flag, value) in [
        ("--listen", "127.0.0.1:0"),
        ("--admin-token-file", "admin.token"),
        ("--edge-token-file", "edge.token"),
        ("--database", "latchkey.db"),
    ] {
        if !more.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command.args(more);
    command
}

fn failed(directory: &Path, more: &[&str]) -> Output {
    command(directory, more).output().unwrap()
}

/// A running control plane; killed when the test is over.
struct Running {
    child: Child,
    address: String,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let Some((_, address)) = line.trim_end().split_once("http://") else {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("it did not start: {line}{stderr}");
        };
        Self { address: address.to_owned(), child }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_start_that_can_not_succeed_says_why_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    std::fs::write(at("open.token"), "lkadm_x").unwrap();
    set_permissions(at("open.token"), Permissions::from_mode(0o644)).unwrap();
    std::fs::write(at("no.token"), "secret").unwrap();
    set_permissions(at("no.token"), Permissions::from_mode(0o600)).unwrap();
    std::fs::write(at("wrong.toml"), "scope = []\n").unwrap();
    std::fs::write(at("notes.txt"), "no database, but longer than the header of one: ".repeat(9)).unwrap();
    for (more, names, advice) in [
        (&["--database", "nowhere/latchkey.db"][..], "nowhere/latchkey.db", "make its directory"),
        (&["--database", "."], "database .", "not a file"),
        (&["--database", "notes.txt"], "notes.txt", "not one of Latchkey's"),
        (&["--listen", &taken], &taken, "choose another address"),
        (&["--listen", "0.0.0.0:0"], "0.0.0.0:0", "--insecure-http"),
        (&["--admin-token-file", "open.token"], "open.token", "chmod 600"),
        (&["--admin-token-file", "no.token"], "no.token", "delete the file"),
        (&["--edge-token-file", "nowhere/edge.token"], "nowhere/edge.token", "make its directory"),
        (&["--config", "none.toml"], "none.toml", "cannot read it"),
        (&["--config", "wrong.toml"], "wrong.toml, line 1", "unknown field `scope`"),
    ] {
        let output = failed(directory.path(), more);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        // What was logged before, such as a token file that was made, is not the error.
        let errors: Vec<_> = stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
        assert_eq!(errors.len(), 1, "{more:?}: {stderr}");
        let error = errors[0];
        assert!(
            error.starts_with("latchkey: ") && error.contains(names) && error.contains(advice),
            "{more:?}: {error}"
        );
        assert!(output.stdout.is_empty(), "{more:?}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    for more in [&["--listen", "nonsense"][..], &["--unknown"]] {
        assert_eq!(failed(directory.path(), more).status.code(), Some(2), "{more:?}");
    }
}

#[test]
fn a_database_is_served_by_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Running::start(command(directory.path(), &[]));
    let second = failed(directory.path(), &[]);
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8(second.stderr).unwrap().contains("another control plane has it open"));
}

#[test]
fn every_flag_has_an_environment_name() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("latchkey.toml"), "environments = [\"test\"]\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    command.current_dir(directory.path()).env_clear().arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs([
        ("LATCHKEY_LISTEN", "0.0.0.0:0"),
        ("LATCHKEY_INSECURE_HTTP", "true"),
        ("LATCHKEY_DATABASE", "d.db"),
        ("LATCHKEY_ADMIN_TOKEN_FILE", "a.token"),
        ("LATCHKEY_EDGE_TOKEN_FILE", "e.token"),
        ("LATCHKEY_CONFIG", "latchkey.toml"),
    ]);
    let running = Running::start(command);
    assert!(running.address.starts_with("0.0.0.0:"));
    for file in ["d.db", "a.token", "e.token"] {
        let mode = directory.path().join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn as_many_edges_may_wait_as_the_system_allows_open_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.current_dir(directory.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let serve = "ulimit -Sn 64 && exec \"$0\" serve --listen 127.0.0.1:0 --admin-token-file a --edge-token-file e";
    let running = Running::start({
        command.args(["-c", serve, env!("CARGO_BIN_EXE_latchkey")]);
        command
    });
    let limits = read_to_string(format!("/proc/{}/limits", running.child.id())).unwrap();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard, _] = open_files.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{open_files}") };
    assert_eq!(soft, hard);
}

#[tokio::test]
async fn sigterm_answers_what_was_accepted_and_closes_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(command(directory.path(), &[]));
    let token = |name: &str| read_to_string(directory.path().join(name)).unwrap().trim_end().to_owned();
    let (client, address) = (reqwest::Client::new(), running.address.clone());
    let made = client
        .post(format!("http://{address}/v1/workspaces"))
        .bearer_auth(token("admin.token"))
        .json(&serde_json::json!({"name": "Acme", "slug": "acme"}))
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);

    // An edge that waits for a change.
    let feed = |rest: String| {
        let url = format!("http://{address}/edge/v1/feed?format=1&edge=e&instance=i{rest}");
        client.get(url).bearer_auth(token("edge.token")).send()
    };
    let manifest = feed(String::new()).await.unwrap().bytes().await.unwrap();
    let at = policy::table::Loading::start(&manifest).unwrap().position();
    let waiting = tokio::spawn(feed(format!("&epoch={}&since={}&head={}&wait=20", at.epoch, at.revision, at.head)));
    // Its connection is open once the server has answered on another that came later.
    let probe = reqwest::Client::new().get(format!("http://{address}/healthz")).send().await.unwrap();
    assert_eq!(probe.status(), 200);

    let began = std::time::Instant::now();
    running.signal("-TERM");
    // Answered, or never accepted: not cut off while it waits.
    if let Ok(answer) = waiting.await.unwrap() {
        assert_eq!(answer.status(), 204);
    }
    assert!(running.child.wait().unwrap().success());
    assert!(began.elapsed().as_secs() < 9, "waiting edges held the end up");
    assert!(!directory.path().join("latchkey.db-wal").exists(), "the WAL is moved into the database at the end");

    let running = Running::start(command(directory.path(), &[]));
    let url = format!("http://{}/v1/workspaces/acme", running.address);
    assert_eq!(client.get(url).bearer_auth(token("admin.token")).send().await.unwrap().status(), 200);
}
