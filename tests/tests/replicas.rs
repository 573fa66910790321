//! Failover between two replicas over one PostgreSQL: one of them is killed, cut off, or hangs.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use end_to_end::{
    Connection, ControlPlane, CreatedKey, DatabaseLink, Echo, Expected, LoadGenerator, Process, eventually,
    eventually_within, free_port, latchkey, root, run_envoy,
};
use serde_json::json;

/// How long a change at one control plane may take to reach every worker, once the other one is skipped.
const PROPAGATION_DEADLINE: Duration = Duration::from_secs(5);

/// The pause between two readings of Envoy's revision.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The timeout of a feed request: 20 s that it may wait for changes, and 10 s of grace.
const FEED_TIMEOUT: Duration = Duration::from_secs(30);

/// Held by the running test: each test puts load on an Envoy, and measures how soon something happens.
static SERIAL: Mutex<()> = Mutex::new(());

struct Site {
    envoy: Process,
    port: u16,
    admin_port: u16,
    replicas: [ControlPlane; 2],
    /// The link from the second replica to the database.
    link: DatabaseLink,
    _echo: Echo,
    _folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Site {
    fn start() -> Self {
        let alone = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ControlPlane::start_on_postgres();
        let link = DatabaseLink::to(first.postgres());
        let second = first.start_replica(link.database());
        first.admin().create_workspace("acme");
        let (echo, folder) = (Echo::start(), tempfile::tempdir().expect("a folder"));
        let [port, local_port, admin_port] = std::array::from_fn(|_| free_port());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let flags = [
            format!("--control-plane={}", first.url()),
            format!("--control-plane={}", second.url()),
            "--insecure-http".to_owned(),
            format!("--upstream=127.0.0.1:{}", echo.port),
            format!("--listen=127.0.0.1:{port}"),
            format!("--local=127.0.0.1:{local_port}"),
            format!("--admin=127.0.0.1:{admin_port}"),
            format!("--token-file={}", first.folder().join("edge-token").display()),
            format!("--token-secret={}", file("edge-token.yaml")),
            format!("--wasm={}", root().join("dist/latchkey_filter.wasm").display()),
            "--rate-limit=1000000".to_owned(),
            "--route=/v1/reviews=reviews".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        for (name, more) in [("envoy.yaml", "--print=config"), ("edge-token.yaml", "--print=token-secret")] {
            let (code, output) = latchkey(&[&["envoy-config", more], flags.as_slice()].concat());
            assert_eq!(code, Some(0), "{output}");
            std::fs::write(folder.path().join(name), output).expect("a file");
        }
        let envoy = run_envoy(&folder.path().join("envoy.yaml"));
        let mut site = Self {
            envoy,
            port,
            admin_port,
            replicas: [first, second],
            link,
            _echo: echo,
            _folder: folder,
            _alone: alone,
        };
        eventually("the Envoy has its keys", || {
            site.envoy.assert_runs();
            let answer = Connection::try_open(local_port)?.try_get("/latchkey/ready", &[])?;
            if answer.status == 200 { Ok(()) } else { Err(answer.verdict()) }
        });
        site
    }

    /// New connections; Envoy spreads them over its workers.
    fn connections(&self) -> Vec<Connection> {
        (0..8).map(|_| Connection::open(self.port)).collect()
    }

    /// Creates and revokes a key at one control plane: every worker must know it in time, and then refuse it.
    fn assert_changes_arrive(&self, replica: usize, within: Duration) {
        let (admin, mut connections) = (self.replicas[replica].admin(), self.connections());
        let key = admin.create_key("acme", "lives for a moment");
        wait_verdict(&mut connections, &key, "200 -", within);
        admin.act(&key, "deactivate");
        wait_verdict(&mut connections, &key, "401 inactive-key", within);
        eventually("the change is enforced", || {
            let seen = admin.get("/v1/enforcement?wait=1");
            if seen["enforced"] == json!(true) { Ok(()) } else { Err(seen.to_string()) }
        });
    }

    /// How many of Envoy's requests a replica has answered, without its health checks.
    fn answered_by(&self, replica: usize) -> u64 {
        let clusters = Connection::open(self.admin_port).get("/clusters", &[]).body;
        let name = format!("latchkey::127.0.0.1:{}::rq_success::", self.replicas[replica].port);
        let count = clusters.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        count.unwrap_or_else(|| panic!("no {name} in:\n{clusters}"))
    }

    /// Waits until Envoy's health checks have failed for a replica: from then on it gets no new request.
    fn wait_skipped(&self, replica: usize) {
        let name = format!("latchkey::127.0.0.1:{}::health_flags::", self.replicas[replica].port);
        eventually_within(FEED_TIMEOUT, "the replica that hangs is skipped", || {
            let clusters = Connection::open(self.admin_port).get("/clusters", &[]).body;
            match clusters.lines().find_map(|line| line.strip_prefix(&name)) {
                Some(flags) if flags.contains("/failed_active_hc") => Ok(()),
                flags => Err(format!("{flags:?}")),
            }
        });
    }

    fn wait_used_again(&self, replica: usize) {
        let before = self.answered_by(replica);
        eventually_within(FEED_TIMEOUT * 2, "the replica that came back is used again", || {
            if self.answered_by(replica) > before { Ok(()) } else { Err(format!("{before} answers")) }
        });
    }
}

/// Watches for what must never happen: a wrong verdict, or an older table after a newer one.
struct InvariantMonitor {
    load: LoadGenerator,
    revisions: JoinHandle<Vec<u64>>,
    is_over: Sender<()>,
}

impl InvariantMonitor {
    fn start(site: &Site) -> Self {
        let admin = site.replicas[0].admin();
        let [good, dead] = ["good", "dead"].map(|name| admin.create_key("acme", name));
        admin.act(&dead, "deactivate");
        wait_verdict(&mut site.connections(), &good, "200 -", PROPAGATION_DEADLINE);
        wait_verdict(&mut site.connections(), &dead, "401 inactive-key", PROPAGATION_DEADLINE);
        let expected = [(good, "200 -"), (dead, "401 inactive-key")]
            .map(|(CreatedKey { secret, .. }, verdict)| Expected { secret, verdict });
        let load = LoadGenerator::start((0..4).map(|_| Connection::open(site.port)).collect(), site.port, &expected);
        let ((is_over, ends), admin_port) = (mpsc::channel(), site.admin_port);
        let revisions = std::thread::spawn(move || {
            let (mut seen, mut admin) = (Vec::new(), Connection::open(admin_port));
            // Envoy's main thread answers for statistics, and it may also hold the subscriber.
            while ends.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let stats = admin.get("/stats?filter=latchkey_revision", &[]).body;
                seen.extend(stats.lines().filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok()));
            }
            seen
        });
        Self { load, revisions, is_over }
    }

