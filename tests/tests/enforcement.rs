//! "Enforced" as an answer: what it promises, and when it must not be given.

use std::time::Duration;

use end_to_end::{Connection, ControlPlane, CreatedKey, Echo, Envoy, EnvoyConfig, eventually, now};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The shortest staleness bound that a configuration may name, in seconds.
const BOUND_SECS: u64 = 10;

/// Two Envoys with two workers each, at one control plane.
struct Site {
    envoys: Vec<Envoy>,
    control_plane: ControlPlane,
    key: CreatedKey,
    _echo: Echo,
}

/// What a change was answered with.
#[derive(Debug)]
struct Answer {
    status: u16,
    enforcement: String,
    body: Value,
}

impl Site {
    fn start(envoys: usize) -> Self {
        let (control_plane, echo) = (ControlPlane::start(), Echo::start());
        let admin = control_plane.admin();
        admin.create_workspace("acme");
        let key = admin.create_key("acme", "rotated");
        let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
        config.plugin["max_staleness_secs"] = json!(BOUND_SECS);
        let mut envoys: Vec<Envoy> = (0..envoys).map(|_| Envoy::start(&config)).collect();
        envoys.iter_mut().for_each(Envoy::wait_ready);
        Self { envoys, control_plane, key, _echo: echo }
    }

    /// An action on the key that waits until it is enforced, or for so many seconds.
    fn act(&self, action: &str, wait_secs: u64) -> Answer {
        let path = format!("/v1/workspaces/acme/keys/{}/{action}", self.key.id);
        let token = std::fs::read_to_string(self.control_plane.folder().join("admin-token")).expect("the admin token");
        let bearer = format!("Bearer {}", token.trim());
        let headers = [("authorization", bearer.as_str()), ("prefer", &format!("wait={wait_secs}"))];
        let answer = Connection::open(self.control_plane.port).request("POST", &path, &headers);
        let enforcement = answer.headers.get("latchkey-enforcement").cloned().unwrap_or_default();
        Answer { status: answer.status, enforcement, body: answer.json() }
    }

    /// Waits until the answer to a change counts every worker of every Envoy.
    fn wait_all_known(&self) {
        let expected =
            format!("enforced=true, edges={}, workers={}, disconnected=0", self.envoys.len(), 3 * self.envoys.len());
        eventually("every worker is known", || {
            let seen = self.act("deactivate", 1).enforcement;
            self.act("activate", 1);
            if seen.starts_with(&expected) { Ok(()) } else { Err(seen) }
        });
    }

    fn connections(&self) -> Vec<Connection> {
        self.envoys.iter().flat_map(|envoy| envoy.connections(4)).collect()
    }
}

fn verdict(connection: &mut Connection, secret: &str) -> String {
    connection.get("/v1/reviews", &[("x-api-key", secret)]).verdict()
}

#[test]
fn what_is_answered_as_enforced_is_enforced_on_every_worker_and_open_connection() {
    let site = Site::start(2);
    site.wait_all_known();
    let mut connections = site.connections();
    let mut secret = site.key.secret.clone();
    for round in 0..150 {
        let answer = site.act("rotate", 10);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.enforcement.starts_with("enforced=true, edges=2, workers=6, disconnected=0"), "{answer:?}");
        let new = answer.body["secret"].as_str().expect("a new secret").to_owned();
        for connection in &mut connections {
            assert_eq!(verdict(connection, &secret), "401 rotated-key", "round {round}");
            assert_eq!(verdict(connection, &new), "200 -", "round {round}");
        }
        for (action, expected) in [("deactivate", "401 inactive-key"), ("activate", "200 -")] {
            let answer = site.act(action, 10);
            assert!(answer.enforcement.starts_with("enforced=true"), "{answer:?}");
            for connection in &mut connections {
                assert_eq!(verdict(connection, &new), expected, "round {round}");
            }
        }
        secret = new;
    }
    site.envoys.iter().for_each(Envoy::assert_no_vm_broke);
}

#[test]
fn without_an_edge_nothing_is_enforced() {
    let site = Site::start(0);
    let answer = site.act("deactivate", 1);
    assert!(answer.enforcement.starts_with("enforced=false, edges=0"), "{answer:?}");
}

#[test]
fn a_stopped_envoy_is_named_until_it_denies_by_itself() {
    let site = Site::start(2);
    site.wait_all_known();
    let mut open = site.envoys[1].connections(2);
    site.envoys[1].process.signal("STOP");
    let answer = site.act("deactivate", 1);
    assert!(answer.enforcement.starts_with("enforced=false, edges=2"), "{answer:?}");
    let bounded_at = answer.enforcement.split("bounded_at=").nth(1).expect("a bound").to_owned();
    let bounded_at: Timestamp = bounded_at.parse().unwrap_or_else(|error| panic!("{bounded_at}: {error}"));
    let revision = answer.body["revision"].as_u64().expect("a revision");
    let path = format!("/v1/enforcement?revision={revision}");
    let admin = site.control_plane.admin();
    let first = admin.get(&path);
    assert_eq!(first["enforced"], json!(false), "{first}");
    eventually("the stopped Envoy is past its bound", || {
        let seen = admin.get(&path);
        match (seen["enforced"].as_bool(), now() < bounded_at) {
            (Some(true), true) => panic!("too early: {seen}"),
            (Some(true), false) => Ok(()),
            _ => Err(seen.to_string()),
        }
    });
    site.envoys[1].process.signal("CONT");
    for connection in &mut open {
        let seen = verdict(connection, &site.key.secret);
        assert!(["503 stale", "503 not-ready", "401 inactive-key"].contains(&seen.as_str()), "{seen}");
    }
    let (answer, waited) = (site.act("activate", 10), Duration::from_secs(10));
    assert!(answer.enforcement.starts_with("enforced=true, edges=2"), "within {waited:?}: {answer:?}");
}
