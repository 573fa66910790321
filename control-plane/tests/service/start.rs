//! The binary: how it starts, why it doesn't, and how it ends.

use std::fs::{Permissions, read_to_string, set_permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::json;

use test_support::databases;

pub(crate) fn command(directory: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
    command.current_dir(directory).env_clear().arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped());
    for (flag, value) in [
        ("--listen", "127.0.0.1:0"),
        ("--admin-token-file", "admin.token"),
        ("--edge-token-file", "edge.token"),
        ("--database", &databases::of(directory)),
    ] {
        if !more.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command.args(more);
    command
}

pub(crate) fn failed(directory: &Path, more: &[&str]) -> Output {
    command(directory, more).output().unwrap()
}

/// A running control plane; killed when the test ends.
pub(crate) struct Running {
    pub child: Child,
    /// The address of --listen.
    pub address: String,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, address: String::new(), stdout };
        running.address = running.next_address();
        running
    }

    /// The address in the next line of its standard output.
    pub(crate) fn next_address(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        // For a Unix socket it is the path.
        let line_end = line.trim_end();
        let Some((_, address)) = line_end.split_once("://").or_else(|| line_end.split_once(" on unix:")) else {
            let mut stderr = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("it did not start: {line}{stderr}");
        };
        address.to_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
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
fn a_start_that_can_not_succeed_reports_why_in_one_line() {
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

/// As Kubernetes mounts a secret with fsGroup. Only root can give a file away.
#[test]
fn token_files_of_another_owner_may_be_readable_by_a_group_of_the_server_s() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (of_the_server, of_others) = (rustix::process::getegid().as_raw(), 54_321);
    for (mode, group, refusal) in [
        (0o440, of_the_server, None),
        (0o640, of_the_server, None),
        (
            0o440,
            of_others,
            Some("group 54321 can read it (mode 440), and this process isn't in that group; give the file one of"),
        ),
        (0o460, of_the_server, Some("its group can do more than read it (mode 460); run `chmod 600` on it")),
        (0o444, of_the_server, Some("others can read it (mode 444); run `chmod 600` on it")),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let running = Running::start(command(directory.path(), &[]));
        drop(running);
        for name in ["admin.token", "edge.token"] {
            let path = directory.path().join(name);
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(&path, Some(12_345), Some(group)).unwrap();
        }
        match refusal {
            None => drop(Running::start(command(directory.path(), &[]))),
            Some(refusal) => {
                let output = failed(directory.path(), &[]);
                let printed = String::from_utf8(output.stderr).unwrap();
                assert!(
                    output.status.code() == Some(1) && printed.contains(refusal),
                    "{mode:03o}, group {group}: {printed}"
                );
            }
        }
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
    // A file, because PostgreSQL allows any number of control planes.
    let file = ["--database", "latchkey.db"];
    let _first = Running::start(command(directory.path(), &file));
    let second = failed(directory.path(), &file);
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
fn the_help_names_the_environment_of_each_flag() {
    let help = Command::new(env!("CARGO_BIN_EXE_latchkey")).args(["serve", "--help"]).env_clear().output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags: Vec<_> = help.lines().filter_map(|line| line.trim_start().strip_prefix("--")).collect();
    for flag in &flags {
        let name = flag.split(' ').next().unwrap().to_uppercase().replace('-', "_");
        // A database's URL may contain a password, so its current value isn't shown.
        let now = if name == "DATABASE" { "" } else { "=" };
        assert!(help.contains(&format!("[env: LATCHKEY_{name}{now}]")), "--{flag}");
    }
    for flag in ["edge-listen", "tls-certificate", "tls-key", "edge-client-ca", "public-url", "insecure-http"] {
        assert!(flags.iter().any(|own| own.starts_with(flag)), "--{flag}");
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
    // Its connection is open once the server has answered on another one that was opened later.
    let probe = reqwest::Client::new().get(format!("http://{address}/healthz")).send().await.unwrap();
    assert_eq!(probe.status(), 200);

    let began = std::time::Instant::now();
    running.signal("-TERM");
    // Answered, or never accepted, but not cut off while it waits.
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

#[tokio::test]
async fn of_a_trusted_proxy_s_requests_the_client_s_address_is_the_one_that_counts() {
    for (trusted, expected) in [("127.0.0.0/8,192.0.2.1", "203.0.113.9"), ("192.0.2.0/24", "127.0.0.1")] {
        let directory = tempfile::tempdir().unwrap();
        let running = Running::start(command(directory.path(), &["--trusted-proxies", trusted]));
        let token = read_to_string(directory.path().join("admin.token")).unwrap().trim_end().to_owned();
        let (client, url) = (reqwest::Client::new(), format!("http://{}/v1", running.address));
        let made = client
            .post(format!("{url}/workspaces"))
            .bearer_auth(&token)
            // The first is what the client sent itself.
            .header("x-forwarded-for", "198.51.100.7, 203.0.113.9:55220, 192.0.2.1")
            .json(&json!({"name": "Acme", "slug": "acme"}));
        assert_eq!(made.send().await.unwrap().status(), 201);
        let events = client.get(format!("{url}/audit-events")).bearer_auth(&token).send().await.unwrap();
        let events: serde_json::Value = events.json().await.unwrap();
        assert_eq!(events["items"][0]["address"], expected, "trusted: {trusted}");
    }
    let directory = tempfile::tempdir().unwrap();
    let output = failed(directory.path(), &["--trusted-proxies", "10.1.0.0/8"]);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && printed.contains("the network is 10.0.0.0/8"), "{printed}");
}

/// The same command, started with SIGHUP as `env` sets it.
fn with_hang_up(setting: &str, served: &Command) -> Command {
    let mut command = Command::new("env");
    command.arg(setting).arg(served.get_program()).args(served.get_args());
    command.envs(served.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(served.get_current_dir().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn sighup_ends_it_as_sigterm_does_unless_it_was_started_to_outlive_its_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(with_hang_up("--default-signal=HUP", &command(directory.path(), &[])));
    running.signal("-HUP");
    assert!(running.child.wait().unwrap().success());
    assert!(!directory.path().join("latchkey.db-wal").exists(), "the WAL is moved into the database at the end");

    let mut running = Running::start(with_hang_up("--ignore-signal=HUP", &command(directory.path(), &[])));
    running.signal("-HUP");
    let probe = reqwest::get(format!("http://{}/healthz", running.address)).await.unwrap();
    assert_eq!(probe.status(), 200);
    running.signal("-TERM");
    assert!(running.child.wait().unwrap().success());
}

#[test]
fn the_command_line_checks_an_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(command(directory.path(), &[]));
    running.signal("-TERM");
    assert!(running.child.wait().unwrap().success());
    let verify = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latchkey"));
        command.current_dir(directory.path()).env_clear().args(["audit", "verify"]).args(more);
        command.env("LATCHKEY_DATABASE", databases::of(directory.path()));
        let output = command.output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).unwrap())
    };
    let (code, printed) = verify(&[]);
    assert_eq!(code, Some(0), "{printed}");
    let hash = printed.trim_end().rsplit(' ').next().unwrap();
    assert_eq!(verify(&["--expect-head", hash]).0, Some(0), "{printed}");
    let (code, printed) = verify(&["--expect-head", &"7".repeat(64)]);
    assert!(code == Some(1) && printed.contains("no audit event has the hash 777"), "{printed}");
    let (code, printed) = verify(&["--database", "none.db"]);
    assert!(code == Some(1) && printed.contains("none.db"), "{printed}");
    assert_eq!(verify(&["--expect-head", "x"]).0, Some(2));
}

#[tokio::test]
async fn each_request_is_one_line_in_the_log_with_no_secret_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path(), &[]);
    command.envs([("LATCHKEY_LOG_FORMAT", "json"), ("LATCHKEY_LOG", "debug")]);
    let mut running = Running::start(command);
    let token = |name: &str| read_to_string(directory.path().join(name)).unwrap().trim_end().to_owned();
    let client = reqwest::Client::new();
    let ask = |method: reqwest::Method, path: &str, body: serde_json::Value| {
        let request = client.request(method, format!("http://{}{path}", running.address));
        request.bearer_auth(token("admin.token")).header("x-request-id", "from-the-test").json(&body).send()
    };
    ask(reqwest::Method::POST, "/v1/workspaces", json!({"name": "Acme", "slug": "acme"})).await.unwrap();
    let key = json!({"name": "CI", "expires_in": "none"});
    let made = ask(reqwest::Method::POST, "/v1/workspaces/acme/keys", key).await.unwrap();
    assert_eq!(made.headers()["x-request-id"], "from-the-test");
    let made: serde_json::Value = made.json().await.unwrap();
    let secret = made["secret"].as_str().unwrap();
    // Also where it doesn't belong.
    for path in [format!("/v1/workspaces/{secret}"), format!("/v1/workspaces?q={secret}"), format!("/{secret}")] {
        ask(reqwest::Method::GET, &path, serde_json::Value::Null).await.unwrap();
    }
    ask(reqwest::Method::POST, "/v1/keys/identify", json!({"secret": secret, secret: 1})).await.unwrap();
    ask(reqwest::Method::POST, "/v1/keys/identify", json!({"secret": secret})).await.unwrap();
    let events = ask(reqwest::Method::GET, "/v1/audit-events", serde_json::Value::Null).await.unwrap();
    let events: serde_json::Value = events.json().await.unwrap();
    assert_eq!(events["items"][0]["address"], "127.0.0.1");
    client.get(format!("http://{}/v1/workspaces", running.address)).bearer_auth(secret).send().await.unwrap();
    running.signal("-TERM");
    let mut log = String::new();
    running.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    for text in [secret, &token("admin.token"), &token("edge.token")] {
        assert!(!log.contains(text) && !log.contains(text.split('_').next_back().unwrap()), "{log}");
    }
    assert!(log.trim_end().ends_with("\"message\":\"closed\"}"), "the last line is missing: {log}");
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let creates = lines.filter(|line| line["route"] == "/v1/workspaces/{workspace}/keys").collect::<Vec<_>>();
    assert_eq!(creates.len(), 1, "{log}");
    for (field, expected) in [
        ("method", json!("POST")),
        ("status", json!(201)),
        ("actor", json!("platform-admin")),
        ("request_id", json!("from-the-test")),
    ] {
        assert_eq!(creates[0][field], expected, "{field}");
    }
}
