//! Databases for tests: a file in the test's directory or, with LATCHKEY_TEST_DATABASE=postgres, a schema in a PostgreSQL.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The server of this process. It ends when its standard input does, which this process holds.
struct Server {
    _process: Child,
    folder: String,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// Which engine the tests are on.
pub fn is_postgres() -> bool {
    match std::env::var("LATCHKEY_TEST_DATABASE").as_deref() {
        Err(_) | Ok("" | "sqlite") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("LATCHKEY_TEST_DATABASE is `{other}`: it can be `sqlite` and `postgres`"),
    }
}

/// What `--database` takes for the database of a test with this directory: the same each time, and empty at first.
pub fn of(directory: &Path) -> String {
    if !is_postgres() {
        return directory.join("latchkey.db").to_str().unwrap().to_owned();
    }
    let Server { folder, .. } = SERVER.get_or_init(start);
    let mut hasher = DefaultHasher::new();
    directory.canonicalize().unwrap().hash(&mut hasher);
    let schema = format!("test_{:016x}", hasher.finish());
    let create = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
    let url = format!("postgres://latchkey@/postgres?host={folder}");
    // This client can't be used on an async thread.
    std::thread::scope(|scope| {
        scope.spawn(|| postgres::Client::connect(&url, postgres::NoTls).unwrap().batch_execute(&create).unwrap());
    });
    format!("{url}&options=-csearch_path%3D{schema}")
}

fn start() -> Server {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres");
    let mut process = Command::new(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let folder = lines.next().expect("scripts/postgres says where it is").unwrap();
    assert_eq!(lines.next().expect("scripts/postgres serves").unwrap(), "ready");
    Server { _process: process, folder }
}
