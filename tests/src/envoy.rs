//! A real Envoy with the filter and the demo's config.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::connection::{Connection, Response};
use crate::process::{Process, built, free_port, root};
use crate::wait::eventually;
use crate::wall_clock::WallClock;

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
    /// Its wall clock, if that isn't the system's.
    pub wall_clock: Option<WallClock>,
}

impl EnvoyConfig {
    /// With `LATCHKEY_TEST_FEED=worker` each worker subscribes itself, so that the same tests cover that mode.
    pub fn new(control_plane_port: u16, upstream_port: u16, edge_token: &str) -> Self {
        let feed = std::env::var("LATCHKEY_TEST_FEED").unwrap_or_else(|_| "process".to_owned());
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
                "feed": feed,
            }),
            workers: 2,
            wasm: built("dist/latchkey_filter.wasm"),
            replacements: Vec::new(),
            wall_clock: None,
        }
    }

    /// Accepts a key in each kind of place: a header, one with a prefix, a query parameter and a cookie.
    pub fn accept_keys_everywhere(&mut self) {
        self.plugin["credentials"] = json!([
            {"header": "x-api-key"},
            {"header": "authorization", "prefix": "Bearer "},
            {"query": "api_key"},
            {"cookie": "api_key"},
        ]);
    }

    /// Changes the text of envoy/demo.yaml, which must contain `from`.
    pub fn replace(&mut self, from: &str, to: &str) {
        self.replacements.push((from.to_owned(), to.to_owned()));
    }
}

/// Which part of the config is in a separate file, so that it can be replaced while Envoy runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// The whole listener (LDS). Open connections stay with the listener that accepted them.
    Listener,
    /// The filter alone (ECDS).
    Filter,
}

/// A running Envoy. Its listener may not be ready yet: see [`Self::wait_ready`].
pub struct Envoy {
    pub process: Process,
    pub port: u16,
    pub admin_port: u16,
    config: EnvoyConfig,
    folder: TempDir,
    discovery: Option<Discovery>,
}

impl Envoy {
    pub fn start(config: &EnvoyConfig) -> Self {
        Self::start_as(config, None)
    }

    /// As [`Self::start`], with a part of its config that [`Self::replace`] replaces.
    pub fn start_with_discovery(config: &EnvoyConfig, discovery: Discovery) -> Self {
        Self::start_as(config, Some(discovery))
    }

    fn start_as(config: &EnvoyConfig, discovery: Option<Discovery>) -> Self {
        let (port, admin_port) = (free_port(), free_port());
        let folder = tempfile::tempdir().expect("a folder");
        let text = render(config, port, admin_port);
        let text = discovery.map_or(text.clone(), |discovery| split_config(&text, discovery, folder.path()));
        std::fs::write(folder.path().join("envoy.yaml"), text).expect("the config");
        let process = run(config, folder.path());
        Self { process, port, admin_port, config: config.clone(), folder, discovery }
    }

    /// Starts it again on the same config and ports, after [`Process::kill`].
    pub fn restart(&mut self) {
        self.process = run(&self.config, self.folder.path());
    }

    /// Replaces the discovered part of the running Envoy's config. Returns once Envoy has applied it.
    pub fn replace(&self, config: &EnvoyConfig) {
        let discovery = self.discovery.expect("an Envoy that was started with discovery");
        let name = match discovery {
            Discovery::Listener => "listener_manager.lds.update_success",
            Discovery::Filter => "extension_config_discovery.http_filter.latchkey.config_reload",
        };
        let before = self.stat_ending(name);
        split_config(&render(config, self.port, self.admin_port), discovery, self.folder.path());
        eventually("Envoy has taken the new config", || {
            if self.stat_ending(name) > before { Ok(()) } else { Err(format!("{name} is still {before}")) }
        });
    }

    /// Waits until requests are accepted, whatever the answer.
    pub fn wait_listening(&mut self) {
        let Self { process, port, .. } = self;
        eventually("Envoy's listener answers", || {
            process.assert_runs();
            Connection::try_open(*port).and_then(|mut connection| connection.try_get("/latchkey/ready", &[])).map(drop)
        });
        // The first worker to listen gets all connections until the others listen, too.
        eventually("every worker listens", || match self.stat_ending("listener_manager.workers_started") {
            1 => Ok(()),
            other => Err(format!("workers_started is {other}")),
        });
    }

