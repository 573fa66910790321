//! The enforcement status: what "enforced" promises, and when no answer may report it.

use std::time::{Duration, Instant};

use end_to_end::{
    Connection, ControlPlane, CreatedKey, Echo, Envoy, EnvoyConfig, Expected, LoadGenerator, WallClock, eventually,
    now, root,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The shortest staleness bound that a configuration may have, in seconds.
const BOUND_SECS: u64 = 10;

/// Envoys with two workers each, at one control plane.
struct Site {
    envoys: Vec<Envoy>,
    control_plane: ControlPlane,
    key: CreatedKey,
    _echo: Echo,
}

/// The answer to a change.
#[derive(Debug)]
struct Answer {
    enforcement: String,
    body: Value,
}

impl Site {
    fn start(envoys: usize) -> Self {
        Self::start_with(envoys, |_| {})
    }

    fn start_with(envoys: usize, change: impl FnOnce(&mut EnvoyConfig)) -> Self {
        Self::start_at(ControlPlane::start(), envoys, change)
    }

    /// With one wall clock for the control plane, and another one for two Envoys.
    fn start_with_clocks(control_plane: &WallClock, edges: &WallClock) -> Self {
        Self::start_at(ControlPlane::start_with_clock(control_plane), 2, |config| {
            config.wall_clock = Some(edges.clone())
        })
    }

    fn start_at(control_plane: ControlPlane, envoys: usize, change: impl FnOnce(&mut EnvoyConfig)) -> Self {
        let echo = Echo::start();
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

    /// Acts on the key and waits until that is enforced, for at most `wait_secs`.
    fn act(&self, action: &str, wait_secs: u64) -> Answer {
        self.change("POST", &format!("{}/{action}", self.key.path()), wait_secs)
    }

    /// Makes a change and waits until it is enforced, for at most `wait_secs`.
    fn change(&self, method: &str, path: &str, wait_secs: u64) -> Answer {
        let token = std::fs::read_to_string(self.control_plane.folder().join("admin-token")).expect("the admin token");
        let bearer = format!("Bearer {}", token.trim());
        let headers = [("authorization", bearer.as_str()), ("prefer", &format!("wait={wait_secs}"))];
        let answer = Connection::open(self.control_plane.port).request(method, path, &headers);
        let enforcement = answer.headers.get("latchkey-enforcement").cloned().unwrap_or_default();
        let body = if answer.status == 204 { Value::Null } else { answer.json() };
        Answer { enforcement, body }
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
}

fn verdict(connection: &mut Connection, secret: &str) -> String {
    connection.get("/v1/reviews", &[("x-api-key", secret)]).verdict()
}

/// 500 changes, with requests from before each change until after its answer.
#[test]
fn what_is_answered_as_enforced_is_enforced_on_every_worker_and_open_connection() {
    let site = Site::start(2);
    site.wait_all_known();
    let admin = site.control_plane.admin();
    let loads: Vec<_> =
        site.envoys.iter().map(|envoy| LoadGenerator::start(envoy.connections(2), envoy.port, &[])).collect();
    let expect = |expected: &[Expected]| loads.iter().for_each(|load| load.expect(expected));
    let enforced = |answer: &Answer| {
        assert!(answer.enforcement.starts_with("enforced=true, edges=2, workers=6, disconnected=0"), "{answer:?}");
    };
    let is = |secret: &str, verdict| Expected { secret: secret.to_owned(), verdict };
    for round in 0..125 {
        let first = admin.create_key("acme", &format!("round {round}"));
        let rotated = site.change("POST", &format!("{}/rotate", first.path()), 10);
        enforced(&rotated);
        let new = rotated.body["secret"].as_str().expect("a new secret").to_owned();
        // The old secret must stay denied during every change. The new one, whose verdict changes, is only used between
        // changes.
        let dead = is(&first.secret, "401 rotated-key");
        for (action, verdict) in [("", "200 -"), ("deactivate", "401 inactive-key"), ("activate", "200 -")] {
            if !action.is_empty() {
                expect(std::slice::from_ref(&dead));
                enforced(&site.change("POST", &format!("{}/{action}", first.path()), 10));
            }
            expect(&[dead.clone(), is(&new, verdict)]);
            loads.iter().for_each(|load| load.wait_for(16));
        }
        expect(&[]);
        enforced(&site.change("DELETE", &first.path(), 10));
        expect(&[is(&first.secret, "401 unknown-key"), is(&new, "401 unknown-key")]);
        loads.iter().for_each(|load| load.wait_for(16));
    }
    for load in loads {
        assert_eq!(load.stop(), Vec::<String>::new());
    }
    site.envoys.iter().for_each(Envoy::assert_no_vm_failed);
}

#[test]
fn without_an_edge_nothing_is_enforced() {
    let site = Site::start(0);
    let answer = site.act("deactivate", 1);
    assert!(answer.enforcement.starts_with("enforced=false, edges=0"), "{answer:?}");
}

/// Revokes while Envoy is stopped: immediately, so that the change is unread in its socket, or after the control plane
/// has answered that nothing is new, so that this answer is unread there.
#[test]
fn a_change_is_not_enforced_on_a_stopped_envoy_until_its_staleness_bound() {
    for stopped_before_secs in [0, BOUND_SECS / 3 + 1] {
        let site = Site::start(2);
        site.wait_all_known();
        let mut open = site.envoys[1].connections(2);
        site.envoys[1].process.signal("STOP");
        let stopped = now();
        eventually("the control plane has answered the stopped Envoy's request", || {
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
            let seen = enforcement();
            // The bound is rounded up to whole seconds.
            match (seen["enforced"].as_bool(), now() < bounded_at - SignedDuration::from_secs(1)) {
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
fn changes_do_not_wait_for_a_retired_envoy_which_denies_until_it_has_another_id() {
    let mut site = Site::start(2);
    site.wait_all_known();
    let leaving =
        Connection::open(site.envoys[1].port).get("/latchkey/ready", &[]).headers["latchkey-instance"].clone();
    let mut open = site.envoys[1].connections(2);
    let bearer = format!("Bearer {}", site.control_plane.edge_token());
    let retired = Connection::open(site.control_plane.port).request(
        "DELETE",
        &format!("/edge/v1/instances/{leaving}"),
        &[("authorization", &bearer)],
    );
    assert_eq!(retired.status, 204);
    let answer = site.act("deactivate", 10);
    assert!(answer.enforcement.starts_with("enforced=true"), "{answer:?}");
    // It may be back already, but never with its old table.
    for connection in &mut open {
        eventually("it has applied the change under another id", || {
            match verdict(connection, &site.key.secret).as_str() {
                "401 inactive-key" => Ok(()),
                "200 -" => panic!("allowed by an Envoy that retired"),
                seen => Err(seen.to_owned()),
            }
        });
    }
    site.envoys[1].wait_ready();
    let back = Connection::open(site.envoys[1].port).get("/latchkey/ready", &[]).headers["latchkey-instance"].clone();
    assert_ne!(back, leaving);
    site.wait_all_known();
}

#[test]
fn a_restarted_control_plane_waits_for_every_instance_that_it_knows() {
    let mut site = Site::start(2);
    site.wait_all_known();
    site.envoys[1].process.signal("STOP");
    site.control_plane.process.signal("TERM");
    site.control_plane.process.wait_for_exit();
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
    let start = now();
    for connection in &mut others {
        let seen = verdict(connection, &site.key.secret);
        assert!(["503 not-ready", "401 inactive-key"].contains(&seen.as_str()), "{seen}");
    }
    hangs.read_head().expect("the answer to the request that made it hang");
    let waited = now().duration_since(start).as_secs();
    assert!(waited < 5, "it hung for {waited} s more");
}

/// Wrong wall clocks could end a bound too early, or never.
#[test]
fn changed_wall_clocks_make_nothing_enforced_too_early() {
    const HOUR: i64 = 3_600;
    for (control_plane_secs, edges_secs) in [(HOUR, -HOUR), (-HOUR, HOUR)] {
        let (control_plane, edges) = (WallClock::accurate(), WallClock::accurate());
        let site = Site::start_with_clocks(&control_plane, &edges);
        site.wait_all_known();
        let mut open = site.envoys[1].connections(2);
        site.envoys[1].process.signal("STOP");
        let stopped = Instant::now();
        control_plane.move_by(control_plane_secs);
        edges.move_by(edges_secs);
        let answer = site.act("deactivate", 1);
        assert!(answer.enforcement.starts_with("enforced=false, edges=2"), "{answer:?}");
        let path = format!("/v1/enforcement?revision={}", answer.body["revision"]);
        let admin = site.control_plane.admin();
        eventually("the stopped Envoy is past its bound", || match admin.get(&path) {
            seen if seen["enforced"] == json!(true) => Ok(()),
            seen => Err(seen.to_string()),
        });
        // Its last request was a third of its bound old, at most.
        let (took, least) = (stopped.elapsed(), Duration::from_secs(BOUND_SECS - BOUND_SECS.div_ceil(3)));
        assert!(took >= least, "enforced after {took:?}, expected {least:?} at least");
        site.envoys[1].process.signal("CONT");
        for connection in &mut open {
            let seen = verdict(connection, &site.key.secret);
            assert!(["503 stale", "503 not-ready", "401 inactive-key"].contains(&seen.as_str()), "{seen}");
        }
        let answer = site.act("activate", 10);
        assert!(answer.enforcement.starts_with("enforced=true, edges=2"), "{answer:?}");
        // A worker has the change before it knows its own freshness.
        for connection in &mut open {
            eventually("it is fresh again", || match verdict(connection, &site.key.secret).as_str() {
                "200 -" => Ok(()),
                seen @ ("503 stale" | "503 not-ready") => Err(seen.to_owned()),
                seen => panic!("{seen}, {control_plane_secs}"),
            });
        }
    }
}

#[test]
fn a_wall_clock_that_is_set_back_revives_no_expired_key() {
    let (control_plane, edges) = (WallClock::accurate(), WallClock::accurate());
    let site = Site::start_with_clocks(&control_plane, &edges);
    site.wait_all_known();
    let expires_at = now() + Duration::from_secs(2);
    let body = json!({"name": "short", "expires_at": expires_at.to_string(), "scopes": {"reviews": "read"}});
    let key = site.control_plane.admin().create_key_with("acme", &body);
    let mut connections: Vec<_> = site.envoys.iter().flat_map(|envoy| envoy.connections(4)).collect();
    let mut all_deny = |when: &str| {
        for connection in &mut connections {
            eventually("the key has expired", || match verdict(connection, &key.secret).as_str() {
                "401 expired-key" => Ok(()),
                seen if when.is_empty() => Err(seen.to_owned()),
                seen => panic!("{seen}, {when}"),
            });
        }
    };
    all_deny("");
    for (clock, when) in
        [(&edges, "with the edges' clock set back"), (&control_plane, "with the control plane's clock set back")]
    {
        clock.move_by(-3_600);
        all_deny(when);
        // These changes bring an answer of the control plane, with its time.
        site.act("deactivate", 10);
        site.act("activate", 10);
        all_deny(when);
        clock.move_by(0);
        site.act("deactivate", 10);
        site.act("activate", 10);
    }
}
