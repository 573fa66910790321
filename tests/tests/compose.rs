//! The stack of compose.yaml under load, while its parts are cut off, killed, replaced and restarted.
//!
//! scripts/test-compose starts the stack and runs these; they say nothing where no Docker engine runs.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use end_to_end::{Admin, Connection, CreatedKey, eventually, eventually_within, paste, root};
use serde_json::Value;

/// An Envoy that was cut off asks again at the latest when its last request has timed out.
const RECONNECTED: Duration = Duration::from_secs(90);

/// Between two requests of one client: each key has a rate limit.
const PAUSE: Duration = Duration::from_millis(5);

const UNKNOWN: &str = "lk_live_000000000000000000000000000000004cjNQE";

/// The stack that scripts/test-compose started.
struct Stack {
    admin: Admin,
    token: String,
    control_plane: u16,
    envoys: [u16; 2],
    _alone: MutexGuard<'static, ()>,
}

impl Stack {
    fn of_this_run() -> Self {
        static ONE_STACK: Mutex<()> = Mutex::new(());
        let alone = ONE_STACK.lock().unwrap_or_else(PoisonError::into_inner);
        let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("no {name}: run scripts/test-compose"));
        let base: u16 = variable("DEMO_PORT_BASE").parse().expect("a port");
        let file = root().join(".compose").join(variable("COMPOSE_PROJECT_NAME")).join("admin-token");
        let token = std::fs::read_to_string(file).expect("the admin token").trim().to_owned();
        let admin = Admin::new(&format!("http://127.0.0.1:{base}"), &token);
        Self { admin, token, control_plane: base, envoys: [base + 1, base + 2], _alone: alone }
    }

    fn key(&self, name: &str) -> CreatedKey {
        let key = self.admin.create_key("acme", name);
        for port in self.envoys {
            eventually("the key is known to every worker", || all_workers(port, &key.secret, "200 -"));
        }
        key
    }

    /// A change, and what was answered of its enforcement.
    fn change(&self, method: &str, path: &str, wait_secs: u64) -> (String, u64) {
        let (bearer, prefer) = (format!("Bearer {}", self.token), format!("wait={wait_secs}"));
        let headers = [("authorization", bearer.as_str()), ("prefer", prefer.as_str())];
        let answer = Connection::open(self.control_plane).request(method, path, &headers);
        let header = |name: &str| answer.headers.get(name).cloned().unwrap_or_default();
        (header("latchkey-enforcement"), header("latchkey-revision").parse().expect("a revision"))
    }

    /// Waits until a change is answered as enforced at so many Envoys.
    fn wait_enforced_at(&self, edges: usize) {
        let key = self.admin.create_key("acme", "asked whether all have it");
        let expected = format!("enforced=true, edges={edges}, workers={}, disconnected=0", 3 * edges);
        eventually_within(RECONNECTED, "a change is enforced", || {
            let (seen, _) = self.change("POST", &format!("{}/deactivate", key.path()), 2);
            let (again, _) = self.change("POST", &format!("{}/activate", key.path()), 2);
            if seen.starts_with(&expected) && again.starts_with(&expected) { Ok(()) } else { Err(seen) }
        });
    }

    fn wait_ready(&self, port: u16) {
        eventually_within(RECONNECTED, "Envoy is ready", || {
            let answer = Connection::try_open(port)?.try_get("/latchkey/ready", &[])?;
            if answer.status == 200 { Ok(()) } else { Err(answer.verdict()) }
        });
    }
}

/// Asks on connections that are open together, so that each worker has some of them.
fn all_workers(port: u16, secret: &str, expected: &str) -> Result<(), String> {
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
fn compose(arguments: &[&str]) -> String {
    run(Command::new(root().join("scripts/compose")).args(arguments))
}

fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments))
}