    fn assert_no_violation(self, site: &Site) {
        let answered = self.load.answered();
        assert_eq!(self.load.stop(), Vec::<String>::new());
        drop(self.is_over);
        let revisions = self.revisions.join().expect("the thread that reads revisions");
        assert!(revisions.len() > 2 && answered > 100, "{} revisions, {answered} requests", revisions.len());
        assert!(revisions.is_sorted(), "an older revision came after a newer one: {revisions:?}");
        let log = site.envoy.log();
        assert!(!log.contains("history has changed"), "{log}");
    }
}

fn wait_verdict(connections: &mut [Connection], key: &CreatedKey, expected: &str, within: Duration) {
    eventually_within(within, "every worker decides so", || {
        let get = |connection: &mut Connection| connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
        let seen: Vec<String> = connections.iter_mut().map(get).collect();
        if seen.iter().all(|seen| seen == expected) { Ok(()) } else { Err(format!("{seen:?} instead of {expected}")) }
    });
}

#[test]
fn a_killed_control_plane_is_skipped_and_used_again_when_it_is_back() {
    let mut site = Site::start();
    let monitor = InvariantMonitor::start(&site);
    for replica in [0, 1] {
        site.replicas[replica].process.kill();
        for _ in 0..3 {
            site.assert_changes_arrive(1 - replica, PROPAGATION_DEADLINE);
        }
        site.replicas[replica].restart();
        site.wait_used_again(replica);
        site.assert_changes_arrive(replica, PROPAGATION_DEADLINE);
        site.assert_changes_arrive(1 - replica, PROPAGATION_DEADLINE);
    }
    monitor.assert_no_violation(&site);
}

#[test]
fn a_control_plane_that_is_cut_off_from_its_database_is_skipped() {
    let site = Site::start();
    let monitor = InvariantMonitor::start(&site);
    site.link.cut();
    // It detects this after three seconds, and then answers the requests that wait.
    site.assert_changes_arrive(0, PROPAGATION_DEADLINE + Duration::from_secs(3));
    for _ in 0..3 {
        site.assert_changes_arrive(0, PROPAGATION_DEADLINE);
    }
    site.link.restore();
    eventually("it reaches its database", || match site.replicas[1].admin().send("GET", "/readyz", None) {
        Some((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    site.wait_used_again(1);
    site.assert_changes_arrive(1, PROPAGATION_DEADLINE);
    monitor.assert_no_violation(&site);
}

#[test]
fn a_control_plane_that_hangs_delays_one_request_and_no_other() {
    let site = Site::start();
    let monitor = InvariantMonitor::start(&site);
    site.replicas[1].process.signal("STOP");
    // A request that went there before may still hang.
    site.wait_skipped(1);
    site.assert_changes_arrive(0, FEED_TIMEOUT + PROPAGATION_DEADLINE);
    for _ in 0..3 {
        site.assert_changes_arrive(0, PROPAGATION_DEADLINE);
    }
    site.replicas[1].process.signal("CONT");
    site.wait_used_again(1);
    site.assert_changes_arrive(1, PROPAGATION_DEADLINE);
    monitor.assert_no_violation(&site);
}
