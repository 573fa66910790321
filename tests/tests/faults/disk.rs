//! A disk that accepts no writes: changes are refused clearly, everything else works, no restart is needed.

use std::process::Command;

use end_to_end::{
    Admin, Connection, ControlPlane, CreatedKey, Disk, DiskFault, Echo, Envoy, EnvoyConfig, Expected, LoadGenerator,
    Process, eventually, free_port, serve_command,
};
use serde_json::{Value, json};

/// One Envoy, and a control plane on a disk that can break.
struct Site {
    disk: Disk,
    control_plane: ControlPlane,
    admin: Admin,
    envoy: Envoy,
    good: CreatedKey,
    dead: CreatedKey,
    _echo: Echo,
}

impl Site {
    fn start() -> Self {
        let (disk, echo) = (Disk::new(), Echo::start());
        let control_plane = ControlPlane::start_on_disk(&disk);
        let admin = control_plane.admin();
        admin.create_workspace("acme");
        let (good, dead) = (admin.create_key("acme", "good"), admin.create_key("acme", "dead"));
        admin.delete(&dead);
        let config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
        let mut envoy = Envoy::start(&config);
        envoy.wait_ready();
        let site = Self { disk, control_plane, admin, envoy, good, dead, _echo: echo };
        site.wait_enforced();
        site
    }

    fn wait_enforced(&self) {
        eventually("every worker has all changes", || {
            let seen = self.admin.get("/v1/enforcement");
            if seen["enforced"] == json!(true) { Ok(()) } else { Err(seen.to_string()) }
        });
    }

    fn status_of(&self, path: &str) -> u16 {
        Connection::open(self.control_plane.port).get(path, &[]).status
    }

    fn revision(&self) -> Value {
        self.admin.get("/v1/enforcement")["revision"].clone()
    }
}

/// A change of each kind that an admin may try.
fn changes(key: &CreatedKey) -> Vec<(&'static str, String, Option<Value>)> {
    vec![
        ("POST", "/v1/workspaces".to_owned(), Some(json!({"name": "Other", "slug": "other"}))),
        ("POST", "/v1/workspaces/acme/keys".to_owned(), Some(json!({"name": "new", "expires_in": "none"}))),
        ("PATCH", key.path(), Some(json!({"name": "renamed"}))),
        ("POST", format!("{}/rotate", key.path()), Some(json!({}))),
        ("POST", format!("{}/deactivate", key.path()), None),
        ("DELETE", key.path(), None),
        ("POST", "/v1/edge-tokens".to_owned(), Some(json!({"name": "new", "edge": "other"}))),
    ]
}

#[test]
fn a_full_or_read_only_disk_refuses_changes_and_nothing_else() {
    let site = Site::start();
    let load = LoadGenerator::start(
        site.envoy.connections(4),
        site.envoy.port,
        &[
            Expected { secret: site.good.secret.clone(), verdict: "200 -" },
            Expected { secret: site.dead.secret.clone(), verdict: "401 unknown-key" },
        ],
    );
    for fault in [DiskFault::Full, DiskFault::ReadOnly, DiskFault::SyncFails] {
        let (before, key) = (site.revision(), site.admin.key(&site.good));
        site.disk.set(fault);
        for (method, path, body) in changes(&site.good) {
            let (status, answer) = site.admin.send(method, &path, body.as_ref()).expect("an answer");
            assert_eq!(
                (status, &answer["code"]),
                (503, &json!("storage-unavailable")),
                "{fault:?}: {method} {path}: {answer}"
            );
        }
        assert_eq!(site.status_of("/readyz"), 503, "{fault:?}");
        assert_eq!(site.status_of("/healthz"), 200, "{fault:?}");
        // Reads still work, and show the state from before.
        assert_eq!(site.revision(), before, "{fault:?}");
        assert_eq!(site.admin.key(&site.good), key, "{fault:?}");
        assert_eq!(site.admin.get("/v1/workspaces")["items"].as_array().map(Vec::len), Some(1), "{fault:?}");
        // So does the feed: every worker still counts as current.
        site.wait_enforced();
        load.wait_for(100);

        site.disk.set(DiskFault::Nothing);
        let key = eventually("changes are accepted again", || {
            let body = json!({"name": format!("after {fault:?}"), "expires_in": "none", "scopes": {"reviews": "read"}});
            match site.admin.send("POST", "/v1/workspaces/acme/keys", Some(&body)).expect("an answer") {
                (201, created) => Ok(created),
                (status, answer) => Err(format!("{status} {answer}")),
            }
        });
        site.wait_enforced();
        let secret = key["secret"].as_str().expect("a secret");
        for mut connection in site.envoy.connections(4) {
            assert_eq!(connection.get("/v1/reviews", &[("x-api-key", secret)]).verdict(), "200 -", "{fault:?}");
        }
        eventually("it is ready", || match site.status_of("/readyz") {
            200 => Ok(()),
            status => Err(format!("{status} after {fault:?}")),
        });
    }
    println!("{} requests meanwhile", load.answered());
    assert_eq!(load.stop(), Vec::<String>::new());
    site.envoy.assert_no_vm_failed();
    let log = site.control_plane.process.log();
    for cause in ["database or disk is full", "disk I/O error"] {
        assert!(log.contains(cause), "the log names the cause: {cause}");
    }
}