    /// Waits until every worker reports that it has its keys.
    pub fn wait_ready(&mut self) {
        self.wait_listening();
        for mut connection in self.connections(8) {
            eventually("every worker is ready", || {
                let Response { status, .. } = connection.try_get("/latchkey/ready", &[])?;
                if status == 200 { Ok(()) } else { Err(format!("status {status}")) }
            });
        }
    }

    /// Opens `count` new connections, and more where Envoy gave a worker too few of them.
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
        (0..self.config.workers).map(|worker| usize::try_from(stat(worker)).expect("a count")).collect()
    }

    /// The file that it was started with.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("envoy.yaml")
    }

    /// All statistics, as text.
    pub fn stats(&self) -> String {
        Connection::open(self.admin_port).get("/stats", &[]).body
    }

    /// The sum of the statistics whose names end with `name`; there must be at least one.
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

    /// Fails if a VM has failed since Envoy's start.
    pub fn assert_no_vm_failed(&self) {
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

/// Starts Envoy with the config in `folder`.
fn run(config: &EnvoyConfig, folder: &Path) -> Process {
    let mut command = Command::new(built(".tools/bin/envoy"));
    command
        .arg("--config-path")
        .arg(folder.join("envoy.yaml"))
        .args(["--concurrency", &config.workers.to_string()])
        // To discover a part of its config, Envoy needs a node name.
        .args(["--service-node", "test", "--service-cluster", "test"])
        .args(["--disable-hot-restart", "--log-level", "info", "--file-flush-interval-msec", "50"])
        .env("LATCHKEY_EDGE_TOKEN", &config.edge_token);
    if let Some(clock) = &config.wall_clock {
        clock.attach(&mut command);
    }
    Process::start("Envoy", &mut command, &folder.join("envoy.log"))
}

/// The demo's config with a test's values.
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

/// Moves a part of the config into a file that Envoy watches; returns the rest.
fn split_config(text: &str, discovery: Discovery, folder: &Path) -> String {
    let between = |start: &str, end: &str| {
        let start = text.find(start).unwrap_or_else(|| panic!("envoy/demo.yaml has no {start:?}"));
        start..start + text[start..].find(end).unwrap_or_else(|| panic!("envoy/demo.yaml has no {end:?}"))
    };
    let (file, new) = (folder.join("discovered.yaml"), folder.join("discovered.yaml.new"));
    let source = format!("{{path_config_source: {{path: {}}}, resource_api_version: V3}}", path(&file));
    let (resource, rest) = match discovery {
        Discovery::Listener => {
            let part = between("  - name: public\n", "  clusters:\n");
            let kind = "  - \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n    name: public\n";
            let resource = text[part.clone()].replacen("  - name: public\n", kind, 1);
            let rest = format!("{}{}", &text[..part.start], &text[part.end..]).replacen("  listeners:\n", "", 1);
            (resource, format!("dynamic_resources: {{lds_config: {source}}}\n{rest}"))
        }
        Discovery::Filter => {
            let part = between(
                "            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm",
                "          # The guard.",
            );
            let kind =
                "  - \"@type\": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig\n    name: latchkey\n";
            let wasm = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
            let discovered =
                format!("            config_discovery: {{config_source: {source}, type_urls: [{wasm}]}}\n");
            let rest = format!("{}{discovered}{}", &text[..part.start], &text[part.end..]);
            // The resource's fields are indented less than the filter's.
            let lines = text[part].lines().map(|line| format!("{}\n", line.strip_prefix("        ").unwrap_or(line)));
            (format!("{kind}{}", lines.collect::<String>()), rest)
        }
    };
    std::fs::write(&new, format!("resources:\n{resource}")).expect("the part");
    // Envoy watches for a file that is moved into place.
    std::fs::rename(&new, &file).expect("the part in its place");
    rest
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}
