//! Import: clients keep the keys that other software issued.

use std::sync::atomic::{AtomicBool, Ordering};

use end_to_end::{Connection, Stack, eventually};
use serde_json::json;
use test_support::digest;

const KEYS: usize = 100_000;

fn secret(number: usize) -> String {
    format!("theirs.{number:06}-with their own punctuation")
}

fn line(secret: &str) -> String {
    let line = json!({"digest": digest::hexadecimal(secret), "name": secret, "expires_in": "none", "scopes": {"reviews": "read"}});
    format!("{line}\n")
}

fn verdict(connection: &mut Connection, secret: &str) -> String {
    connection.get("/v1/reviews", &[("x-api-key", secret)]).verdict()
}

#[test]
fn a_hundred_thousand_imported_keys_work_and_changes_are_made_meanwhile() {
    let stack = Stack::start_with(|config| config.plugin["foreign_keys"] = json!(true));
    let first = stack.admin.create_key("acme", "made before");
    stack.wait_known(&first);
    let mut connections = stack.envoy.connections(8);
    for connection in &mut connections {
        assert_eq!(verdict(connection, &secret(0)), "401 unknown-key");
    }
    let lines: String = (0..KEYS).map(|number| line(&secret(number))).collect();

    let is_done = AtomicBool::new(false);
    let (answer, others) = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (admin, mut created) = (stack.control_plane.admin(), 0_u32);
            while !is_done.load(Ordering::Relaxed) {
                admin.create_key("acme", "made meanwhile");
                created += 1;
            }
            created
        });
        let answer = stack.admin.send_lines("/v1/workspaces/acme/keys/import", lines.clone());
        is_done.store(true, Ordering::Relaxed);
        (answer, other.join().expect("the other admin"))
    });
    assert_eq!((answer.0, &answer.1["imported"]), (200, &json!(KEYS)), "{}", answer.1["detail"]);
    assert!(others > 1, "{others} keys were created during the import");

    // The last line is applied last.
    for connection in &mut connections {
        eventually("the import has reached every worker", || {
            let seen = verdict(connection, &secret(KEYS - 1));
            if seen == "200 -" { Ok(()) } else { Err(seen) }
        });
    }
    for number in (0..KEYS).step_by(97) {
        let connection = &mut connections[number % 8];
        assert_eq!(verdict(connection, &secret(number)), "200 -", "key {number}");
    }
    for connection in &mut connections {
        assert_eq!(verdict(connection, &secret(KEYS)), "401 unknown-key");
        assert_eq!(verdict(connection, &first.secret), "200 -");
    }

    // One digest is already taken, so nothing is imported.
    let lines = [line("new"), line(&secret(KEYS / 2))].concat();
    let (status, refused) = stack.admin.send_lines("/v1/workspaces/acme/keys/import", lines);
    assert_eq!((status, &refused["lines"][0]["line"]), (422, &json!(2)), "{refused}");
    assert_eq!(verdict(&mut connections[0], "new"), "401 unknown-key");
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_crash_leaves_an_import_whole_or_absent() {
    const IMPORTED: usize = 20_000;
    let mut stack = Stack::start_with(|config| config.plugin["foreign_keys"] = json!(true));
    let lines: String = (0..IMPORTED).map(|number| line(&secret(number))).collect();
    let count = |stack: &Stack| {
        let events = stack.admin.export_audit();
        events.lines().filter(|line| line.contains("\"action\":\"keys.import\"")).count()
    };
    std::thread::scope(|scope| {
        let admin = stack.control_plane.admin();
        // The control plane is killed meanwhile, so there may be no answer.
        let importing = scope.spawn(move || admin.try_send_lines("/v1/workspaces/acme/keys/import", lines));
        eventually("a part of the import is committed", || match count(&stack) {
            0 => Err("nothing is there".to_owned()),
            _ => Ok(()),
        });
        stack.control_plane.process.kill();
        drop(importing.join().expect("the import's client"));
    });
    stack.control_plane.restart();
    assert_eq!(count(&stack), IMPORTED / 100);
    let mut connection = Connection::open(stack.envoy.port);
    for number in [0, IMPORTED / 2, IMPORTED - 1] {
        eventually("every key of it is there", || {
            let seen = verdict(&mut connection, &secret(number));
            if seen == "200 -" { Ok(()) } else { Err(seen) }
        });
    }
}
