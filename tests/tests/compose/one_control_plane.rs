//! The stack without a profile: one control plane with a SQLite file.

use std::time::Duration;

use end_to_end::{Connection, eventually, eventually_within, run_in_shell};

use crate::load::Load;
use crate::stack::{RECONNECTED, Stack, all_workers, assert_hardened, compose, docker};

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn the_printed_lines_work_as_printed() {
    let _stack = Stack::from_environment();
    let file = std::env::var("LATCHKEY_COMPOSE_PRINTED").expect("what `scripts/compose up` printed");
    let printed = std::fs::read_to_string(file).expect("what was printed");
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let expected = ["200", "401 missing-key", "401 unknown-key", "403 missing-scope", "200"];
    assert_eq!(lines.len(), expected.len(), "{printed}");
    for (line, expected) in lines.iter().zip(expected) {
        let (verdict, answer) = run_in_shell(line);
        assert_eq!(verdict, expected, "{line}\n{answer}");
    }
    eventually_within(Duration::from_secs(1), "the revoked key is refused", || match run_in_shell(lines[0]) {
        (verdict, _) if verdict == "401 inactive-key" => Ok(()),
        (_, answer) => Err(answer),
    });
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn no_container_runs_as_root_or_can_write_its_file_system() {
    let _stack = Stack::from_environment();
    assert_hardened(4);
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn an_envoy_that_is_cut_off_is_reported_and_catches_up() {
    let stack = Stack::from_environment();
    let load = Load::start(&stack);
    let revoked = stack.create_key("revoked meanwhile");
    let envoy = compose(&["ps", "-q", "envoy-2"]);
    let network = format!("{}_control", std::env::var("COMPOSE_PROJECT_NAME").expect("a project"));
    docker(&["network", "disconnect", &network, &envoy]);
    let (enforcement, revision) = stack.change("POST", &format!("{}/deactivate", revoked.path()), 2);
    assert!(enforcement.starts_with("enforced=false, edges=2"), "one of the two can't have it: {enforcement}");
    assert_eq!(all_workers(stack.envoys[0], &revoked.secret, "401 inactive-key"), Ok(()));
    load.wait_for(500);
    docker(&["network", "connect", &network, &envoy]);
    eventually_within(RECONNECTED, "the change is enforced at both", || {
        let answer = stack.admin.get(&format!("/v1/enforcement?revision={revision}&wait=1"));
        if answer["enforced"] == true { Ok(()) } else { Err(answer.to_string()) }
    });
    for port in stack.envoys {
        assert_eq!(all_workers(port, &revoked.secret, "401 inactive-key"), Ok(()));
    }
    load.assert_no_wrong_verdict();
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn a_control_plane_that_was_killed_and_replaced_has_every_key_and_its_envoys() {
    let stack = Stack::from_environment();
    let load = Load::start(&stack);
    let before = stack.create_key("made before");
    compose(&["kill", "-s", "KILL", "control-plane"]);
    compose(&["rm", "-f", "control-plane"]);
    load.wait_for(500);
    compose(&["up", "-d", "--no-build", "control-plane"]);
    eventually("the control plane answers", || Connection::try_open(stack.control_plane)?.try_get("/readyz", &[]));
    assert_eq!(stack.admin.key(&before)["id"], before.id.as_str());
    stack.wait_enforced_at(2);
    let (enforcement, _) = stack.change("DELETE", &before.path(), 30);
    assert!(enforcement.starts_with("enforced=true, edges=2"), "{enforcement}");
    for port in stack.envoys {
        assert_eq!(all_workers(port, &before.secret, "401 unknown-key"), Ok(()));
    }
    load.assert_no_wrong_verdict();
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn changes_do_not_wait_for_an_envoy_that_was_replaced() {
    let stack = Stack::from_environment();
    let load = Load::start(&stack);
    let key = stack.create_key("asked at the new Envoy");
    compose(&["stop", "-t", "20", "envoy-2"]);
    let (enforcement, _) = stack.change("POST", &format!("{}/deactivate", key.path()), 10);
    assert!(enforcement.starts_with("enforced=true, edges=1, workers=3, disconnected=0"), "{enforcement}");
    compose(&["rm", "-f", "envoy-2"]);
    compose(&["up", "-d", "--no-deps", "--no-build", "envoy-2"]);
    stack.wait_ready(stack.envoys[1]);
    assert_eq!(all_workers(stack.envoys[1], &key.secret, "401 inactive-key"), Ok(()));
    stack.wait_enforced_at(2);
    load.assert_no_wrong_verdict();
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn a_rolling_restart_of_everything_gives_no_wrong_verdict() {
    let stack = Stack::from_environment();
    let load = Load::start(&stack);
    for (service, port) in [("envoy-1", stack.envoys[0]), ("envoy-2", stack.envoys[1])] {
        compose(&["restart", "-t", "20", service]);
        stack.wait_ready(port);
        stack.wait_enforced_at(2);
    }
    compose(&["restart", "-t", "20", "control-plane"]);
    stack.wait_enforced_at(2);
    load.wait_for(500);
    load.assert_no_wrong_verdict();
}