/// A WAL that restarts at its beginning has room for small changes on a full disk, until it is full itself.
#[test]
fn a_full_disk_becomes_ready_by_a_probe_and_not_by_a_small_change() {
    let disk = Disk::new();
    let control_plane = ControlPlane::start_on_disk(&disk);
    let admin = control_plane.admin();
    let status = || Connection::open(control_plane.port).get("/readyz", &[]).status;
    for n in 0..20 {
        admin.create_workspace(&format!("workspace-{n}"));
    }
    let checkpoint = Command::new("sqlite3").arg(control_plane.database()).arg("PRAGMA wal_checkpoint(FULL)").output();
    let checkpoint = checkpoint.expect("sqlite3");
    assert!(checkpoint.status.success(), "{checkpoint:?}");
    admin.create_workspace("the-first-in-the-wal");
    assert_eq!(status(), 200);
    disk.set(DiskFault::Full);
    let line = |n: u32| format!("{{\"digest\": \"{n:064x}\", \"name\": \"key {n}\", \"expires_in\": \"none\"}}\n");
    let (refused, answer) =
        admin.send_lines("/v1/workspaces/workspace-0/keys/import", (0..5_000).map(line).collect::<String>());
    assert_eq!(
        (refused, &answer["code"]),
        (503, &json!("storage-unavailable")),
        "more than there is room for: {answer}"
    );
    assert_eq!(status(), 503, "a change was refused");
    admin.create_workspace("small");
    assert_eq!(status(), 503, "a small change found room");
    disk.set(DiskFault::Nothing);
    eventually("it is ready", || match status() {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
}

/// A control plane that can't write can't promise anything, so it doesn't start to serve.
#[test]
fn a_start_on_a_full_or_read_only_disk_fails_with_one_line() {
    for fault in [DiskFault::Full, DiskFault::ReadOnly] {
        let (disk, folder, port) = (Disk::new(), tempfile::tempdir().expect("a folder"), free_port());
        disk.set(fault);
        let database = folder.path().join("latchkey.db");
        let mut command = serve_command(folder.path(), port, &[("database", &database.display().to_string())]);
        disk.attach(&mut command, &database);
        let mut process = Process::start("the control plane", &mut command, &folder.path().join("log"));
        let status = process.wait_for_exit();
        let log = process.log();
        assert_eq!(status.code(), Some(1), "{fault:?}: {log}");
        assert!(log.contains("latchkey.db") && log.lines().count() == 1, "{fault:?}: {log}");
        // It also leaves nothing that the next start would take for a database or a token.
        disk.set(DiskFault::Nothing);
        let mut process = Process::start("the control plane", &mut command, &folder.path().join("log"));
        eventually("it serves", || {
            process.assert_runs();
            Connection::try_open(port).map(drop)
        });
    }
}
