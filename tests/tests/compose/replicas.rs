//! The profile `postgres`: two control planes over one PostgreSQL, and two Envoys that use both.

use end_to_end::{Connection, eventually, eventually_within};

use crate::load::Load;
use crate::stack::{RECONNECTED, Stack, all_workers, assert_hardened, compose};

fn wait_ready(control_plane: u16) {
    eventually_within(RECONNECTED, "the control plane is ready", || {
        let answer = Connection::try_open(control_plane)?.try_get("/readyz", &[])?;
        if answer.status == 200 { Ok(()) } else { Err(answer.verdict()) }
    });
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn no_container_runs_as_root_or_can_write_its_file_system() {
    let _stack = Stack::from_environment();
    assert_hardened(6);
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn a_key_of_either_control_plane_works_at_both_envoys() {
    let mut stack = Stack::from_environment();
    for control_plane in stack.control_planes {
        stack.use_control_plane(control_plane);
        stack.wait_enforced_at(2);
        let key = stack.create_key("of either");
        let (enforcement, _) = stack.change("POST", &format!("{}/deactivate", key.path()), 30);
        assert!(enforcement.starts_with("enforced=true, edges=2"), "{enforcement}");
        for port in stack.envoys {
            assert_eq!(all_workers(port, &key.secret, "401 inactive-key"), Ok(()));
        }
    }
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn a_revocation_is_enforced_while_the_other_control_plane_is_killed() {
    let mut stack = Stack::from_environment();
    let load = Load::start(&stack);
    for (killed, other) in [("replica-1", 1), ("replica-2", 0)] {
        stack.use_control_plane(stack.control_planes[other]);
        let revoked = stack.create_key("revoked meanwhile");
        compose(&["kill", "-s", "KILL", killed]);
        let (enforcement, _) = stack.change("POST", &format!("{}/deactivate", revoked.path()), 30);
        assert!(enforcement.starts_with("enforced=true, edges=2"), "{enforcement}");
        for port in stack.envoys {
            assert_eq!(all_workers(port, &revoked.secret, "401 inactive-key"), Ok(()));
        }
        load.wait_for(500);
        compose(&["start", killed]);
        wait_ready(stack.control_planes[1 - other]);
    }
    load.assert_no_wrong_verdict();
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn a_postgresql_that_is_restarted_has_all_that_was_answered() {
    let stack = Stack::from_environment();
    let load = Load::start(&stack);
    let before = stack.create_key("made before");
    compose(&["restart", "-t", "30", "postgres"]);
    stack.control_planes.into_iter().for_each(wait_ready);
    eventually("the key is there", || match stack.admin.send("GET", &before.path(), None) {
        Some((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    stack.wait_enforced_at(2);
    let (enforcement, _) = stack.change("DELETE", &before.path(), 30);
    assert!(enforcement.starts_with("enforced=true, edges=2"), "{enforcement}");
    for port in stack.envoys {
        assert_eq!(all_workers(port, &before.secret, "401 unknown-key"), Ok(()));
    }
    load.wait_for(500);
    load.assert_no_wrong_verdict();
}
