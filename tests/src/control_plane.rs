//! A control plane on a SQLite file of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::admin::{Admin, client};
use crate::disk::Disk;
use crate::process::{Process, built, free_port};
use crate::wait::eventually;
use crate::wall_clock::WallClock;

/// Its name in the folder.
const DATABASE: &str = "latchkey.db";

/// `latchkey serve`, with its files in a folder that goes away with it.
pub struct ControlPlane {
    pub process: Process,
    pub port: u16,
    folder: TempDir,
    machine: Machine,
}

/// What of its machine is a test's and not the system's.
#[derive(Default)]
enum Machine {
    #[default]
    System,
    Clock(WallClock),
    Disk(Disk),
}

impl ControlPlane {
    pub fn start() -> Self {
        Self::start_as("", Machine::System)
    }

    /// With this as its `latchkey.toml`.
    pub fn start_with(config: &str) -> Self {
        Self::start_as(config, Machine::System)
    }

    pub fn start_by(clock: &WallClock) -> Self {
        Self::start_as("", Machine::Clock(clock.clone()))
    }

    /// With its database on this disk.
    pub fn start_on(disk: &Disk) -> Self {
        Self::start_as("", Machine::Disk(disk.clone()))
    }

    fn start_as(config: &str, machine: Machine) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("latchkey.toml"), config).expect("the configuration");
        let port = free_port();
        let process = serve(folder.path(), port, &machine);
        let started = Self { process, port, folder, machine };
        started.wait();
        started
    }

    /// Starts it again on the same files and port, after [`Process::kill`].
    pub fn restart(&mut self) {
        self.process = serve(self.folder.path(), self.port, &self.machine);
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
        std::fs::metadata(self.database()).expect("the database").len()
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join(DATABASE)
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
        ("database", file(DATABASE)),
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

fn serve(folder: &Path, port: u16, machine: &Machine) -> Process {
    let mut command = serve_command(folder, port, &[]);
    match machine {
        Machine::System => {}
        Machine::Clock(clock) => clock.rule(&mut command),
        Machine::Disk(disk) => disk.hold(&mut command, &folder.join(DATABASE)),
    }
    Process::start("the control plane", &mut command, &folder.join("control-plane.log"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}
