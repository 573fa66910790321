//! A control plane with its own database: a SQLite file or, with LATCHKEY_TEST_DATABASE=postgres, one in PostgreSQL.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use crate::admin::{Admin, client};
use crate::disk::Disk;
use crate::postgres::Postgres;
use crate::process::{Process, built, free_port};
use crate::wait::eventually;
use crate::wall_clock::WallClock;

/// The file name of the SQLite database.
const DATABASE: &str = "latchkey.db";

/// `latchkey serve`, with its files in a temporary folder.
pub struct ControlPlane {
    pub process: Process,
    pub port: u16,
    folder: Arc<TempDir>,
    /// `None`: a file in the folder.
    postgres: Option<Postgres>,
    machine: Machine,
}

/// Which part of the machine the test replaces.
#[derive(Default)]
enum Machine {
    #[default]
    System,
    Clock(WallClock),
    Disk(Disk),
}

impl ControlPlane {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With this as its `latchkey.toml`.
    pub fn start_with(config: &str) -> Self {
        let folder = folder(config);
        let postgres = Postgres::is_selected().then(|| Postgres::of(folder.path()));
        Self::start_as(folder, postgres, Machine::System)
    }

    /// For tests of the SQLite file, whatever engine the other tests use.
    pub fn start_on_sqlite() -> Self {
        Self::start_as(folder(""), None, Machine::System)
    }

    /// For tests that need PostgreSQL, such as those with a second control plane.
    pub fn start_on_postgres() -> Self {
        let folder = folder("");
        let postgres = Some(Postgres::of(folder.path()));
        Self::start_as(folder, postgres, Machine::System)
    }

    pub fn start_with_clock(clock: &WallClock) -> Self {
        let folder = folder("");
        let postgres = Postgres::is_selected().then(|| Postgres::of(folder.path()));
        Self::start_as(folder, postgres, Machine::Clock(clock.clone()))
    }

    /// With its database file on this disk.
    pub fn start_on_disk(disk: &Disk) -> Self {
        Self::start_as(folder(""), None, Machine::Disk(disk.clone()))
    }

    /// Another replica: with the same tokens, and on the same PostgreSQL database, reached through `database`.
    pub fn start_replica(&self, database: Postgres) -> Self {
        Self::start_as(Arc::clone(&self.folder), Some(database), Machine::System)
    }

    fn start_as(folder: Arc<TempDir>, postgres: Option<Postgres>, machine: Machine) -> Self {
        let port = free_port();
        let process = serve(folder.path(), port, postgres.as_ref(), &machine);
        let started = Self { process, port, folder, postgres, machine };
        started.wait();
        started
    }

    /// Starts it again on the same files, database and port, after [`Process::kill`].
    pub fn restart(&mut self) {
        self.process = serve(self.folder.path(), self.port, self.postgres.as_ref(), &self.machine);
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
        match &self.postgres {
            Some(postgres) => postgres.bytes(),
            None => std::fs::metadata(self.database()).expect("the database").len(),
        }
    }

    /// Its SQLite file.
    pub fn database(&self) -> PathBuf {
        assert!(self.postgres.is_none(), "a test of files begins with `ControlPlane::start_on_sqlite`");
        self.folder.path().join(DATABASE)
    }

    /// Copies its database. It must not be running.
    pub fn save_copy(&self) {
        match &self.postgres {
            Some(postgres) => postgres.save_copy(),
            None => drop(std::fs::copy(self.database(), self.database().with_extension("copy")).expect("a copy")),
        }
    }

    /// Replaces its database with that copy. It must not be running.
    pub fn restore_copy(&self) {
        match &self.postgres {
            Some(postgres) => postgres.restore_copy(),
            None => drop(std::fs::copy(self.database().with_extension("copy"), self.database()).expect("a copy")),
        }
    }

    /// Its database in PostgreSQL.
    pub fn postgres(&self) -> &Postgres {
        self.postgres.as_ref().expect("a test of PostgreSQL begins with `ControlPlane::start_on_postgres`")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Runs `latchkey`; returns its exit code, and its standard output and error.
pub fn latchkey(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(built("dist/latchkey")).args(arguments).output().expect("latchkey");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// `latchkey serve` as the fixtures start it, with its files in `folder`; `flags` are added to the usual ones, or
/// replace them.
pub fn serve_command(folder: &Path, port: u16, flags: &[(&str, &str)]) -> Command {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut all = BTreeMap::from([
        ("listen", format!("127.0.0.1:{port}")),
        ("admin-token-file", file("admin-token")),
        ("edge-token-file", file("edge-token")),
    ]);
    if folder.join("latchkey.toml").exists() {
        all.insert("config", file("latchkey.toml"));
    }
    all.extend(flags.iter().map(|(name, value)| (*name, (*value).to_owned())));
    all.entry("database")
        .or_insert_with(|| if Postgres::is_selected() { Postgres::of(folder).url() } else { file(DATABASE) });
    let mut command = Command::new(built("dist/latchkey"));
    command.arg("serve").args(all.iter().map(|(name, value)| format!("--{name}={value}")));
    command
}

fn folder(config: &str) -> Arc<TempDir> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("latchkey.toml"), config).expect("the configuration");
    Arc::new(folder)
}

fn serve(folder: &Path, port: u16, postgres: Option<&Postgres>, machine: &Machine) -> Process {
    let database = postgres.map_or_else(|| folder.join(DATABASE).display().to_string(), Postgres::url);
    let mut command = serve_command(folder, port, &[("database", &database)]);
    match machine {
        Machine::System => {}
        Machine::Clock(clock) => clock.attach(&mut command),
        Machine::Disk(disk) => disk.attach(&mut command, &folder.join(DATABASE)),
    }
    Process::start("the control plane", &mut command, &folder.join(format!("control-plane-{port}.log")))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}
