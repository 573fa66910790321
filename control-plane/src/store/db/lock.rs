//! One process per database: its locks, and the errors of opening it.
//!
//! Two locks (`flock`) are held. The one on the database itself belongs to the file, whatever its path and whatever
//! happens to the files beside it. The one on a lock file beside it excludes control planes of older versions, which
//! have only that lock.
//!
//! POSIX releases all of SQLite's own locks on a file, which are of the other kind (`fcntl`), as soon as this process
//! closes any descriptor of it. So descriptors that are opened here stay open until SQLite has closed the file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Why a database can't be opened. Each message names it and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database {path}: {cause}; make its directory, or name another file with --database")]
    Io { path: PathBuf, cause: io::Error },
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

/// Held until the last connection to the database is closed; the system releases it however the process ends.
pub(crate) struct Lock {
    /// The database's absolute path, with all links followed.
    pub(crate) path: PathBuf,
    /// The database.
    pub(crate) database: File,
    /// The lock file beside it; `None` if none can be created.
    lock_file: Option<File>,
    /// The index of the WAL, once it is read. It stays open, because SQLite has locks on it, too.
    index: OnceLock<File>,
}

impl Lock {
    /// Locks the database at `path`, and creates an empty file there if there is none.
    pub(crate) fn acquire(path: &Path) -> Result<Self, OpenError> {
        let io_error = |cause| OpenError::Io { path: path.to_owned(), cause };
        if path.is_dir() || path.file_name().is_none() {
            return Err(OpenError::NotAFile { path: path.to_owned() });
        }
        // Digests aren't secrets, but no other user needs them. SQLite gives its other files the same mode.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let database = options.open(path).map_err(io_error)?;
        let path = path.canonicalize().map_err(io_error)?;
        if !path.is_file() {
            return Err(OpenError::NotAFile { path });
        }
        if let Some(directory) = path.parent() {
            // SQLite syncs the names of the files it creates; this one is ours.
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error)?;
        }
        let lock_file = options.open(lock_file_path(&path)).map_err(io_error)?;
        Self::of(path, database, Some(lock_file))
    }

    /// Locks a database that is only read, and creates nothing but the lock file. If there is none and none can be
    /// created, as on a read-only medium, only the database itself is locked.
    pub(crate) fn acquire_for_reading(path: &Path) -> Result<Self, OpenError> {
        let io_error = |cause| OpenError::Io { path: path.to_owned(), cause };
        let path = path.canonicalize().map_err(io_error)?;
        if !path.is_file() {
            return Err(OpenError::NotAFile { path });
        }
        let name = lock_file_path(&path);
        let lock_file = match File::open(&name) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&name).ok()
            }
            Err(cause) => return Err(OpenError::Io { path, cause }),
        };
        let database = File::open(&path).map_err(io_error)?;
        Self::of(path, database, lock_file)
    }

    /// The index of the WAL that SQLite has created, opened once.
    pub(crate) fn index(&self) -> io::Result<&File> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let index = File::open(with_suffix(&self.path, "-shm"))?;
        Ok(self.index.get_or_init(|| index))
    }

    fn of(path: PathBuf, database: File, lock_file: Option<File>) -> Result<Self, OpenError> {
        let locked = lock_file.as_ref().map_or(Ok(()), File::try_lock).and_then(|()| database.try_lock());
        match locked {
            Ok(()) => Ok(Self { path, database, lock_file, index: OnceLock::new() }),
            Err(error) => {
                // If this process itself serves the database, closing this descriptor would release SQLite's locks.
                let _ = database.into_raw_fd();
                Err(match error {
                    TryLockError::WouldBlock => OpenError::InUse { path },
                    TryLockError::Error(cause) => OpenError::Io { path, cause },
                })
            }
        }
    }
}

/// The path of the lock file beside a database.
fn lock_file_path(path: &Path) -> PathBuf {
    with_suffix(path, "-lock")
}

/// The path of one of the files that belong to a database.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the files isn't enough while a child process that is being started still has a copy of them. If this
        // fails, the locks are released when all copies are closed.
        let _ = self.database.unlock();
        if let Some(lock_file) = &self.lock_file {
            let _ = lock_file.unlock();
        }
    }
}
