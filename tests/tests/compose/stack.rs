//! The stack that scripts/test-compose started.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use end_to_end::{Admin, Connection, CreatedKey, eventually, eventually_within, root};
use serde_json::Value;

/// Deadline for a reconnect: an Envoy that was cut off retries at the latest when its last request times out.
pub const RECONNECTED: Duration = Duration::from_secs(90);

/// The stack that scripts/test-compose started.
pub struct Stack {
    pub admin: Admin,
    token: String,
    /// The ports of the control plane in use, and of all that may exist.
    pub control_plane: u16,
    pub control_planes: [u16; 2],
    pub envoys: [u16; 2],
    _alone: MutexGuard<'static, ()>,
}

impl Stack {
    pub fn from_environment() -> Self {
        static ONE_STACK: Mutex<()> = Mutex::new(());
        let alone = ONE_STACK.lock().unwrap_or_else(PoisonError::into_inner);
        let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("no {name}: run scripts/test-compose"));
        let base: u16 = variable("DEMO_PORT_BASE").parse().expect("a port");
        let file = root().join(".compose").join(variable("COMPOSE_PROJECT_NAME")).join("admin-token");
        let token = std::fs::read_to_string(file).expect("the admin token").trim().to_owned();
        let admin = Admin::new(&format!("http://127.0.0.1:{base}"), &token);
        let (control_planes, envoys) = ([base, base + 3], [base + 1, base + 2]);
        Self { admin, token, control_plane: base, control_planes, envoys, _alone: alone }
    }

    /// Sends later changes to this control plane.
    pub fn use_control_plane(&mut self, control_plane: u16) {
        self.admin = Admin::new(&format!("http://127.0.0.1:{control_plane}"), &self.token);
        self.control_plane = control_plane;
    }

    pub fn create_key(&self, name: &str) -> CreatedKey {
        let key = self.admin.create_key("acme", name);
        for port in self.envoys {
            eventually("the key is known to every worker", || all_workers(port, &key.secret, "200 -"));
        }
        key
    }

    /// Makes a change; returns its enforcement and its revision.
    pub fn change(&self, method: &str, path: &str, wait_secs: u64) -> (String, u64) {
        let (bearer, prefer) = (format!("Bearer {}", self.token), format!("wait={wait_secs}"));
        let headers = [("authorization", bearer.as_str()), ("prefer", prefer.as_str())];
        let answer = Connection::open(self.control_plane).request(method, path, &headers);
        let header = |name: &str| answer.headers.get(name).cloned().unwrap_or_default();
        (header("latchkey-enforcement"), header("latchkey-revision").parse().expect("a revision"))
    }

    /// Waits until a change is answered as enforced at this many Envoys.
    pub fn wait_enforced_at(&self, edges: usize) {
        let key = self.admin.create_key("acme", "asked whether all have it");
        let expected = format!("enforced=true, edges={edges}, workers={}, disconnected=0", 3 * edges);
        eventually_within(RECONNECTED, "a change is enforced", || {
            let (seen, _) = self.change("POST", &format!("{}/deactivate", key.path()), 2);
            let (again, _) = self.change("POST", &format!("{}/activate", key.path()), 2);
            if seen.starts_with(&expected) && again.starts_with(&expected) { Ok(()) } else { Err(seen) }
        });
    }

    pub fn wait_ready(&self, port: u16) {
        eventually_within(RECONNECTED, "Envoy is ready", || {
            let answer = Connection::try_open(port)?.try_get("/latchkey/ready", &[])?;
            if answer.status == 200 { Ok(()) } else { Err(answer.verdict()) }
        });
    }
}

/// Checks the verdict on connections that are open at the same time, so that each worker has some of them.
pub fn all_workers(port: u16, secret: &str, expected: &str) -> Result<(), String> {
    let mut connections = (0..8).map(|_| Connection::try_open(port)).collect::<Result<Vec<_>, _>>()?;
    for connection in &mut connections {
        let seen = connection.try_get("/v1/reviews", &[("x-api-key", secret)])?.verdict();
        if seen != expected {
            return Err(seen);
        }
    }
    Ok(())
}

/// `scripts/compose` with these arguments, for the stack of this run.
pub fn compose(arguments: &[&str]) -> String {
    run(Command::new(root().join("scripts/compose")).args(arguments))
}

pub fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments))
}

fn run(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().expect("a command that can be run");
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{command:?}: {stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

/// Asserts that `count` containers run, and that none runs as root, can write its file system, or has a secret in its
/// environment.
pub fn assert_hardened(count: usize) {
    let inspect = |container| -> Value { serde_json::from_str(&docker(&["inspect", container])).expect("JSON") };
    let containers = compose(&["ps", "-q"]);
    let all: Vec<(&str, Value)> = containers.lines().map(|container| (container, inspect(container))).collect();
    // The list also has containers that created a secret and exited.
    let running: Vec<_> = all.iter().filter(|(_, inspected)| inspected[0]["State"]["Running"] == true).collect();
    assert_eq!(running.len(), count, "{containers}");
    for (container, inspected) in running {
        let (name, host) = (&inspected[0]["Name"], &inspected[0]["HostConfig"]);
        assert_eq!(host["ReadonlyRootfs"], true, "{name}");
        assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]), "{name}");
        let status = docker(&["exec", container, "cat", "/proc/1/status"]);
        assert!(status.contains("Uid:\t10001\t10001\t10001\t10001"), "{name}: {status}");
        let environment = inspected[0]["Config"]["Env"].to_string();
        let is_secret = environment.contains("lkedge_") || environment.contains("PASSWORD=");
        assert!(!is_secret, "a secret is in the environment: {environment}");
    }
}
