//! Power loss: any part of the unsynced writes is lost, and every answered change is still there.

use std::collections::BTreeMap;

use end_to_end::{Admin, ControlPlane, CreatedKey, Disk, DiskFault, UnsyncedWrites, eventually, latchkey};
use fastrand::Rng;
use serde_json::{Value, json};

const ROUNDS: u64 = 12;
const WRITERS: usize = 4;

/// Answered changes: each key with the revision that its last answer gave.
type AnsweredChanges = BTreeMap<String, u64>;

fn record(answered: &mut AnsweredChanges, key: &Value) {
    answered.insert(key["id"].as_str().expect("an id").to_owned(), key["revision"].as_u64().expect("a revision"));
}

/// Creates keys and deactivates some of them until the control plane is killed.
fn write_until_killed(admin: &Admin, name: &str) -> AnsweredChanges {
    let mut answered = AnsweredChanges::new();
    for number in 0.. {
        let body = json!({"name": format!("{name}.{number}"), "expires_in": "1d"});
        let Some((201, created)) = admin.send("POST", "/v1/workspaces/acme/keys", Some(&body)) else { break };
        if created["key"].is_null() {
            break;
        }
        record(&mut answered, &created["key"]);
        if number % 3 == 0 {
            let id = created["key"]["id"].as_str().expect("an id");
            let path = format!("/v1/workspaces/acme/keys/{id}/deactivate");
            match admin.send("POST", &path, None) {
                Some((200, key)) if key.is_object() => record(&mut answered, &key),
                _ => break,
            }
        }
    }
    answered
}

/// Writes under load until a random moment, then kills the control plane; returns the answered changes.
fn load_and_kill(control_plane: &mut ControlPlane, round: u64, random: &mut Rng) -> AnsweredChanges {
    let start = revision(&control_plane.admin());
    let until = start + random.u64(5..120);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let admin = control_plane.admin();
                scope.spawn(move || write_until_killed(&admin, &format!("{round}.{writer}")))
            })
            .collect();
        let admin = control_plane.admin();
        eventually("there are changes", || match revision(&admin) {
            seen if seen >= until => Ok(()),
            seen => Err(format!("revision {seen} of {until}")),
        });
        control_plane.process.kill();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    })
}

fn revision(admin: &Admin) -> u64 {
    admin.get("/v1/enforcement")["revision"].as_u64().expect("a revision")
}

/// Answered changes that are missing.
fn lost_changes(admin: &Admin, answered: &AnsweredChanges) -> Vec<String> {
    let is_lost = |(id, revision): &(&String, &u64)| {
        let (_, key) = admin.send("GET", &format!("/v1/workspaces/acme/keys/{id}"), None).expect("an answer");
        key["revision"].as_u64().is_none_or(|there| there < **revision)
    };
    answered.iter().filter(is_lost).map(|(id, revision)| format!("{id} at {revision}")).collect()
}

/// Fails unless the file is intact, and each revision has its event.
fn assert_whole(control_plane: &ControlPlane, when: &str) {
    let database = control_plane.database().display().to_string();
    let copy = control_plane.folder().join(format!("{when}.db")).display().to_string();
    for command in
        [vec!["audit", "verify", "--database", &database], vec!["backup", "--database", &database, "--to", &copy]]
    {
        let (code, output) = latchkey(&command);
        assert_eq!(code, Some(0), "{when}: {output}");
    }
}

#[test]
fn answered_changes_survive_a_power_loss() {
    let disk = Disk::new();
    let mut control_plane = ControlPlane::start_on_disk(&disk);
    control_plane.admin().create_workspace("acme");
    let (mut answered, mut unsynced, mut round) = (AnsweredChanges::new(), 0, 0);
    // Continues while every kill found everything synced.
    while round < ROUNDS || unsynced == 0 {
        assert!(round < 10 * ROUNDS, "no round had anything to lose");
        let mut random = Rng::with_seed(round);
        answered.extend(load_and_kill(&mut control_plane, round, &mut random));
        let what = if round % 3 == 0 { UnsyncedWrites::Lost } else { UnsyncedWrites::Torn };
        unsynced += disk.lose_power(&control_plane.database(), what, &mut random);
        control_plane.restart();
        assert_eq!(lost_changes(&control_plane.admin(), &answered), Vec::<String>::new(), "round {round}, {what:?}");
        assert_whole(&control_plane, &format!("round {round}"));
        round += 1;
    }
    println!("{} keys, {round} power losses, {unsynced} bytes that were written and not synced", answered.len());
}

