//! A real Envoy with the filter, by the config that the demo runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::connection::{Connection, Response};
use crate::process::{Process, built, free_port, root};
use crate::wait::eventually;

/// What differs from one Envoy to the next.
#[derive(Clone)]
pub struct EnvoyConfig {
    pub control_plane_port: u16,
    pub upstream_port: u16,
    pub edge_token: String,
    /// The plugin configuration.
    pub plugin: Value,
    pub workers: u32,
    /// The filter's module; `dist/latchkey_filter.wasm` unless a test has its own.
    pub wasm: PathBuf,
    /// Replacements in the text of envoy/demo.yaml; each must be found there.
    pub replacements: Vec<(String, String)>,
}

impl EnvoyConfig {
    pub fn new(control_plane_port: u16, upstream_port: u16, edge_token: &str) -> Self {
        Self {
            control_plane_port,
            upstream_port,
            edge_token: edge_token.to_owned(),
            plugin: json!({
                "edge": "test",
                "control_plane": {
                    "cluster": "latchkey",
                    "authority": "latchkey",
                    "token_env": "LATCHKEY_EDGE_TOKEN",
                },
            }),
            workers: 2,
            wasm: built("dist/latchkey_filter.wasm"),
            replacements: Vec::new(),
        }
    }

    /// Changes the text of envoy/demo.yaml, which must have `from` in it.
    pub fn replace(&mut self, from: &str, to: &str) {
        self.replacements.push((from.to_owned(), to.to_owned()));
    }
}

/// An Envoy that runs. Its listener may not be there yet: see [`Self::wait_ready`].
pub struct Envoy {
    pub process: Process,
    pub port: u16,
    pub admin_port: u16,
    workers: u32,
    _folder: TempDir,
}

impl Envoy {
    pub fn start(config: &EnvoyConfig) -> Self {
        let (port, admin_port) = (free_port(), free_port());
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("envoy.yaml");
        std::fs::write(&file, render(config, port, admin_port)).expect("the config");
        let mut command = Command::new(built(".tools/bin/envoy"));
        command
            .arg("--config-path")
            .arg(&file)
            .args(["--concurrency", &config.workers.to_string()])
            .args(["--disable-hot-restart", "--log-level", "info", "--file-flush-interval-msec", "50"])
            .env("LATCHKEY_EDGE_TOKEN", &config.edge_token);
        let process = Process::start("Envoy", &mut command, &folder.path().join("envoy.log"));
        Self { process, port, admin_port, workers: config.workers, _folder: folder }
    }

    /// Waits until requests are accepted, whatever they are answered.
    pub fn wait_listening(&mut self) {
        let Self { process, port, .. } = self;
        eventually("Envoy's listener answers", || {
            process.assert_runs();
            Connection::try_open(*port).and_then(|mut connection| connection.try_get("/latchkey/ready", &[])).map(drop)
        });
        // The first worker to listen gets all connections until the others do.
        eventually("every worker listens", || match self.stat_ending("listener_manager.workers_started") {
            1 => Ok(()),
            other => Err(format!("workers_started is {other}")),
        });
    }

    /// Waits until every worker says that it has its keys.
    pub fn wait_ready(&mut self) {
        self.wait_listening();
        for mut connection in self.connections(8) {
            eventually("every worker is ready", || {
                let Response { status, .. } = connection.try_get("/latchkey/ready", &[])?;
                if status == 200 { Ok(()) } else { Err(format!("status {status}")) }
            });
        }
    }

    /// New connections: as many as asked for or, where Envoy gave one worker too few of them, some more.
    pub fn connections(&self, count: usize) -> Vec<Connection> {
        let before = self.accepted();
        let share = (count / before.len() / 2).max(1);
        let mut connections: Vec<Connection> = (0..count).map(|_| Connection::open(self.port)).collect();
        eventually("every worker has its share of the new connections", || {
            let now = self.accepted();
            let new: Vec<usize> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
            if new.iter().all(|new| *new >= share) {
                return Ok(());
            }
            if new.iter().sum::<usize>() >= connections.len() {
                connections.push(Connection::open(self.port));
            }
            Err(format!("accepted by each worker: {new:?}, expected {share} at least"))
        });
        connections
    }

    /// How many connections each worker has accepted since Envoy's start.
    fn accepted(&self) -> Vec<usize> {
        let stat = |worker| self.stat_ending(&format!(".worker_{worker}.downstream_cx_total"));
        (0..self.workers).map(|worker| usize::try_from(stat(worker)).expect("a count")).collect()
    }

    /// All statistics, as text.
    pub fn stats(&self) -> String {
        Connection::open(self.admin_port).get("/stats", &[]).body
    }

    /// The sum of the statistics whose names end so; at least one must be there.
    pub fn stat_ending(&self, name: &str) -> u64 {
        let stats = self.stats();
        let values: Vec<u64> = stats
            .lines()
            .filter_map(|line| line.rsplit_once(": "))
            .filter(|(own, _)| own.ends_with(name))
            .filter_map(|(_, value)| value.parse().ok())
            .collect();
        assert!(!values.is_empty(), "no statistic ends with {name}:\n{stats}");
        values.iter().sum()
    }

    /// Fails when a VM broke since Envoy's start.
    pub fn assert_no_vm_broke(&self) {
        for name in ["vm_reload", "vm_reload_backoff", "vm_reload_success", "vm_reload_failure"] {
            assert_eq!(self.stat_ending(&format!("wasm.latchkey.{name}")), 0, "{name}");
        }
        let log = self.process.log();
        assert!(!log.contains("Proxy-Wasm plugin in-VM"), "a VM trapped:\n{log}");
        assert!(
            !log.contains("Attempted call to restricted"),
            "envoy/demo.yaml withholds what the filter needs:\n{log}"
        );
    }
}

/// The demo's config with the values of a test.
fn render(config: &EnvoyConfig, port: u16, admin_port: u16) -> String {
    let mut text = std::fs::read_to_string(root().join("envoy/demo.yaml")).expect("envoy/demo.yaml");
    for (from, to) in &config.replacements {
        assert!(text.contains(from.as_str()), "envoy/demo.yaml no longer has {from:?}");
        text = text.replace(from.as_str(), to);
    }
    for (name, value) in [
        ("LISTENER_PORT", port.to_string()),
        ("ADMIN_PORT", admin_port.to_string()),
        ("CONTROL_PLANE_PORT", config.control_plane_port.to_string()),
        ("UPSTREAM_PORT", config.upstream_port.to_string()),
        ("WASM", path(&config.wasm)),
        ("LATCHKEY", config.plugin.to_string()),
    ] {
        text = text.replace(&format!("${{{name}}}"), &value);
    }
    text
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}
