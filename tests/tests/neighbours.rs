//! One tenant imports many large keys, without effect on the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use end_to_end::{Connection, Expected, LoadGenerator, NETWORKS, Stack, eventually_within, large_lines};
use serde_json::json;

const IMPORTS: usize = 3;
const KEYS: usize = 20_000;
const WORKERS: u32 = 4;

/// About the size of a table at an edge: a record is 76 bytes, its workspace and its networks. Each VM has a table, and
/// shared data has one.
const TABLE_BYTES: u64 = (IMPORTS * KEYS * (100 + 18 * NETWORKS)) as u64;
const TABLES: u64 = WORKERS as u64 + 2;

/// How long a revocation of another tenant may take until it is enforced.
const ENFORCED_WITHIN: Duration = Duration::from_secs(3);

/// Makes a change that waits for up to 10 s; returns its enforcement and how long the answer took.
fn change(stack: &Stack, path: &str) -> (String, Duration) {
    let bearer = format!("Bearer {}", stack.control_plane.admin_token());
    let headers = [("authorization", bearer.as_str()), ("prefer", "wait=10")];
    let began = Instant::now();
    let answer = Connection::open(stack.control_plane.port).request("POST", path, &headers);
    assert_eq!(answer.status, 200, "{path}");
    (answer.headers.get("latchkey-enforcement").cloned().unwrap_or_default(), began.elapsed())
}

#[test]
fn a_large_import_affects_no_other_tenant_and_takes_bounded_memory() {
    let mut stack = Stack::start_with(|config| {
        config.workers = WORKERS;
        config.plugin["foreign_keys"] = json!(true);
    });
    stack.envoy.wait_ready();
    let (used, revoked) = (stack.admin.create_key("acme", "used"), stack.admin.create_key("acme", "revoked"));
    stack.admin.create_workspace("newcomer");
    stack.wait_known(&revoked);
    let revoke = |action: &str| change(&stack, &format!("{}/{action}", revoked.path()));
    let expected = format!("enforced=true, edges=1, workers={}", WORKERS + 1);
    eventually_within(Duration::from_secs(30), "every worker is known", || {
        let (seen, _) = revoke("activate");
        if seen.starts_with(&expected) { Ok(()) } else { Err(seen) }
    });
    let before = stack.envoy.process.resident_bytes();

    let is_allowed = [Expected { secret: used.secret.clone(), verdict: "200 -" }];
    let load = LoadGenerator::start(stack.envoy.connections(2), stack.envoy.port, &is_allowed);
    let is_done = AtomicBool::new(false);
    let (mut revocations, mut slowest) = (0, Duration::ZERO);
    std::thread::scope(|scope| {
        let admin = stack.control_plane.admin();
        let is_done = &is_done;
        scope.spawn(move || {
            for import in 0..IMPORTS {
                let answer = admin.try_send_lines(
                    "/v1/workspaces/newcomer/keys/import",
                    large_lines(import * KEYS..(import + 1) * KEYS),
                );
                if answer.as_ref().is_none_or(|(status, _)| *status != 200) {
                    is_done.store(true, Ordering::Relaxed);
                    panic!("import {import}: {answer:?}");
                }
            }
            is_done.store(true, Ordering::Relaxed);
        });
        while !is_done.load(Ordering::Relaxed) {
            for action in ["deactivate", "activate"] {
                let (enforcement, took) = revoke(action);
                assert!(enforcement.starts_with(&expected), "{action} after {took:?}: {enforcement}");
                slowest = slowest.max(took);
                revocations += 1;
            }
        }
    });
    let wrong = load.stop();
    assert_eq!(wrong, Vec::<String>::new(), "what another tenant's client was answered");
    assert!(revocations > 20, "{revocations} changes");
    assert!(slowest < ENFORCED_WITHIN, "a change of another tenant took {slowest:?} of {revocations}");
    let grew = stack.envoy.process.peak_resident_bytes().saturating_sub(before);
    assert!(grew > TABLE_BYTES, "{grew} bytes more: the keys are not there");
    let most = TABLES * TABLE_BYTES * 3 / 2;
    assert!(grew < most, "Envoy grew by {} MB, and should by {} MB at most", grew >> 20, most >> 20);
    stack.envoy.assert_no_vm_failed();
}
