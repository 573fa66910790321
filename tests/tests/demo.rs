//! `make demo`: the lines it prints work as printed, and it leaves nothing behind.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use end_to_end::{Connection, Process, eventually, eventually_within, free_port, root, run_in_shell};
use serde_json::Value;

/// A checkout has one demo at a time: its files are in `.demo`.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_DEMO: Mutex<()> = Mutex::new(());
    ONE_DEMO.lock().unwrap_or_else(PoisonError::into_inner)
}

fn command(arguments: &[&str], base: u16) -> Command {
    let mut command = Command::new(root().join("scripts/demo"));
    command.args(arguments).env("DEMO_PORT_BASE", base.to_string()).current_dir(root());
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("scripts/demo");
    let (out, error) = texts(&output);
    assert!(output.status.success(), "scripts/demo:\n{out}\n{error}");
    out
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Four free ports in a row.
fn free_ports() -> u16 {
    loop {
        let base = free_port();
        if (base..base + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
}

/// A detached demo. Stopped however the test ends.
struct DetachedDemo {
    base: u16,
    printed: String,
}

impl DetachedDemo {
    fn start(base: u16) -> Self {
        Self { base, printed: run(command(&[], base).env("DETACH", "1")) }
    }
}

impl Drop for DetachedDemo {
    fn drop(&mut self) {
        let _ = command(&["stop"], self.base).output();
    }
}

/// The demo's processes by their names.
fn pids() -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(root().join(".demo/pids.json")).expect("pids.json");
    let pids: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    pids.into_iter().map(|(name, pid)| (name, pid[0].as_u64().expect("a pid"))).collect()
}

/// Whether a process runs. A zombie doesn't.
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn assert_nothing_is_left(pids: &[(String, u64)], base: u16) {
    for (name, pid) in pids {
        assert!(!runs(*pid), "{name} still runs as {pid}");
    }
    for port in base..base + 4 {
        assert!(Connection::try_open(port).is_err(), "something still listens on {port}");
    }
}

/// A demo that waits for Ctrl-C. Stopped however the test ends.
struct ForegroundDemo {
    base: u16,
    process: Process,
}

impl ForegroundDemo {
    fn start(base: u16, log: &Path) -> Self {
        let mut demo = Self { base, process: Process::start("the demo", &mut command(&[], base), log) };
        eventually("the demo is ready", || {
            demo.process.assert_runs();
            let log = demo.process.log();
            if log.contains("Ctrl-C ends all of it.") { Ok(()) } else { Err(log) }
        });
        demo
    }
}

impl Drop for ForegroundDemo {
    fn drop(&mut self) {
        let _ = command(&["stop"], self.base).output();
    }
}

#[test]
fn the_printed_lines_work_as_printed_and_stop_leaves_nothing() {
    let _alone = alone();
    let base = free_ports();
    let demo = DetachedDemo::start(base);
    let lines: Vec<&str> = demo.printed.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let [ok, missing, unknown, scope, revoke] = lines.as_slice() else {
        panic!("five lines are expected:\n{}", demo.printed)
    };
    let expected = ["200", "401 missing-key", "401 unknown-key", "403 missing-scope", "200"];
    for (line, expected) in [ok, missing, unknown, scope, revoke].into_iter().zip(expected) {
        let (verdict, answer) = run_in_shell(line);
        assert_eq!(verdict, expected, "{line}\n{answer}");
        if line == ok {
            assert!(answer.contains("\"x-latchkey-key-id\":["), "the identity headers are missing: {answer}");
            assert!(answer.contains("\"x-latchkey-workspace-id\":["), "the identity headers are missing: {answer}");
            assert!(!answer.contains("lk_live_"), "the upstream saw the key: {answer}");
        }
    }
    eventually_within(Duration::from_secs(1), "the revoked key is refused", || match run_in_shell(ok) {
        (verdict, _) if verdict == "401 inactive-key" => Ok(()),
        (_, answer) => Err(answer),
    });

    let state = std::fs::read_to_string(root().join(".demo/demo.json")).expect("demo.json");
    let fields: Value = serde_json::from_str(&state).expect("JSON");
    for field in ["console", "control_plane", "envoy", "admin_token_file", "workspace", "key_id"] {
        assert!(fields[field].is_string(), "{field} in {state}");
    }
    let console = fields["console"].as_str().expect("an address");
    assert!(demo.printed.contains(console), "the console's address is printed:\n{}", demo.printed);
    let (verdict, page) = run_in_shell(&format!("curl -si {console}/sign-in"));
    assert!(verdict == "200" && page.contains("Admin token"), "{page}");
    assert!(!state.contains("lk_live_") && !state.contains("lkadm_"), "a secret is in demo.json: {state}");

    let pids = pids();
    assert!(pids.iter().filter(|(_, pid)| runs(*pid)).count() == 3, "three programs are expected: {pids:?}");
    run(&mut command(&["stop"], base));
    assert_nothing_is_left(&pids, base);
}

#[test]
fn ctrl_c_and_demo_stop_end_all_of_a_foreground_demo() {
    let _alone = alone();
    for by in ["Ctrl-C", "demo-stop"] {
        let (base, folder) = (free_ports(), tempfile::tempdir().expect("a folder"));
        let mut demo = ForegroundDemo::start(base, &folder.path().join("log"));
        let pids = pids();
        match by {
            "Ctrl-C" => demo.process.signal("INT"),
            _ => drop(run(&mut command(&["stop"], base))),
        }
        assert!(demo.process.wait_for_exit().success(), "{by}: {}", demo.process.log());
        assert_nothing_is_left(&pids, base);
    }
}

#[test]
fn a_program_that_crashes_ends_the_demo_with_one_line_that_names_its_log() {
    let _alone = alone();
    let (base, folder) = (free_ports(), tempfile::tempdir().expect("a folder"));
    let mut demo = ForegroundDemo::start(base, &folder.path().join("log"));
    let pids = pids();
    let (_, envoy) = pids.iter().find(|(name, _)| name == "envoy").expect("Envoy");
    assert!(Command::new("kill").args(["-KILL", &envoy.to_string()]).status().expect("kill").success());
    assert_eq!(demo.process.wait_for_exit().code(), Some(1), "{}", demo.process.log());
    let log = demo.process.log();
    let (_, message) = log.split_once("Ctrl-C ends all of it.\n").expect("it was ready");
    assert!(message.starts_with("demo: envoy ended by itself"), "{message}");
    assert!(message.contains(".demo/envoy.log") && message.trim().lines().count() == 1, "{message}");
    assert_nothing_is_left(&pids, base);
}

#[test]
fn a_taken_port_is_refused_in_one_line_with_the_next_step() {
    let _alone = alone();
    let base = free_ports();
    let _taken = TcpListener::bind(("127.0.0.1", base + 1)).expect("a port");
    let output = command(&[], base).env("DETACH", "1").output().expect("scripts/demo");
    let (out, error) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{out}\n{error}");
    assert_eq!(error.trim().lines().count(), 1, "{error}");
    for part in [&format!("port {}", base + 1), "Envoy", "DEMO_PORT_BASE"] {
        assert!(error.contains(part), "{part:?} is expected in: {error}");
    }
}
