//! Repeated kills under load: what was answered is there as a whole, and nothing is there in part.
//!
//! The last two need LATCHKEY_TEST_DATABASE=postgres.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::load::Load;
use test_support::databases::{self, Server, is_postgres};

/// Kills all processes of a server that was started with `--again`, and waits until its replacement runs.
pub(crate) fn kill_server(server: &Server) {
    let first = || {
        let file = std::fs::read_to_string(format!("{}/data/postmaster.pid", server.folder)).ok()?;
        file.lines().next().map(str::to_owned)
    };
    let killed = first().expect("it runs");
    let children = std::fs::read_to_string(format!("/proc/{killed}/task/{killed}/children")).unwrap();
    // One of them may have ended in the meantime.
    let _ = Command::new("kill").arg("-9").arg(&killed).args(children.split_whitespace()).output().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while first().is_none_or(|now| now == killed) {
        assert!(Instant::now() < deadline, "PostgreSQL is not started again");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_change_outlives_fifty_kills_with_its_event_and_its_revision() {
    let directory = tempfile::tempdir().unwrap();
    let database = databases::of(directory.path());
    let mut load = Load::start(directory, database, 1).await;
    for kill in 0..50 {
        // At another point of the load each time.
        load.wait_for_changes(kill % 10).await;
        load.kill(kill);
    }
    println!("50 kills of a control plane: {}", load.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_change_outlives_kills_of_control_planes_that_share_a_database() {
    if !is_postgres() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let database = databases::of(directory.path());
    let mut load = Load::start(directory, database, 2).await;
    for kill in 0..20 {
        load.wait_for_changes(kill % 10).await;
        load.kill(kill);
    }
    println!("20 kills of one of two control planes: {}", load.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_change_outlives_kills_of_the_server_that_keeps_it() {
    if !is_postgres() {
        return;
    }
    let server = databases::start(&["--again"]);
    let load = Load::start(tempfile::tempdir().unwrap(), server.url(), 2).await;
    for kill in 0..20 {
        load.wait_for_changes(1 + kill % 10).await;
        kill_server(&server);
    }
    load.wait_for_changes(1).await;
    println!("20 kills of PostgreSQL under two control planes: {}", load.end().await);
}
