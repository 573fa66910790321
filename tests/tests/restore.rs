//! Restoring yesterday's backup: keys that were revoked since then stay denied at the edge.

use std::sync::atomic::{AtomicBool, Ordering};

use end_to_end::{CommandLine, Connection, CreatedKey, Stack, eventually, latchkey};
use serde_json::json;

/// What was done to each key after the backup.
struct Keys {
    untouched: CreatedKey,
    deactivated: CreatedKey,
    rotated: CreatedKey,
    deleted: CreatedKey,
}

fn verdict(connection: &mut Connection, key: &CreatedKey) -> String {
    connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict()
}

/// A stack whose keys were revoked after a backup; also returns the keys and the backup's path.
fn start() -> (Stack, Keys, String) {
    let stack = Stack::start_on_sqlite();
    let key = |name| stack.admin.create_key("acme", name);
    let keys = Keys {
        untouched: key("untouched"),
        deactivated: key("deactivated"),
        rotated: key("rotated"),
        deleted: key("deleted"),
    };
    for known in [&keys.untouched, &keys.deactivated, &keys.rotated, &keys.deleted] {
        stack.wait_known(known);
    }
    let (database, backup) = (file(&stack, "latchkey.db"), file(&stack, "yesterday.db"));
    let (code, output) = latchkey(&["backup", "--database", &database, "--to", &backup]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.starts_with("backed up "), "{output}");

    stack.admin.act(&keys.deactivated, "deactivate");
    stack.admin.rotate_with(&keys.rotated, &json!({"overlap": "7d"}));
    stack.admin.delete(&keys.deleted);
    eventually("the edge denies the revoked keys", || {
        let mut connection = Connection::open(stack.envoy.port);
        let seen = (verdict(&mut connection, &keys.deactivated), verdict(&mut connection, &keys.deleted));
        if seen == ("401 inactive-key".to_owned(), "401 unknown-key".to_owned()) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
    (stack, keys, backup)
}

fn file(stack: &Stack, name: &str) -> String {
    stack.control_plane.folder().join(name).display().to_string()
}

fn stop(stack: &mut Stack) {
    stack.control_plane.process.signal("TERM");
    stack.control_plane.process.wait_for_exit();
}

/// Waits until every worker has loaded the control plane's current history.
fn wait_loaded(stack: &Stack) {
    eventually("every worker has the restored history", || {
        let seen = stack.admin.get("/v1/enforcement");
        if seen["enforced"] == json!(true) { Ok(()) } else { Err(seen.to_string()) }
    });
}

#[test]
fn a_revoked_key_stays_denied_at_the_edge_when_a_backup_is_restored_and_replayed() {
    let (mut stack, keys, backup) = start();
    let before = stack.admin.get("/v1/enforcement")["revision"].as_u64().expect("a revision");
    let log = file(&stack, "audit.jsonl");
    std::fs::write(&log, CommandLine::of(&stack.control_plane).ok(&["audit", "export"])).expect("the export");
    let database = file(&stack, "latchkey.db");
    let restore = ["restore", "--from", &backup, "--database", &database];
    let (code, output) = latchkey(&restore);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("another control plane has it open"), "{output}");
    stop(&mut stack);
    let (code, output) = latchkey(&restore);
    assert_eq!(code, Some(1), "{output}");
    for part in [
        &format!("revision {before} was reached since"),
        "deactivations: 1, rotations: 1, deletions: 1",
        "--replay-audit",
    ] {
        assert!(output.contains(part), "{output}");
    }

    // From before the restore until every worker has loaded it, no request with a revoked key passes.
    let is_loaded = AtomicBool::new(false);
    let mut connections = stack.envoy.connections(4);
    let passed: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let clients: Vec<_> = connections
            .iter_mut()
            .map(|connection| {
                let (is_loaded, keys) = (&is_loaded, &keys);
                scope.spawn(move || {
                    let (mut requests, mut served) = (0, 0);
                    while !is_loaded.load(Ordering::Relaxed) {
                        for dead in [&keys.deactivated, &keys.deleted] {
                            let seen = verdict(connection, dead);
                            assert!(seen.starts_with("401 ") || seen.starts_with("503 "), "{seen}");
                            requests += 1;
                        }
                        served += u32::from(verdict(connection, &keys.untouched) == "200 -");
                    }
                    (requests, served)
                })
            })
            .collect();
        let (code, output) = latchkey(&[&restore[..], &["--replay-audit", &log]].concat());
        assert_eq!(code, Some(0), "{output}");
        assert!(output.contains("1 keys deactivated, 1 rotated, 1 deleted"), "{output}");
        assert!(
            output.contains(&format!("rotate again, its new secret is lost: {} rotated", keys.rotated.id)),
            "{output}"
        );
        stack.control_plane.restart();
        wait_loaded(&stack);
        is_loaded.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    assert!(passed.iter().all(|(requests, served)| *requests > 0 && *served > 0), "{passed:?}");

    let revision = stack.admin.get("/v1/enforcement")["revision"].as_u64().expect("a revision");
    assert!(revision > before, "{revision} is not above {before}");
    for connection in &mut stack.envoy.connections(8) {
        for (key, expected) in [
            (&keys.untouched, "200 -"),
            (&keys.deactivated, "401 inactive-key"),
            (&keys.rotated, "401 rotated-key"),
            (&keys.deleted, "401 unknown-key"),
        ] {
            assert_eq!(verdict(connection, key), expected, "{}", key.id);
        }
    }
    // Its owner gets another secret, as after any rotation.
    let fresh = stack.admin.rotate(&keys.rotated);
    stack.wait_known(&fresh);
    stack.envoy.assert_no_vm_failed();
}

/// What the refusal prevents: without it, this would happen unnoticed.
#[test]
fn revoked_keys_are_valid_again_when_lost_changes_are_accepted() {
    let (mut stack, keys, backup) = start();
    stop(&mut stack);
    let database = file(&stack, "latchkey.db");
    let (code, output) = latchkey(&["restore", "--from", &backup, "--database", &database, "--accept-lost-changes"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("lost: the changes of revisions "), "{output}");
    stack.control_plane.restart();
    wait_loaded(&stack);
    for revived in [&keys.untouched, &keys.deactivated, &keys.rotated, &keys.deleted] {
        stack.wait_known(revived);
    }
}
