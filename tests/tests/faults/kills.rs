//! Control plane and Envoy killed at random, under load and during changes: no deleted key ever passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use end_to_end::{Connection, CreatedKey, Stack, eventually};
use fastrand::Rng;
use serde_json::json;

const ROUNDS: u64 = 5;

/// Whether a request with a deleted key may get this verdict while Envoy, or its VM, restarts. Never 200.
fn is_denied(verdict: &str) -> bool {
    verdict == "401 unknown-key" || verdict == "503 not-ready" || verdict == "503 stale"
}

/// Sends requests with a deleted key until `is_over`, through every restart. Returns the verdicts that were no denials,
/// and the number of denials.
fn send_until_over(port: u16, dead: &CreatedKey, is_over: &AtomicBool) -> (Vec<String>, usize) {
    let (mut wrong, mut denied) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut connection) = Connection::try_open(port) else {
            std::thread::yield_now();
            continue;
        };
        while let Ok(answer) = connection.try_get("/v1/reviews", &[("x-api-key", &dead.secret)]) {
            match answer.verdict() {
                verdict if is_denied(&verdict) => denied += 1,
                verdict => wrong.push(verdict),
            }
            if is_over.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    (wrong, denied)
}

#[test]
fn control_plane_and_envoy_killed_at_random_let_no_deleted_key_pass() {
    let seed = 7;
    let mut random = Rng::with_seed(seed);
    let mut stack = Stack::start();
    let dead = stack.admin.create_key("acme", "dead");
    stack.wait_known(&dead);
    stack.admin.delete(&dead);
    eventually("every worker denies the deleted key", || {
        let seen = stack.admin.get("/v1/enforcement");
        if seen["enforced"] == json!(true) { Ok(()) } else { Err(seen.to_string()) }
    });
    let is_over = AtomicBool::new(false);
    let port = stack.envoy.port;
    let results: Vec<(Vec<String>, usize)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| send_until_over(port, &dead, &is_over))).collect();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..ROUNDS {
                // A random number of changes, and the kill while another one is in flight.
                let mut keys: Vec<CreatedKey> =
                    (0..random.usize(2..12)).map(|n| stack.admin.create_key("acme", &n.to_string())).collect();
                let gone = keys.swap_remove(random.usize(..keys.len()));
                stack.admin.delete(&gone);
                let (kills_control_plane, kills_envoy) =
                    [(true, false), (false, true), (true, true)][random.usize(..3)];
                let admin = stack.admin.clone();
                let is_killed = Arc::new(AtomicBool::new(false));
                let ends = Arc::clone(&is_killed);
                let writer = std::thread::spawn(move || {
                    let body = json!({"name": "under way", "expires_in": "none"});
                    while !ends.load(Ordering::Relaxed) {
                        let _ = admin.send("POST", "/v1/workspaces/acme/keys", Some(&body));
                    }
                });
                for _ in 0..random.usize(..2_000) {
                    std::thread::yield_now();
                }
                if kills_envoy {
                    stack.envoy.process.kill();
                }
                if kills_control_plane {
                    stack.control_plane.process.kill();
                }
                is_killed.store(true, Ordering::Relaxed);
                writer.join().expect("the writer");
                if kills_control_plane {
                    stack.control_plane.restart();
                }
                if kills_envoy {
                    stack.envoy.restart();
                    stack.envoy.wait_ready();
                }
                // Every answered change is there, at both.
                for key in &keys {
                    stack.wait_known(key);
                }
                for mut connection in stack.envoy.connections(4) {
                    eventually("every worker denies the deleted key", || {
                        let seen = connection.get("/v1/reviews", &[("x-api-key", &gone.secret)]).verdict();
                        if seen == "401 unknown-key" { Ok(()) } else { Err(format!("round {round}: {seen}")) }
                    });
                }
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        let results = clients.into_iter().map(|client| client.join().expect("a client")).collect();
        if let Err(broken) = outcome {
            std::panic::resume_unwind(broken);
        }
        results
    });
    println!(
        "{ROUNDS} rounds, {} requests with a deleted key",
        results.iter().map(|(_, denied)| denied).sum::<usize>()
    );
    for (wrong, denied) in results {
        assert_eq!(wrong, Vec::<String>::new(), "seed {seed}");
        assert!(denied > 100, "{denied} requests with a deleted key");
    }
}
