//! Whether an open database is still the file at its path, and this process the only one that commits to it.

use std::cell::Cell;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::StoreError;
use super::lock::{Lock, OpenError, with_suffix};

/// Where the WAL's index has the number of commits, in this machine's byte order (SQLite, "WAL-mode File Format", 2.1). It grows
/// with each one, whichever process makes it, and stays as it is when a checkpoint begins the WAL anew.
const COMMITS_AT: u64 = 8;

/// Why a database that is open takes no change. Each names the file and what to do, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    #[error(
        "database {path}: {cause}, so no change is taken: put the file that was opened back there, or stop this control \
         plane and start it on the file to serve; docs/operating.md tells how to copy one that was removed"
    )]
    Moved { path: PathBuf, cause: String },
    #[error(
        "database {path}: another program has committed to it while this control plane serves it, so no change is taken \
         until a restart: end that program, then restart this control plane"
    )]
    ForeignCommit { path: PathBuf },
}

/// What is watched of a file, by the connection that writes to it.
pub(super) struct Watch {
    lock: Arc<Lock>,
    /// The database, its WAL and the WAL's index: any of them that is another one takes with it what was committed.
    files: [(PathBuf, Inode); 3],
    /// `data_version` as this connection last saw it: others' commits move it, and so do some checkpoints.
    version: Cell<i64>,
    /// The number of commits after this connection's last one; `None` where somebody else did something at that very moment.
    commits: Cell<Option<u32>>,
    has_foreign_commits: Arc<AtomicBool>,
}

/// Names a file, whatever its path is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), number: found.ino() }
    }
}

impl Watch {
    /// Begins to watch the database that `writer` has open. `has_foreign_commits` becomes true when another program commits to it.
    pub(super) fn begin(
        lock: Arc<Lock>,
        writer: &rusqlite::Connection,
        has_foreign_commits: Arc<AtomicBool>,
    ) -> Result<Self, OpenError> {
        let failed = |cause: String| OpenError::Sql { path: lock.path.clone(), cause };
        let io = |error: io::Error| failed(error.to_string());
        let sql = |error: rusqlite::Error| failed(error.to_string());
        let wal = with_suffix(&lock.path, "-wal");
        let files = [
            (lock.path.clone(), Inode::of(&lock.database.metadata().map_err(io)?)),
            (wal.clone(), Inode::of(&wal.metadata().map_err(io)?)),
            (with_suffix(&lock.path, "-shm"), Inode::of(&lock.index().and_then(std::fs::File::metadata).map_err(io)?)),
        ];
        // Nobody commits meanwhile.
        writer.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
        let (version, commits) = (version(writer).map_err(sql)?, commits(&lock).map_err(io)?);
        writer.execute_batch("ROLLBACK").map_err(sql)?;
        let (version, commits) = (Cell::new(version), Cell::new(Some(commits)));
        let watch = Self { lock, files, version, commits, has_foreign_commits };
        watch.is_placed().map_err(|error| OpenError::Failed(error.to_string()))?;
        Ok(watch)
    }

    /// That each file is still where it was opened.
    pub(super) fn is_placed(&self) -> Result<(), Unwritable> {
        for (path, opened) in &self.files {
            let cause = match path.metadata() {
                Ok(found) if Inode::of(&found) == *opened => continue,
                Ok(_) => format!("{} is another file than the one that was opened", path.display()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    format!("{} was removed or moved", path.display())
                }
                Err(error) => format!("{} can't be looked at ({error})", path.display()),
            };
            return Err(Unwritable::Moved { path: self.lock.path.clone(), cause });
        }
        Ok(())
    }

    /// That nobody else has committed; once somebody has, never again. Only within a transaction that writes, which keeps others
    /// from it.
    pub(super) fn is_sole(&self, writer: &rusqlite::Connection) -> Result<(), StoreError> {
        let version = version(writer)?;
        if version != self.version.replace(version) {
            let found = commits(&self.lock).map_err(|error| StoreError::Unavailable(error.to_string()))?;
            if self.commits.get() != Some(found) {
                self.has_foreign_commits.store(true, Ordering::SeqCst);
            }
        }
        if self.has_foreign_commits.load(Ordering::SeqCst) {
            return Err(Unwritable::ForeignCommit { path: self.lock.path.clone() }.into());
        }
        Ok(())
    }

    /// Notes a commit of this connection. In this order: while `data_version` is as it was, nobody else has changed the number.
    pub(super) fn committed(&self, writer: &rusqlite::Connection) {
        let found = commits(&self.lock).ok();
        let is_alone = version(writer).is_ok_and(|version| version == self.version.get());
        self.commits.set(found.filter(|_| is_alone));
    }
}

fn version(connection: &rusqlite::Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn commits(lock: &Lock) -> io::Result<u32> {
    let mut number = [0; 4];
    lock.index()?.read_exact_at(&mut number, COMMITS_AT)?;
    Ok(u32::from_ne_bytes(number))
}

impl From<Unwritable> for StoreError {
    fn from(unwritable: Unwritable) -> Self {
        Self::Unwritable(unwritable)
    }
}
