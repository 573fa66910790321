//! Checks that an open database is still the file at its path, and that only this process commits to it.

use std::cell::Cell;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lock::{Lock, OpenError, with_suffix};
use crate::store::StoreError;

/// Where the WAL's index has the number of commits, in this machine's byte order (SQLite, "WAL-mode File Format", 2.1).
/// It grows with each commit of any process, and stays the same when a checkpoint restarts the WAL.
const COMMITS_AT: u64 = 8;

/// Why an open database accepts no change. Each message names the file and what to do, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    #[error(
        "database {path}: {cause}, so no change is accepted: put the file that was opened back there, or stop this control \
         plane and start it on the file to serve; docs/operating.md describes how to copy one that was removed"
    )]
    Moved { path: PathBuf, cause: String },
    #[error(
        "database {path}: another program has committed to it while this control plane serves it, so no change is accepted \
         until a restart: end that program, then restart this control plane"
    )]
    ForeignCommit { path: PathBuf },
}

/// Detects that a database file was replaced, or that another program committed to it. Belongs to the connection that
/// writes.
pub(crate) struct FileWatch {
    lock: Arc<Lock>,
    /// The database, its WAL and the WAL's index. If one of them is replaced, commits are lost with the old one.
    files: [(PathBuf, Inode); 3],
    /// `data_version` as this connection last read it: others' commits change it, and so do some checkpoints.
    version: Cell<i64>,
    /// The number of commits as of this connection's last one; `None` if unknown: another program was active.
    commits: Cell<Option<u32>>,
    has_foreign_commits: Arc<AtomicBool>,
}

/// Identifies a file independently of its path.
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

impl FileWatch {
    /// Watches the database that `writer` has open; sets `has_foreign_commits` when another program commits to it.
    pub(crate) fn begin(
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
        // So that no other program commits between the two reads.
        writer.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
        let (version, commits) = (version(writer).map_err(sql)?, commits(&lock).map_err(io)?);
        writer.execute_batch("ROLLBACK").map_err(sql)?;
        let (version, commits) = (Cell::new(version), Cell::new(Some(commits)));
        let watch = Self { lock, files, version, commits, has_foreign_commits };
        watch.check_in_place().map_err(|error| OpenError::Failed(error.to_string()))?;
        Ok(watch)
    }

    /// Checks that each file is still where it was opened.
    pub(crate) fn check_in_place(&self) -> Result<(), Unwritable> {
        for (path, opened) in &self.files {
            let cause = match path.metadata() {
                Ok(found) if Inode::of(&found) == *opened => continue,
                Ok(_) => format!("{} is another file than the one that was opened", path.display()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    format!("{} was removed or moved", path.display())
                }
                Err(error) => format!("{} cannot be read ({error})", path.display()),
            };
            return Err(Unwritable::Moved { path: self.lock.path.clone(), cause });
        }
        Ok(())
    }

    /// Checks that no other program has committed; once one has, it always fails. Call it only in a write transaction,
    /// which keeps others from committing.
    pub(crate) fn check_sole_writer(&self, writer: &rusqlite::Connection) -> Result<(), StoreError> {
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

    /// Records this connection's commit. In this order: if `data_version` is unchanged, no other program changed the
    /// number.
    pub(crate) fn record_commit(&self, writer: &rusqlite::Connection) {
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