fn run(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().expect("a command that can be run");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{command:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Clients of both Envoys, as a load balancer would send them: one that doesn't answer, or answers 503, is passed over.
struct Load {
    clients: Vec<JoinHandle<Vec<String>>>,
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Load {
    /// Three clients, each with a key of its own that must be let in, and with one that must not.
    fn start(stack: &Stack) -> Self {
        let dead = stack.key("dead");
        stack.wait_enforced_at(2);
        let (enforcement, _) = stack.change("POST", &format!("{}/deactivate", dead.path()), 30);
        assert!(enforcement.starts_with("enforced=true, edges=2"), "{enforcement}");
        let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: usize| {
            let own = stack.key(&format!("client {number}")).secret;
            let asked =
                [(own, "200 -"), (dead.secret.clone(), "401 inactive-key"), (UNKNOWN.to_owned(), "401 unknown-key")];
            let (envoys, ends, answered) = (stack.envoys, Arc::clone(&ends), Arc::clone(&answered));
            std::thread::spawn(move || {
                let (mut wrong, mut connections) = (Vec::new(), [None, None]);
                let (_never, pace) = channel::<()>();
                for turn in number.. {
                    let (secret, expected) = &asked[turn % asked.len()];
                    let seen = balanced(&mut connections, envoys, turn % 2, secret);
                    if seen != *expected {
                        wrong.push(format!("{seen} instead of {expected}"));
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    if ends.load(Ordering::Relaxed) || pace.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
                        break;
                    }
                }
                wrong
            })
        };
        let clients = (0..3).map(client).collect();
        Self { clients, ends, answered }
    }

    fn wait_for(&self, more: u64) {
        let until = self.answered.load(Ordering::Relaxed) + more;
        eventually("requests are answered", || match self.answered.load(Ordering::Relaxed) {
            answered if answered >= until => Ok(()),
            answered => Err(format!("{} to go", until - answered)),
        });
    }

    fn assert_all_right(self) {
        self.ends.store(true, Ordering::Relaxed);
        let wrong: Vec<String> = self.clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        assert!(wrong.is_empty(), "{} wrong verdicts: {:?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    }
}

/// The verdict of the first Envoy that gives one.
fn balanced(connections: &mut [Option<Connection>; 2], ports: [u16; 2], first: usize, secret: &str) -> String {
    let mut why = Vec::new();
    for at in [first, 1 - first] {
        let connection = connections[at].take().map_or_else(|| Connection::try_open(ports[at]), Ok);
        let answer = connection.and_then(|mut connection| {
            let answer = connection.try_get("/v1/reviews", &[("x-api-key", secret)])?;
            Ok((connection, answer))
        });
        match answer {
            Ok((connection, answer)) => {
                if answer.headers.get("connection").is_none_or(|value| value != "close") {
                    connections[at] = Some(connection);
                }
                if answer.status != 503 {
                    return answer.verdict();
                }
                why.push(answer.verdict());
            }
            Err(error) => why.push(error),
        }
    }
    why.join("; ")
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn the_printed_lines_work_as_printed() {
    let _stack = Stack::of_this_run();
    let file = std::env::var("LATCHKEY_COMPOSE_PRINTED").expect("what `scripts/compose up` printed");
    let printed = std::fs::read_to_string(file).expect("what was printed");
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let expected = ["200", "401 missing-key", "401 unknown-key", "403 missing-scope", "200"];
    assert_eq!(lines.len(), expected.len(), "{printed}");
    for (line, expected) in lines.iter().zip(expected) {
        let (verdict, answer) = paste(line);
        assert_eq!(verdict, expected, "{line}\n{answer}");
    }
    eventually_within(Duration::from_secs(1), "the revoked key is refused", || match paste(lines[0]) {
        (verdict, _) if verdict == "401 inactive-key" => Ok(()),
        (_, answer) => Err(answer),
    });
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn no_container_runs_as_root_or_can_write_its_file_system() {
    let _stack = Stack::of_this_run();
    let containers = compose(&["ps", "-q"]);
    assert_eq!(containers.lines().count(), 4, "{containers}");
    for container in containers.lines() {
        let inspected: Value = serde_json::from_str(&docker(&["inspect", container])).expect("JSON");
        let (name, host) = (&inspected[0]["Name"], &inspected[0]["HostConfig"]);
        assert_eq!(host["ReadonlyRootfs"], true, "{name}");
        assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]), "{name}");
        let status = docker(&["exec", container, "cat", "/proc/1/status"]);
        assert!(status.contains("Uid:\t10001\t10001\t10001\t10001"), "{name}: {status}");
        let environment = &inspected[0]["Config"]["Env"];
        assert!(!environment.to_string().contains("lkedge_"), "a token stands in the environment: {environment}");
    }
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn an_envoy_that_is_cut_off_is_reported_and_catches_up() {
    let stack = Stack::of_this_run();
    let load = Load::start(&stack);
    let revoked = stack.key("revoked meanwhile");
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
    load.assert_all_right();
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn a_control_plane_that_was_killed_and_replaced_has_every_key_and_its_envoys() {
    let stack = Stack::of_this_run();
    let load = Load::start(&stack);
    let before = stack.key("made before");
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
    load.assert_all_right();
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn an_envoy_that_is_replaced_leaves_nothing_that_changes_wait_for() {
    let stack = Stack::of_this_run();
    let load = Load::start(&stack);
    let key = stack.key("asked at the new Envoy");
    compose(&["stop", "-t", "20", "envoy-2"]);
    let (enforcement, _) = stack.change("POST", &format!("{}/deactivate", key.path()), 10);
    assert!(enforcement.starts_with("enforced=true, edges=1, workers=3, disconnected=0"), "{enforcement}");
    compose(&["rm", "-f", "envoy-2"]);
    compose(&["up", "-d", "--no-deps", "--no-build", "envoy-2"]);
    stack.wait_ready(stack.envoys[1]);
    assert_eq!(all_workers(stack.envoys[1], &key.secret, "401 inactive-key"), Ok(()));
    stack.wait_enforced_at(2);
    load.assert_all_right();
}

#[test]
#[ignore = "needs a Docker engine: scripts/test-compose"]
fn a_rolling_restart_of_everything_gives_no_wrong_verdict() {
    let stack = Stack::of_this_run();
    let load = Load::start(&stack);
    for (service, port) in [("envoy-1", stack.envoys[0]), ("envoy-2", stack.envoys[1])] {
        compose(&["restart", "-t", "20", service]);
        stack.wait_ready(port);
        stack.wait_enforced_at(2);
    }
    compose(&["restart", "-t", "20", "control-plane"]);
    stack.wait_enforced_at(2);
    load.wait_for(500);
    load.assert_all_right();
}
