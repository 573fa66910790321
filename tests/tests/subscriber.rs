//! One subscriber for all workers of an Envoy: what happens when it traps, hangs or gets a new configuration.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use end_to_end::{
    Admin, Connection, ControlPlane, CreatedKey, Discovery, Echo, Envoy, EnvoyConfig, Expected, LoadGenerator,
    eventually, eventually_within, root,
};
use serde_json::{Value, json};

/// How soon every worker must have the newest revision again, whatever happened to the leader.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(3);

/// Two Envoys with two workers each, whose filter obeys the header `x-fault`.
struct EnvoyPair {
    envoys: Vec<Envoy>,
    config: EnvoyConfig,
    control_plane: ControlPlane,
    admin: Admin,
    /// Stays valid.
    good: CreatedKey,
    /// Is deleted.
    dead: CreatedKey,
    _echo: Echo,
}

impl EnvoyPair {
    fn start(plugin: &Value) -> Self {
        Self::start_as(plugin, Envoy::start)
    }

    fn start_as(plugin: &Value, start: impl Fn(&EnvoyConfig) -> Envoy) -> Self {
        let (control_plane, echo) = (ControlPlane::start(), Echo::start());
        let admin = control_plane.admin();
        admin.create_workspace("acme");
        let (good, dead) = (admin.create_key("acme", "good"), admin.create_key("acme", "dead"));
        admin.delete(&dead);
        let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
        config.wasm = faulty_filter();
        for (name, value) in plugin.as_object().expect("fields of the plugin's configuration") {
            config.plugin[name] = value.clone();
        }
        let mut envoys: Vec<Envoy> = (0..2).map(|_| start(&config)).collect();
        envoys.iter_mut().for_each(Envoy::wait_ready);
        Self { envoys, config, control_plane, admin, good, dead, _echo: echo }
    }

    fn start_loads(&self) -> Vec<LoadGenerator> {
        let expected = [
            Expected { secret: self.good.secret.clone(), verdict: "200 -" },
            Expected { secret: self.dead.secret.clone(), verdict: "401 unknown-key" },
        ];
        let load = |envoy: &Envoy| LoadGenerator::start(envoy.connections(4), envoy.port, &expected);
        self.envoys.iter().map(load).collect()
    }

    /// Causes a fault in the leader of `envoy`.
    fn fault_leader(&self, envoy: usize, fault: &str) {
        let fault = format!("leader-{fault}");
        Connection::open(self.envoys[envoy].port).get("/healthz", &[("x-fault", &fault)]);
    }

    /// A new key reaches every worker in time, counted from its creation.
    fn assert_newest_reaches_all(&self) {
        self.assert_newest_reaches(&mut self.connections());
    }

    /// As [`Self::assert_newest_reaches_all`], on connections that were opened before.
    fn assert_newest_reaches(&self, connections: &mut [Connection]) {
        wait_verdict(connections, &self.admin.create_key("acme", "newest"), "200 -");
    }

    /// Connections to every worker of both.
    fn connections(&self) -> Vec<Connection> {
        self.envoys.iter().flat_map(|envoy| envoy.connections(4)).collect()
    }

    fn stop_control_plane(&mut self) {
        self.control_plane.process.signal("TERM");
        self.control_plane.process.wait_for_exit();
    }

    /// How often a VM of this Envoy trapped.
    fn traps(&self, envoy: usize) -> usize {
        self.envoys[envoy].process.log().matches("the fault that a test asked for").count()
    }
}