/// Shows that the test above can fail.
#[test]
fn a_disk_that_lies_about_its_syncs_loses_answered_changes() {
    let disk = Disk::new();
    let mut control_plane = ControlPlane::start_on_disk(&disk);
    control_plane.admin().create_workspace("acme");
    disk.set(DiskFault::SyncLies);
    let answered = load_and_kill(&mut control_plane, 0, &mut Rng::with_seed(0));
    disk.lose_power(&control_plane.database(), UnsyncedWrites::Lost, &mut Rng::with_seed(0));
    control_plane.restart();
    assert_eq!(lost_changes(&control_plane.admin(), &answered).len(), answered.len());
}

/// A failed sync may have lost its data, although the next one succeeds.
#[test]
fn a_failed_sync_is_reported_and_loses_no_answered_change() {
    let disk = Disk::new();
    let mut control_plane = ControlPlane::start_on_disk(&disk);
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let mut answered = AnsweredChanges::new();
    let mut make = |name: &str| {
        let body = json!({"name": name, "expires_in": "none"});
        let (status, created) = admin.send("POST", "/v1/workspaces/acme/keys", Some(&body)).expect("an answer");
        if status == 201 {
            record(&mut answered, &created["key"]);
        }
        (status, created["code"].clone())
    };
    for round in 0..5 {
        assert_eq!(make("before").0, 201, "round {round}");
        disk.set(DiskFault::SyncFails);
        for _ in 0..3 {
            assert_eq!(make("meanwhile"), (503, json!("storage-unavailable")), "round {round}");
        }
        disk.set(DiskFault::Nothing);
        assert_eq!(make("after").0, 201, "round {round}");
    }
    control_plane.process.kill();
    disk.lose_power(&control_plane.database(), UnsyncedWrites::Lost, &mut Rng::with_seed(0));
    control_plane.restart();
    let admin = control_plane.admin();
    assert_eq!(lost_changes(&admin, &answered), Vec::<String>::new());
    let keys = admin.get("/v1/workspaces/acme/keys?limit=100");
    assert_eq!(keys["items"].as_array().map(Vec::len), Some(answered.len()), "refused changes aren't there");
    assert_whole(&control_plane, "after");
}

/// A crash may leave anything beside the database.
#[test]
fn files_that_a_crash_left_beside_the_database_do_no_harm() {
    let mut control_plane = ControlPlane::start_on_sqlite();
    control_plane.admin().create_workspace("acme");
    let keys: Vec<CreatedKey> = (0..20).map(|n| control_plane.admin().create_key("acme", &n.to_string())).collect();
    let beside = |control_plane: &ControlPlane, suffix: &str| {
        let mut name = control_plane.database().into_os_string();
        name.push(suffix);
        std::path::PathBuf::from(name)
    };
    let mut random = Rng::with_seed(1);
    let garbage: Vec<u8> = (0..40_000).map(|_| random.u8(..)).collect();
    for what in ["as it was", "a torn end", "a half frame", "a wild index", "no index"] {
        control_plane.process.kill();
        let (wal, index) = (beside(&control_plane, "-wal"), beside(&control_plane, "-shm"));
        let mut log = std::fs::read(&wal).expect("a WAL that the crash left");
        assert!(!log.is_empty(), "{what}");
        match what {
            "a torn end" => log.extend(&garbage),
            "a half frame" => log.extend(log[32..2_000].to_vec()),
            "a wild index" => std::fs::write(&index, &garbage[..32_768]).expect("an index"),
            "no index" => std::fs::remove_file(&index).expect("no index"),
            _ => {}
        }
        std::fs::write(&wal, log).expect("the WAL");
        control_plane.restart();
        let admin = control_plane.admin();
        for key in &keys {
            assert_eq!(admin.key(key)["id"], json!(key.id), "{what}");
        }
        // So that there is a WAL for the next crash to leave.
        admin.create_key("acme", what);
        assert_whole(&control_plane, what);
    }
}
