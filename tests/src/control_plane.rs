//! A control plane on a SQLite file of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::admin::{Admin, client};
use crate::process::{Process, built, free_port};
use crate::wait::eventually;
use crate::wall_clock::WallClock;

/// `latchkey serve`, with its files in a folder that goes away with it.
pub struct ControlPlane {
    pub process: Process,
    pub port: u16,
    folder: TempDir,
    wall_clock: Option<WallClock>,
}

impl ControlPlane {
    pub fn start() -> Self {
        Self::start_as("", None)
    }

    /// With this as its `latchkey.toml`.
    pub fn start_with(config: &str) -> Self {
        Self::start_as(config, None)
    }

    pub fn start_by(clock: &WallClock) -> Self {
        Self::start_as("", Some(clock.clone()))
    }

    fn start_as(config: &str, wall_clock: Option<WallClock>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("latchkey.toml"), config).expect("the configuration");
        let port = free_port();
        let process = serve(folder.path(), port, wall_clock.as_ref());
        let started = Self { process, port, folder, wall_clock };
        started.wait();
        started
    }

    /// Starts it again on the same files and port, after [`Process::kill`].
    pub fn restart(&mut self) {
        self.process = serve(self.folder.path(), self.port, self.wall_clock.as_ref());
        self.wait();
    }

    fn wait(&self) {
        let url = format!("{}/healthz", self.url());
        eventually("the control plane answers /healthz", || {
            let answer = client().get(&url).send().map_err(|error| format!("{error}; log: {}", self.process.log()))?;
            if answer.status() == 200 { Ok(()) } else { Err(answer.status().to_string()) }
        });
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn admin(&self) -> Admin {
        Admin::new(&self.url(), &self.admin_token())
    }

    pub fn admin_token(&self) -> String {
        read(&self.folder.path().join("admin-token"))
    }

    pub fn edge_token(&self) -> String {
        read(&self.folder.path().join("edge-token"))
    }

    /// The size of its database, without the WAL.
    pub fn database_bytes(&self) -> u64 {
        std::fs::metadata(self.folder.path().join("latchkey.db")).expect("the database").len()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// `latchkey` with these arguments; answers with its exit code and all that it said.
pub fn latchkey(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(built("dist/latchkey")).args(arguments).output().expect("latchkey");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// `latchkey serve` as the fixtures start it, with its files in `folder`; `flags` add to these or stand in their place.
pub fn serve_command(folder: &Path, port: u16, flags: &[(&str, &str)]) -> Command {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut all = BTreeMap::from([
        ("listen", format!("127.0.0.1:{port}")),
        ("database", file("latchkey.db")),
        ("admin-token-file", file("admin-token")),
        ("edge-token-file", file("edge-token")),
    ]);
    if folder.join("latchkey.toml").exists() {
        all.insert("config", file("latchkey.toml"));
    }
    all.extend(flags.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let mut command = Command::new(built("dist/latchkey"));
    command.arg("serve").args(all.iter().map(|(name, value)| format!("--{name}={value}")));
    command
}

fn serve(folder: &Path, port: u16, wall_clock: Option<&WallClock>) -> Process {
    let mut command = serve_command(folder, port, &[]);
    if let Some(clock) = wall_clock {
        clock.rule(&mut command);
    }
    Process::start("the control plane", &mut command, &folder.join("control-plane.log"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}
