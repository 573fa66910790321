//! Soak test: under a long load with changes memory stays flat, and no verdict is wrong.
//!
//! Meanwhile a tenant and clients use more than their share. `make soak` runs it, for SOAK_SECONDS.

use std::time::{Duration, Instant};

use end_to_end::{
    Admin, Connection, ControlPlane, CreatedKey, Echo, Envoy, EnvoyConfig, Expected, LoadGenerator, NoisyNeighbour,
    eventually,
};
use serde_json::json;

/// More changes than it takes to use every slot of the filter in Envoy's shared data. After them nothing may grow.
const WARM_UP_CHANGES: u64 = 1_500;

/// How much resident memory may grow after that, and again in the second half: allocators keep some memory of a peak.
const GROWTH: u64 = 16 << 20;

/// How much more the control plane's may grow: SQLite's caches, 16 MB for each of five connections, fill as the
/// database grows.
const CACHES: u64 = 5 * 16_000 * 1_024;

/// How many lines the table has after the first.
const SAMPLES: u32 = 10;

struct Site {
    control_plane: ControlPlane,
    envoys: Vec<Envoy>,
    admin: Admin,
    loads: Vec<LoadGenerator>,
    good: CreatedKey,
    dead: CreatedKey,
    changes: u64,
    wrong: Vec<String>,
    _echo: Echo,
}

/// A line of the table.
struct Sample {
    requests: u64,
    changes: u64,
    control_plane: u64,
    envoys: Vec<u64>,
    database: u64,
}

impl Site {
    fn start() -> Self {
        let (control_plane, echo) = (ControlPlane::start(), Echo::start());
        let admin = control_plane.admin();
        admin.create_workspace("acme");
        let (good, dead) = (admin.create_key("acme", "good"), admin.create_key("acme", "dead"));
        admin.delete(&dead);
        let config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
        let mut envoys: Vec<Envoy> = (0..2).map(|_| Envoy::start(&config)).collect();
        envoys.iter_mut().for_each(Envoy::wait_ready);
        let loads = envoys.iter().map(|envoy| LoadGenerator::start(envoy.connections(2), envoy.port, &[])).collect();
        let site = Self { control_plane, envoys, admin, loads, good, dead, changes: 0, wrong: Vec::new(), _echo: echo };
        let fixed = [(&site.good, "200 -"), (&site.dead, "401 unknown-key")];
        let fixed = fixed.map(|(key, verdict)| Expected { secret: key.secret.clone(), verdict });
        site.loads.iter().for_each(|load| load.expect(&fixed));
        site
    }

    /// A key's whole life, checked on both Envoys after each change is enforced.
    fn run_key_life_cycle(&mut self, connections: &mut [Connection]) {
        let key = self.admin.create_key("acme", "a life");
        self.expect(connections, &key, "200 -");
        let rotated = self.admin.rotate(&key);
        self.expect(connections, &key, "401 rotated-key");
        self.expect(connections, &rotated, "200 -");
        self.admin.act(&rotated, "deactivate");
        self.expect(connections, &rotated, "401 inactive-key");
        self.admin.delete(&rotated);
        self.expect(connections, &rotated, "401 unknown-key");
        self.changes += 4;
    }

    fn expect(&mut self, connections: &mut [Connection], key: &CreatedKey, expected: &str) {
        eventually("the change is enforced", || {
            let seen = self.admin.get("/v1/enforcement");
            if seen["enforced"] == json!(true) { Ok(()) } else { Err(seen.to_string()) }
        });
        for connection in connections {
            let seen = connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
            if seen != expected {
                self.wrong.push(format!("{seen} instead of {expected}"));
            }
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            requests: self.loads.iter().map(LoadGenerator::answered).sum(),
            changes: self.changes,
            control_plane: self.control_plane.process.resident_bytes(),
            envoys: self.envoys.iter().map(|envoy| envoy.process.resident_bytes()).collect(),
            database: self.control_plane.database_bytes(),
        }
    }
}

fn print(elapsed: Duration, sample: &Sample) {
    let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let envoys: Vec<String> = sample.envoys.iter().map(|bytes| mb(*bytes)).collect();
    println!(
        "| {} | {} | {} | {} | {} | {} |",
        elapsed.as_secs(),
        sample.requests,
        sample.changes,
        mb(sample.control_plane),
        envoys.join(" and "),
        mb(sample.database)
    );
}

#[test]
#[ignore = "long: run `make soak`"]
fn memory_stays_flat_and_no_verdict_is_wrong() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(3_600, |seconds| seconds.parse().expect("SOAK_SECONDS"));
    let length = Duration::from_secs(seconds);
    let mut site = Site::start();
    let mut connections: Vec<Connection> = site.envoys.iter().flat_map(|envoy| envoy.connections(2)).collect();
    println!("| seconds | requests | changes | control plane, MB | Envoys, MB | database, MB |");
    println!("|---|---|---|---|---|---|");
    // Renaming a key back and forth fills the slots fastest.
    while site.changes < WARM_UP_CHANGES {
        let (status, answer) = site
            .admin
            .send("PATCH", &site.good.path(), Some(&json!({"name": format!("good {}", site.changes)})))
            .expect("an answer");
        assert_eq!(status, 200, "{answer}");
        site.changes += 1;
    }
    let neighbour = NoisyNeighbour::start(&site.control_plane);
    for _ in 0..20 {
        site.run_key_life_cycle(&mut connections);
    }
    let (start, first) = (Instant::now(), site.sample());
    print(start.elapsed(), &first);
    let (mut next, mut half) = (length / SAMPLES, None);
    while start.elapsed() < length {
        site.run_key_life_cycle(&mut connections);
        if start.elapsed() >= next {
            let sample = site.sample();
            print(start.elapsed(), &sample);
            next += length / SAMPLES;
            if start.elapsed() >= length / 2 {
                half.get_or_insert(sample);
            }
        }
    }
    let (half, last) = (half.expect("a sample of the second half"), site.sample());
    for load in std::mem::take(&mut site.loads) {
        site.wrong.extend(load.stop());
    }
    let rounds = neighbour.stop();
    assert_eq!(site.wrong, Vec::<String>::new());
    site.envoys.iter().for_each(Envoy::assert_no_vm_failed);
    println!("no verdict was wrong; {rounds} large imports were made and deleted");
    let assert_flat = |name: &str, first: u64, last: u64, most: u64| {
        assert!(last <= first + most, "{name} grew from {first} to {last} bytes, expected {most} more at most");
    };
    assert_flat("the control plane", first.control_plane, last.control_plane, GROWTH + CACHES);
    assert_flat("the control plane, in the second half", half.control_plane, last.control_plane, GROWTH);
    for (first, last) in first.envoys.iter().zip(&last.envoys) {
        assert_flat("an Envoy", *first, *last, GROWTH);
    }
}
