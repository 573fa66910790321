//! The upstream that answers with what it received.

use std::net::TcpStream;
use std::process::Command;

use tempfile::TempDir;

use crate::connection::Connection;
use crate::process::{Process, built, free_port};
use crate::wait::eventually;

/// `latchkey-echo` on a port of its own.
pub struct Echo {
    pub port: u16,
    _process: Process,
    _folder: TempDir,
}

impl Echo {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let mut command = Command::new(built("dist/latchkey-echo"));
        command.arg(format!("--listen=127.0.0.1:{port}"));
        let process = Process::start("the upstream", &mut command, &folder.path().join("echo.log"));
        eventually("the upstream listens", || {
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        Self { port, _process: process, _folder: folder }
    }

    /// How many requests it has received so far.
    pub fn seen(&self) -> u64 {
        Connection::open(self.port).get("/echo/seen", &[]).json().as_u64().expect("a number")
    }
}
