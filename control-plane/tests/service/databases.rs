//! Databases for tests: a file in the test's directory or, with LATCHKEY_TEST_DATABASE=postgres, a schema in a PostgreSQL.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A server of this process. It ends when its standard input does, which this process holds.
pub struct Server {
    _process: Child,
    /// Of its socket.
    pub folder: String,
}

/// In a test's directory.
pub const FILE: &str = "latchkey.db";

static SERVER: OnceLock<Server> = OnceLock::new();

/// Which engine the tests are on.
pub fn is_postgres() -> bool {
    match std::env::var("LATCHKEY_TEST_DATABASE").as_deref() {
        Err(_) | Ok("" | "sqlite") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("LATCHKEY_TEST_DATABASE is `{other}`: it can be `sqlite` and `postgres`"),
    }
}

/// What `--database` takes for the database of a test with this directory: the same each time, and empty at first. A file that
/// is there is taken whatever the engine.
pub fn of(directory: &Path) -> String {
    let file = directory.join(FILE);
    if !is_postgres() || file.exists() {
        return file.to_str().unwrap().to_owned();
    }
    let Server { folder, .. } = SERVER.get_or_init(|| start(&[]));
    let mut hasher = DefaultHasher::new();
    directory.canonicalize().unwrap().hash(&mut hasher);
    let schema = format!("test_{:016x}", hasher.finish());
    let url = format!("postgres://latchkey@/postgres?host={folder}");
    on_server(&url, |server| server.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}")).unwrap());
    format!("{url}&application_name={schema}&options=-csearch_path%3D{schema}")
}

/// Asks a server. The client can't be used on an async thread, as tests are.
pub fn on_server<T: Send>(url: &str, work: impl FnOnce(&mut postgres::Client) -> T + Send) -> T {
    let work = || work(&mut postgres::Client::connect(url, postgres::NoTls).unwrap());
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A server with these settings.
pub fn start(settings: &[&str]) -> Server {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres");
    let mut process = Command::new(script).args(settings).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let folder = lines.next().expect("scripts/postgres says where it is").unwrap();
    assert_eq!(lines.next().expect("scripts/postgres serves").unwrap(), "ready");
    Server { _process: process, folder }
}
