//! "Enforced" as an answer: what it promises, and when it must not be given.

use end_to_end::{Connection, ControlPlane, CreatedKey, Echo, Envoy, EnvoyConfig, eventually, now, root};
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
        Self::start_with(envoys, |_| {})
    }

    fn start_with(envoys: usize, change: impl FnOnce(&mut EnvoyConfig)) -> Self {
        let (control_plane, echo) = (ControlPlane::start(), Echo::start());
        let admin = control_plane.admin();
        admin.create_workspace("acme");
        let key = admin.create_key("acme", "rotated");
        let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
        config.plugin["max_staleness_secs"] = json!(BOUND_SECS);
        change(&mut config);
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
    for round in 0..167 {
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

/// Revoked while Envoy is stopped: at once, so that the change lies unread in its socket, or after the control plane has
/// answered that nothing was new, so that this does.
#[test]
fn a_stopped_envoy_is_named_until_it_denies_by_itself() {
    for stopped_before_secs in [0, BOUND_SECS / 3 + 1] {
        let site = Site::start(2);
        site.wait_all_known();
        let mut open = site.envoys[1].connections(2);
        site.envoys[1].process.signal("STOP");
        let stopped = now();
        eventually("the control plane has answered what the stopped Envoy asked", || {
            let since = now().duration_since(stopped).as_secs();
            if since >= i64::try_from(stopped_before_secs).expect("seconds") {
                Ok(())
            } else {
                Err(format!("{since} s"))
            }
        });
        let answer = site.act("deactivate", 1);
        assert!(answer.enforcement.starts_with("enforced=false, edges=2"), "{answer:?}");
        let bounded_at = answer.enforcement.split("bounded_at=").nth(1).expect("a bound").to_owned();
        let bounded_at: Timestamp = bounded_at.parse().unwrap_or_else(|error| panic!("{bounded_at}: {error}"));
        let revision = answer.body["revision"].as_u64().expect("a revision");
        let admin = site.control_plane.admin();
        let enforcement = || admin.get(&format!("/v1/enforcement?revision={revision}"));
        let first = enforcement();
        assert_eq!(first["enforced"], json!(false), "{first}");
        eventually("the stopped Envoy is past its bound", || {
            let is_early = now() < bounded_at;
            let seen = enforcement();
            match (seen["enforced"].as_bool(), is_early && now() < bounded_at) {
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
        let answer = site.act("activate", 10);
        assert!(answer.enforcement.starts_with("enforced=true, edges=2"), "{answer:?}");
    }
}

#[test]
fn a_restarted_control_plane_waits_for_every_instance_that_it_knows() {
    let mut site = Site::start(2);
    site.wait_all_known();
    site.envoys[1].process.signal("STOP");
    site.control_plane.process.signal("TERM");
    site.control_plane.process.ended();
    site.control_plane.restart();
    let answer = site.act("deactivate", 3);
    assert!(answer.enforcement.starts_with("enforced=false, edges=2"), "{answer:?}");
    site.envoys[1].process.signal("CONT");
    let answer = site.act("activate", 10);
    assert!(answer.enforcement.starts_with("enforced=true, edges=2"), "{answer:?}");
}

#[test]
fn a_worker_that_hangs_for_five_seconds_decides_by_what_was_revoked_meanwhile() {
    let site = Site::start_with(1, |config| config.wasm = root().join("target/faulty_filter.wasm"));
    site.wait_all_known();
    let mut others = site.envoys[0].connections(6);
    let mut hangs = Connection::open(site.envoys[0].port);
    let request = "GET /healthz HTTP/1.1\r\nhost: a\r\nx-fault: hang=5000\r\n\r\n";
    hangs.send(request.as_bytes()).expect("sent");
    let answer = site.act("deactivate", 10);
    assert!(answer.enforcement.starts_with("enforced=true"), "{answer:?}");
    let asked = now();
    for connection in &mut others {
        let seen = verdict(connection, &site.key.secret);
        assert!(["503 not-ready", "401 inactive-key"].contains(&seen.as_str()), "{seen}");
    }
    hangs.read_head().expect("the answer to the request that made it hang");
    let waited = now().duration_since(asked).as_secs();
    assert!(waited < 5, "it hung for {waited} s more");
}
