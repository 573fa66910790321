//! One process a database: a lock file beside it, and what may be wrong with the path.
//!
//! The lock is on a file of its own. One on the database would be lost as soon as any handle to it is closed (POSIX), and
//! SQLite's `locking_mode = EXCLUSIVE` would shut out our own read connections.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Why a database can't be opened. Each names it and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database {path}: {cause}; make its directory, or name another file with --database")]
    Place { path: PathBuf, cause: io::Error },
    #[error("database {path}: it is not a file; name a file with --database, or a path where one can be made")]
    NotAFile { path: PathBuf },
    #[error("database {path}: another control plane has it open; stop that one, or name another file with --database")]
    InUse { path: PathBuf },
    #[error("database {database}: it is not one of Latchkey's; name another with --database")]
    NotOurs { database: String },
    #[error("database {database}: its schema {found} is newer than this version's {known}; start the newer version")]
    Newer { database: String, found: i64, known: i64 },
    #[error("database {database}: {cause}")]
    Server { database: String, cause: String },
    #[error("database {path}: {cause}; check the file, its directory and the disk")]
    Sql { path: PathBuf, cause: String },
    #[error("database: {0}")]
    Failed(String),
}

/// Held while the database is open; the system frees it when the process ends, however it ends.
pub(super) struct Lock {
    /// The database, absolute, with all links followed.
    pub(super) path: PathBuf,
    file: File,
}

impl Lock {
    /// Locks the database at `path`, and makes an empty file there if there is none.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let misplaced = |cause| OpenError::Place { path: path.to_owned(), cause };
        if path.is_dir() || path.file_name().is_none() {
            return Err(OpenError::NotAFile { path: path.to_owned() });
        }
        // Digests are no secrets, but nobody else's business either. SQLite gives its other files the same mode.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        drop(options.open(path).map_err(misplaced)?);
        let path = path.canonicalize().map_err(misplaced)?;
        if !path.is_file() {
            return Err(OpenError::NotAFile { path });
        }
        if let Some(directory) = path.parent() {
            // SQLite syncs the names of the files it makes; this one is ours.
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(misplaced)?;
        }
        let file = options.open(beside(&path)).map_err(misplaced)?;
        Self::of(path, file)
    }

    /// Locks a database that is only read, and makes nothing but the lock's own file. `None` where there is no such file and none
    /// can be made, as on a medium that can't be written to: whoever serves a database has made one.
    pub(super) fn take_to_read(path: &Path) -> Result<Option<Self>, OpenError> {
        let misplaced = |cause| OpenError::Place { path: path.to_owned(), cause };
        let path = path.canonicalize().map_err(misplaced)?;
        if !path.is_file() {
            return Err(OpenError::NotAFile { path });
        }
        let name = beside(&path);
        match File::open(&name) {
            Ok(file) => Self::of(path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made =
                    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
                made.map_or(Ok(None), |file| Self::of(path, file).map(Some))
            }
            Err(cause) => Err(OpenError::Place { path, cause }),
        }
    }

    fn of(path: PathBuf, file: File) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path }),
            Err(TryLockError::Error(cause)) => Err(OpenError::Place { path, cause }),
        }
    }
}

/// The file that the lock of a database is on.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push("-lock");
    name.into()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file isn't enough while a process that is being started still has a copy of it. When this fails, closing
        // it does free it in the end.
        let _ = self.file.unlock();
    }
}
