//! A PostgreSQL server for the control planes of a test binary.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use test_support::server::{Server, is_postgres, start};

/// A database on that server.
#[derive(Clone, Debug)]
pub struct Postgres {
    name: String,
    /// The folder of the socket that leads to it.
    socket: String,
}

impl Postgres {
    /// Whether tests for either engine run on this one: `LATCHKEY_TEST_DATABASE=postgres`.
    pub fn is_selected() -> bool {
        is_postgres()
    }

    /// The database for the control plane with its files in this folder: the same one each time, and empty at first.
    pub fn of(folder: &Path) -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let server = SERVER.get_or_init(|| start(&[]));
        let mut hasher = DefaultHasher::new();
        folder.canonicalize().expect("a folder").hash(&mut hasher);
        let database = Self { name: format!("test_{:016x}", hasher.finish()), socket: server.folder.clone() };
        let (name, server) = (&database.name, database.server());
        if server.query(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")) == "0" {
            server.query(&format!("CREATE DATABASE {name} ENCODING UTF8 TEMPLATE template0"));
        }
        database
    }

    /// The server's own database, for statements about databases.
    fn server(&self) -> Self {
        Self { name: "postgres".to_owned(), ..self.clone() }
    }

    /// Makes a copy. No client may be connected.
    pub fn save_copy(&self) {
        self.server().query(&format!("CREATE DATABASE {0}_copy TEMPLATE {0}", self.name));
    }

    /// Replaces the database with that copy. No client may be connected.
    pub fn restore_copy(&self) {
        self.server().query(&format!("DROP DATABASE {}", self.name));
        self.server().query(&format!("CREATE DATABASE {0} TEMPLATE {0}_copy", self.name));
    }

    /// The same database through another socket: the file `.s.PGSQL.5432` in this folder.
    pub fn through(&self, folder: &Path) -> Self {
        Self { socket: folder.to_str().expect("a path in UTF-8").to_owned(), ..self.clone() }
    }

    /// The file of the socket.
    pub fn socket_file(&self) -> String {
        format!("{}/.s.PGSQL.5432", self.socket)
    }

    /// As `--database` takes it.
    pub fn url(&self) -> String {
        format!("postgres://latchkey@/{}?host={}", self.name, self.socket)
    }

    /// Its size, as PostgreSQL reports it.
    pub fn bytes(&self) -> u64 {
        self.query("SELECT pg_database_size(current_database())").parse().expect("a size")
    }

    /// The result of a statement, as psql prints it.
    pub fn query(&self, statement: &str) -> String {
        let mut command = Command::new("psql");
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        let output = command.arg(self.url()).arg("--command").arg(statement).output().expect("psql");
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
