//! Copies made with SQLite's own tools, as docs/operating.md describes.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use end_to_end::{Admin, ControlPlane, CreatedKey, Stack, eventually, latchkey};
use serde_json::json;

/// Runs `sqlite3` on a database.
fn sqlite3(database: &Path, command: &str) {
    let output = Command::new("sqlite3").arg("-batch").arg(database).arg(command).output().expect("sqlite3");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A control plane whose database is a copy of these files, each under the name beside it.
fn serve_copy(files: &[(&Path, &str)]) -> ControlPlane {
    let mut copy = ControlPlane::start_on_sqlite();
    copy.process.kill();
    for suffix in ["", "-wal", "-shm"] {
        let path = copy.folder().join(format!("latchkey.db{suffix}"));
        if path.exists() {
            std::fs::remove_file(path).expect("the empty database");
        }
    }
    for (from, to) in files {
        std::fs::copy(from, copy.folder().join(to)).expect("a copy");
    }
    copy.restart();
    copy
}

fn assert_has(admin: &Admin, keys: &[CreatedKey]) {
    for key in keys {
        assert_eq!(admin.key(key)["id"], json!(key.id));
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_sqlite3_copy_of_a_database_in_use_has_every_answered_change() {
    let control_plane = ControlPlane::start_on_sqlite();
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    for (number, command) in [".backup 'copy-0.db'", "VACUUM INTO 'copy-1.db'"].into_iter().enumerate() {
        let copy = control_plane.folder().join(format!("copy-{number}.db"));
        let command = command.replace(&format!("copy-{number}.db"), &path_text(&copy));
        let keys: Vec<CreatedKey> = (0..20).map(|n| admin.create_key("acme", &n.to_string())).collect();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let meanwhile = scope.spawn(|| {
                let body = json!({"name": "meanwhile", "expires_in": "none"});
                while !is_over.load(Ordering::Relaxed) {
                    let (status, answer) =
                        admin.send("POST", "/v1/workspaces/acme/keys", Some(&body)).expect("an answer");
                    assert_eq!(status, 201, "{answer}");
                }
            });
            sqlite3(&control_plane.database(), &command);
            is_over.store(true, Ordering::Relaxed);
            meanwhile.join().expect("the writer");
        });
        let (code, output) = latchkey(&["audit", "verify", "--database", &path_text(&copy)]);
        assert_eq!(code, Some(0), "{command}: {output}");
        assert_has(&serve_copy(&[(&copy, "latchkey.db")]).admin(), &keys);
    }
}

#[test]
fn the_database_file_is_a_copy_only_together_with_its_wal() {
    let mut control_plane = ControlPlane::start_on_sqlite();
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let keys: Vec<CreatedKey> = (0..20).map(|n| admin.create_key("acme", &n.to_string())).collect();
    // Ended by a crash, so the WAL stays.
    control_plane.process.kill();
    let (file, wal) = (control_plane.database(), control_plane.folder().join("latchkey.db-wal"));
    let alone = control_plane.folder().join("alone.db");
    std::fs::copy(&file, &alone).expect("a copy");

    let (code, output) = latchkey(&["restore", "--from", &path_text(&alone), "--database", &path_text(&file)]);
    assert_eq!(code, Some(1), "{output}");

    assert_has(&serve_copy(&[(&file, "latchkey.db"), (&wal, "latchkey.db-wal")]).admin(), &keys);
    // The refusal changed nothing.
    control_plane.restart();
    assert_has(&control_plane.admin(), &keys);
}

#[test]
fn edges_follow_a_database_restored_from_a_sqlite3_copy() {
    let mut stack = Stack::start_on_sqlite();
    let key = stack.admin.create_key("acme", "kept");
    stack.wait_known(&key);
    let (database, copy) = (stack.control_plane.database(), stack.control_plane.folder().join("copy.db"));
    sqlite3(&database, &format!(".backup '{}'", path_text(&copy)));
    stack.control_plane.process.kill();
    let (code, output) = latchkey(&["restore", "--from", &path_text(&copy), "--database", &path_text(&database)]);
    assert_eq!(code, Some(0), "{output}");
    stack.control_plane.restart();
    let new = stack.admin.create_key("acme", "made after");
    stack.wait_known(&new);
    stack.wait_known(&key);
    eventually("every worker has the new history", || {
        let seen = stack.admin.get("/v1/enforcement");
        if seen["enforced"] == json!(true) { Ok(()) } else { Err(seen.to_string()) }
    });
    assert!(stack.envoy.process.log().contains("history has changed"), "the edge logs that it follows another history");
    stack.envoy.assert_no_vm_failed();
}
