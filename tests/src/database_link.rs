//! The way between a control plane and its PostgreSQL, which a test cuts.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::postgres::Postgres;

/// A socket that leads to another one for as long as it isn't cut. Ends with the test.
pub struct DatabaseLink {
    folder: TempDir,
    to: Postgres,
    open: Open,
}

/// The connections that are open; `None` while it is cut.
type Open = Arc<Mutex<Option<Vec<UnixStream>>>>;

impl DatabaseLink {
    pub fn to(database: &Postgres) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let link = Self { folder, to: database.clone(), open: Arc::new(Mutex::new(Some(Vec::new()))) };
        let listener = UnixListener::bind(link.way().socket_file()).expect("a socket");
        let (to, open) = (database.socket_file(), Arc::clone(&link.open));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                // Whatever fails here is a connection that ends.
                drop(join(stream, &to, &open));
            }
        });
        link
    }

    /// The database, as it is reached by this link.
    pub fn way(&self) -> Postgres {
        self.to.through(self.folder.path())
    }

    /// From now on connections end as soon as they begin; those that are open end at once.
    pub fn cut(&self) {
        for stream in lock(&self.open).take().into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        lock(&self.open).get_or_insert_default();
    }
}

/// Has what comes in at either end go out at the other.
fn join(here: UnixStream, to: &str, open: &Open) -> io::Result<()> {
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