/// Waits until the VM of Envoy's main thread leads: the probes have reached all others, and a VM with requests hands
/// the lead over. Envoy's log names the thread of each line.
fn wait_main_leads(envoy: &Envoy) {
    let main = format!("[{}]", envoy.process.pid());
    eventually("the main thread's VM leads", || {
        let log = envoy.process.log();
        match log.lines().rfind(|line| line.contains("subscribes to the control plane for all workers")) {
            Some(line) if line.contains(&main) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// A build of the filter that traps or hangs on request; `make test` builds it.
fn faulty_filter() -> PathBuf {
    let path = root().join("target/faulty_filter.wasm");
    assert!(path.exists(), "target/faulty_filter.wasm is missing: run `make test`");
    path
}

fn no_fields() -> Value {
    json!({})
}

/// Waits at most [`RECOVERY_DEADLINE`] until every connection gets this verdict with the key.
fn wait_verdict(connections: &mut [Connection], key: &CreatedKey, expected: &str) {
    eventually_within(RECOVERY_DEADLINE, "every worker decides so", || {
        let get = |connection: &mut Connection| connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
        let seen: Vec<String> = connections.iter_mut().map(get).collect();
        if seen.iter().all(|seen| seen == expected) { Ok(()) } else { Err(format!("{seen:?} instead of {expected}")) }
    });
}

/// Asserts that only requests in flight on a trapped VM failed: with Envoy's own 503, at most one for each connection.
fn assert_only_in_flight(wrong: &[String], most: usize) {
    let in_flight = wrong.iter().filter(|wrong| wrong.starts_with("503 - ")).count();
    assert_eq!(in_flight, wrong.len(), "{wrong:?}");
    assert!(in_flight <= most, "{in_flight} requests of {most} that can have been in flight: {wrong:?}");
}

#[test]
fn a_leader_that_traps_is_replaced_and_no_verdict_is_wrong() {
    let pair = EnvoyPair::start(&no_fields());
    wait_main_leads(&pair.envoys[0]);
    let loads = pair.start_loads();
    // First the main thread's VM, which Envoy never restarts; then a worker's.
    for traps in 1..=2 {
        pair.fault_leader(0, "trap");
        eventually("the leader traps", || {
            let seen = pair.traps(0);
            if seen >= traps { Ok(()) } else { Err(format!("{seen} traps")) }
        });
        pair.assert_newest_reaches_all();
    }
    let wrong: Vec<String> = loads.into_iter().flat_map(LoadGenerator::stop).collect();
    assert_only_in_flight(&wrong, 4);
    assert_eq!(pair.traps(1), 0, "the other Envoy is not affected");
}

#[test]
fn a_leader_that_hangs_for_ten_seconds_comes_back_as_a_follower() {
    let pair = EnvoyPair::start(&no_fields());
    wait_main_leads(&pair.envoys[0]);
    let (loads, mut connections) = (pair.start_loads(), pair.connections());
    pair.fault_leader(0, "hang=10000");
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(9) {
        pair.assert_newest_reaches(&mut connections);
        rounds += 1;
    }
    assert!(rounds > 1, "only {rounds} keys reached every worker while the old leader hung");
    // It is back when Envoy's main thread answers again.
    pair.envoys[0].stats();
    assert!(start.elapsed() > Duration::from_secs(9), "the leader hung for {:?} only", start.elapsed());
    for _ in 0..3 {
        pair.assert_newest_reaches_all();
    }
    let wrong: Vec<String> = loads.into_iter().flat_map(LoadGenerator::stop).collect();
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(pair.traps(0), 0);
}

#[test]
fn twenty_new_configs_under_load_lose_neither_table_nor_verdict() {
    for discovery in [Discovery::Listener, Discovery::Filter] {
        let mut pair = EnvoyPair::start_as(&no_fields(), |config| Envoy::start_with_discovery(config, discovery));
        let victim = pair.admin.create_key("acme", "victim");
        let mut open = pair.connections();
        let loads = pair.start_loads();
        for number in 0..20 {
            pair.config.plugin["ready_path"] = json!(format!("/latchkey/ready/{number}"));
            pair.envoys.iter().for_each(|envoy| envoy.replace(&pair.config));
        }
        let path = "/latchkey/ready/19";
        for envoy in &pair.envoys {
            eventually("the last config serves", || {
                let seen = Connection::open(envoy.port).get(path, &[]).status;
                if seen == 200 { Ok(()) } else { Err(seen.to_string()) }
            });
        }
        pair.admin.delete(&victim);
        // On connections to old configs too.
        wait_verdict(&mut open, &victim, "401 unknown-key");
        pair.assert_newest_reaches_all();
        assert!(loads.iter().all(|load| load.answered() > 100), "the load never stopped");
        let wrong: Vec<String> = loads.into_iter().flat_map(LoadGenerator::stop).collect();
        assert_eq!(wrong, Vec::<String>::new(), "{discovery:?}");
        pair.envoys.iter().for_each(Envoy::assert_no_vm_failed);
    }
}

#[test]
fn a_worker_that_traps_while_the_control_plane_is_down_has_its_table_immediately() {
    let mut pair = EnvoyPair::start(&no_fields());
    pair.control_plane.process.kill();
    let mut connections = pair.envoys[0].connections(8);
    for connection in &mut connections {
        // Traps the connection's worker. That ends the requests of its VM, not its other connections.
        let _ = connection.try_get("/healthz", &[("x-fault", "trap")]);
        let mut again = Connection::open(pair.envoys[0].port);
        for (key, expected) in [(&pair.good, "200 -"), (&pair.dead, "401 unknown-key")] {
            eventually("the new VM decides, or Envoy has not created it yet", || {
                let seen = again.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
                match seen.as_str() {
                    // Envoy creates a new VM at most once a second.
                    "503 -" => Err(seen),
                    seen if seen == expected => Ok(()),
                    other => panic!("{other} instead of {expected}"),
                }
            });
        }
    }
    assert!(pair.traps(0) > 0, "no VM trapped");
}

#[test]
fn an_older_copy_of_the_database_is_followed_and_logged() {
    let mut pair = EnvoyPair::start(&no_fields());
    let key = pair.admin.create_key("acme", "revoked-later");
    let mut connections = pair.connections();
    pair.stop_control_plane();
    pair.control_plane.save_copy();
    pair.control_plane.restart();
    let loads = pair.start_loads();
    wait_verdict(&mut connections, &key, "200 -");
    pair.admin.delete(&key);
    wait_verdict(&mut connections, &key, "401 unknown-key");
    pair.stop_control_plane();
    pair.control_plane.restore_copy();
    pair.control_plane.restart();
    pair.assert_newest_reaches(&mut connections);
    // The database in use decides.
    wait_verdict(&mut connections, &key, "200 -");
    for envoy in &pair.envoys {
        assert!(envoy.process.log().contains("history has changed"), "{}", envoy.process.log());
        eventually("the metric counts it", || match envoy.stat_ending("latchkey_history_changes_total") {
            1 => Ok(()),
            other => Err(format!("{other}")),
        });
        envoy.assert_no_vm_failed();
    }
    let log = pair.control_plane.process.log();
    assert!(log.contains("the database went back"), "the control plane logs it, too: {log}");
    let wrong: Vec<String> = loads.into_iter().flat_map(LoadGenerator::stop).collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn an_envoy_that_was_cut_off_catches_up_by_delta_or_by_snapshot() {
    let (mut control_plane, echo) = (ControlPlane::start_with("log_revisions = 1000"), Echo::start());
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
    let mut envoy = Envoy::start(&config);
    envoy.wait_ready();
    let mut connections = envoy.connections(4);
    for (changes, snapshots) in [(20, 0), (1_200, 1)] {
        envoy.process.signal("STOP");
        let key = admin.create_key("acme", "while-away");
        let rename = |number: u32| {
            let path = format!("/v1/workspaces/acme/keys/{}", key.id);
            let (status, answer) =
                admin.send("PATCH", &path, Some(&json!({"name": number.to_string()}))).expect("an answer");
            assert_eq!(status, 200, "{answer}");
        };
        (0..changes).for_each(rename);
        // A snapshot in memory that an edge may be loading holds the log; a restart releases it, and compacts.
        control_plane.process.signal("TERM");
        control_plane.process.wait_for_exit();
        control_plane.restart();
        (0..20).for_each(rename);
        envoy.process.signal("CONT");
        eventually_within(Duration::from_secs(10), "every worker has caught up", || {
            let get =
                |connection: &mut Connection| connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
            let seen: Vec<String> = connections.iter_mut().map(get).collect();
            if seen.iter().all(|seen| seen == "200 -") { Ok(()) } else { Err(format!("{seen:?}")) }
        });
        let log = control_plane.process.log();
        assert_eq!(log.matches("made a snapshot").count(), snapshots, "after {changes} changes: {log}");
    }
    envoy.assert_no_vm_failed();
}

#[test]
fn workers_that_each_subscribe_keep_the_same_promises() {
    for (fields, vm_id) in [(json!({"feed": "worker"}), "latchkey"), (no_fields(), "\"\"")] {
        let pair = EnvoyPair::start_as(&fields, |config| {
            let mut config = config.clone();
            config.replace("vm_id: latchkey", &format!("vm_id: {vm_id}"));
            Envoy::start(&config)
        });
        let loads = pair.start_loads();
        for _ in 0..3 {
            pair.assert_newest_reaches_all();
        }
        let victim = pair.admin.create_key("acme", "victim");
        let mut open = pair.connections();
        pair.admin.delete(&victim);
        wait_verdict(&mut open, &victim, "401 unknown-key");
        let wrong: Vec<String> = loads.into_iter().flat_map(LoadGenerator::stop).collect();
        assert_eq!(wrong, Vec::<String>::new(), "{fields} {vm_id}");
        let log = pair.envoys[0].process.log();
        assert_eq!(log.contains("the VM id is empty"), vm_id != "latchkey", "{log}");
        pair.envoys.iter().for_each(Envoy::assert_no_vm_failed);
    }
}
