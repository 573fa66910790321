//! That an answer is on disk before it is sent: seen in the system calls, where killing the process can't show it.

use std::fs::read_to_string;
use std::process::{Command, Stdio};

use crate::start::Running;

/// Needs strace; where there is none the test says so and passes, for there is nothing it could see with.
#[tokio::test]
async fn the_wal_is_synced_before_a_change_is_answered() {
    let strace = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !strace.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("strace");
    command
        .args(["--follow-forks", "--decode-fds=path", "--string-limit=64", "--output=trace"])
        .arg("--trace=fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg")
        .arg(env!("CARGO_BIN_EXE_latchkey"))
        .args(["serve", "--listen=127.0.0.1:0", "--admin-token-file=admin.token", "--edge-token-file=edge.token"])
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = Running::start(command);
    let token = read_to_string(directory.path().join("admin.token")).unwrap();
    let client = reqwest::Client::new();
    for number in 0..20 {
        let made = client
            .post(format!("http://{}/v1/workspaces", running.address))
            .bearer_auth(token.trim_end())
            .json(&serde_json::json!({"name": "Acme", "slug": format!("acme-{number}")}))
            .send()
            .await
            .unwrap();
        assert_eq!(made.status(), 201);
    }
    drop(running);

    // From one answer to the next: the WAL is written, then synced, and nothing is written to it after that.
    let trace = read_to_string(directory.path().join("trace")).unwrap();
    let (mut answers, mut written, mut synced) = (0, false, false);
    for line in trace.lines() {
        if line.contains("latchkey.db-wal>") && line.contains("pwrite64(") {
            (written, synced) = (true, false);
        } else if line.contains("latchkey.db-wal>") && line.contains("sync(") && line.ends_with("= 0") {
            synced = true;
        } else if line.contains("HTTP/1.1 201 Created") {
            assert!(written && synced, "answered before the WAL was synced:\n{line}");
            answers += 1;
            (written, synced) = (false, false);
        }
    }
    assert_eq!(answers, 20);
}
