//! A PostgreSQL server for the tests.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// Which engine the tests are on.
pub fn is_postgres() -> bool {
    match std::env::var("LATCHKEY_TEST_DATABASE").as_deref() {
        Err(_) | Ok("" | "sqlite") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("LATCHKEY_TEST_DATABASE is `{other}`: it can be `sqlite` and `postgres`"),
    }
}

/// A server of this process. It ends when its standard input closes, which this process holds open.
pub struct Server {
    _process: Child,
    /// The folder of its socket.
    pub folder: String,
}

impl Server {
    /// The URL of its default database.
    pub fn url(&self) -> String {
        format!("postgres://latchkey@/postgres?host={}", self.folder)
    }
}

/// Runs queries on a server. The client can't be used on an async thread, as tests are.
pub fn on_server<T: Send>(url: &str, work: impl FnOnce(&mut postgres::Client) -> T + Send) -> T {
    let work = || work(&mut postgres::Client::connect(url, postgres::NoTls).unwrap());
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A server with these settings.
pub fn start(settings: &[&str]) -> Server {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres");
    let mut process = Command::new(script).args(settings).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let folder = lines.next().expect("the folder of scripts/postgres").unwrap();
    assert_eq!(lines.next().expect("scripts/postgres serves").unwrap(), "ready");
    Server { _process: process, folder }
}
