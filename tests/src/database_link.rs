//! The link between a control plane and its PostgreSQL, which a test cuts.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::postgres::Postgres;

/// A Unix socket that forwards to another one until it is cut. Ends with the test.
pub struct DatabaseLink {
    folder: TempDir,
    to: Postgres,
    open: Open,
}

/// The open connections; `None` while the link is cut.
type Open = Arc<Mutex<Option<Vec<UnixStream>>>>;

impl DatabaseLink {
    pub fn to(database: &Postgres) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let link = Self { folder, to: database.clone(), open: Arc::new(Mutex::new(Some(Vec::new()))) };
        let listener = UnixListener::bind(link.database().socket_file()).expect("a socket");
        let (to, open) = (database.socket_file(), Arc::clone(&link.open));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // A failure here only ends the connection.
                drop(forward(stream, &to, &open));
            }
        });
        link
    }

    /// The database, reached through this link.
    pub fn database(&self) -> Postgres {
        self.to.through(self.folder.path())
    }

    /// From now on new connections end as soon as they begin; open ones end immediately.
    pub fn cut(&self) {
        for stream in lock(&self.open).take().into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on new connections are forwarded again.
    pub fn restore(&self) {
        lock(&self.open).get_or_insert_default();
    }
}

/// Copies bytes in both directions.
fn forward(here: UnixStream, to: &str, open: &Open) -> io::Result<()> {
    let mut open = lock(open);
    let Some(open) = open.as_mut() else { return Ok(()) };
    let there = UnixStream::connect(to)?;
    open.extend([here.try_clone()?, there.try_clone()?]);
    for (mut from, mut to) in [(here.try_clone()?, there.try_clone()?), (there, here)] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
