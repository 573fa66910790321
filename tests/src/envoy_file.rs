//! Envoy with a config file that a test wrote.

use std::path::Path;
use std::process::Command;

use crate::process::{Process, built};

/// Starts Envoy with this config, with its log beside it.
pub fn run_envoy(config: &Path) -> Process {
    let mut command = Command::new(built(".tools/bin/envoy"));
    command.arg("--config-path").arg(config).args(["--concurrency", "2", "--disable-hot-restart"]);
    command.args(["--drain-time-s", "1", "--file-flush-interval-msec", "50"]);
    Process::start("Envoy", &mut command, &config.with_extension("log"))
}

/// Envoy's error for a config that it refuses; `None` for one that it accepts.
pub fn refused_by_envoy(config: &Path) -> Option<String> {
    let mut command = Command::new(built(".tools/bin/envoy"));
    command.args(["--mode", "validate", "--log-level", "error", "--config-path"]).arg(config);
    let output = command.output().expect("Envoy");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then_some(error)
}
