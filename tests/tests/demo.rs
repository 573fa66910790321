//! `make demo`: the lines it prints work as printed, and nothing of it stays behind.

use std::net::TcpListener;
use std::process::Command;

use end_to_end::{Connection, free_port, root};
use serde_json::Value;

fn demo(arguments: &[&str], base: u16) -> String {
    let output = Command::new(root().join("scripts/demo"))
        .args(arguments)
        .env("DETACH", "1")
        .env("DEMO_PORT_BASE", base.to_string())
        .current_dir(root())
        .output()
        .expect("scripts/demo");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "scripts/demo {arguments:?}:\n{out}\n{error}");
    out.into_owned()
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

/// Ends the demo, however the test ends.
struct Stopped(u16);

impl Drop for Stopped {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new(root().join("scripts/demo")).arg("stop").status();
        }
    }
}

#[test]
fn the_printed_lines_work_as_printed_and_stop_leaves_nothing() {
    let base = free_ports();
    let stopped = Stopped(base);
    let printed = demo(&[], base);
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let expected = ["200", "401 missing-key", "401 unknown-key", "403 missing-scope", "200", "401 inactive-key"];
    let [ok, missing, unknown, scope, revoke] = lines.as_slice() else { panic!("five lines are expected:\n{printed}") };
    for (line, expected) in [ok, missing, unknown, scope, revoke, ok].into_iter().zip(expected) {
        let run = || Command::new("sh").arg("-c").arg(line).current_dir(root()).output().expect("sh");
        let seen = || {
            let answer = String::from_utf8_lossy(&run().stdout).into_owned();
            let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
            let code = answer.lines().find_map(|line| line.strip_prefix("latchkey-code: ")).unwrap_or_default();
            (format!("{status} {}", code.trim()).trim().to_owned(), answer)
        };
        // The last line shows a revocation, which takes milliseconds.
        end_to_end::eventually_within(std::time::Duration::from_secs(1), expected, || match seen() {
            (verdict, _) if verdict == expected => Ok(()),
            (_, answer) => Err(format!("{line}\n{answer}")),
        });
    }
    let state = std::fs::read_to_string(root().join(".demo/demo.json")).expect("demo.json");
    let fields: Value = serde_json::from_str(&state).expect("JSON");
    for field in ["control_plane", "envoy", "admin_token_file", "workspace", "key_id"] {
        assert!(fields[field].is_string(), "{field} in {state}");
    }
    assert!(!state.contains("lk_live_") && !state.contains("lkadm_"), "a secret stands in demo.json: {state}");

    demo(&["stop"], base);
    for port in stopped.0..stopped.0 + 4 {
        assert!(Connection::try_open(port).is_err(), "something still listens on {port}");
    }
}
