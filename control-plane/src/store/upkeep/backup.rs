//! Backup of the database, also while a control plane serves it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use policy::Revision;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempPath;

use crate::store::db::sql::Sql;
use crate::store::db::sqlite_schema::is_ours;
use crate::store::history::changes;

/// Pages to copy in each step.
const PAGES: i32 = 4_096;

/// A finished backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// The last change in it.
    pub revision: Revision,
    pub bytes: u64,
}

/// Why no backup was made. Each message names the file and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("database {path}: cannot read it: {cause}")]
    Read { path: PathBuf, cause: rusqlite::Error },
    #[error("database {path}: it is not one of Latchkey's; name the file that `latchkey serve --database` names")]
    NotOurs { path: PathBuf },
    #[error("backup {path}: a file with this name already exists, and was not changed; name another file")]
    Taken { path: PathBuf },
    #[error("backup {path}: {cause}; check its directory and the disk")]
    Place { path: PathBuf, cause: io::Error },
    #[error("backup {path}: {cause}; check its directory and the disk")]
    Write { path: PathBuf, cause: rusqlite::Error },
    #[error("backup {path}: the copy is damaged ({cause}), and so is the database; keep older backups")]
    Damaged { path: PathBuf, cause: String },
}

/// Copies `database` into a new file at `to`, mode 0600, which appears complete and synced or not at all. Writers are
/// not blocked, and what they commit during the copy isn't in it. Costs a pass over the database, and one to check the
/// copy.
pub fn back_up(database: &Path, to: &Path) -> Result<BackupSummary, BackupError> {
    let read = |cause| BackupError::Read { path: database.to_owned(), cause };
    let place = |cause| BackupError::Place { path: to.to_owned(), cause };
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Taken { path: to.to_owned() });
    }
    let source = open_source(database).map_err(read)?;
    if !is_ours(&source).map_err(read)? {
        return Err(BackupError::NotOurs { path: database.to_owned() });
    }
    // In one transaction, so that all of the copy is as of one instant.
    let source = source.unchecked_transaction().map_err(read)?;
    let revision = changes::position(Sql::Sqlite(&source));
    let revision = revision.map_err(|_| BackupError::NotOurs { path: database.to_owned() })?.revision;
    let copy = TemporaryFile::create(to).map_err(place)?;
    copy_into(&source, &copy.path).map_err(|cause| BackupError::Write { path: to.to_owned(), cause })?;
    check(&copy.path, to)?;
    let file = File::open(&copy.path).map_err(place)?;
    file.sync_all().map_err(place)?;
    let bytes = file.metadata().map_err(place)?.len();
    copy.persist(to).map_err(place)?;
    Ok(BackupSummary { revision, bytes })
}

/// Opens a database read-only, in use or not.
pub(crate) fn open_source(path: &Path) -> rusqlite::Result<Connection> {
    let source = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    source.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF")?;
    Ok(source)
}

/// Copies a database, as the transaction of `source` sees it, into the empty file at `to`. The copy is one file,
/// without a WAL.
pub(crate) fn copy_into(source: &Connection, to: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags)?;
    copy.execute_batch("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON")?;
    let backup = Backup::new(source, &mut copy)?;
    loop {
        match backup.step(PAGES)? {
            StepResult::Done => break,
            StepResult::More => {}
            // Not expected: nobody else has the copy open, and the transaction of `source` has begun.
            _ => {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                ));
            }
        }
    }
    drop(backup);
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    copy.close().map_err(|(_, error)| error)
}

fn check(copy: &Path, named: &Path) -> Result<(), BackupError> {
    let damaged = |cause: String| BackupError::Damaged { path: named.to_owned(), cause };
    let sql = open_source(copy).map_err(|error| damaged(error.to_string()))?;
    let found: String =
        sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| damaged(error.to_string()))?;
    if found == "ok" { Ok(()) } else { Err(damaged(found)) }
}

/// A temporary file beside its target; removed on drop unless it is persisted.
pub(crate) struct TemporaryFile {
    pub(crate) path: TempPath,
}

impl TemporaryFile {
    /// Creates the empty temporary file for `to`, mode 0600. If it is left behind, its name shows that it is unfinished.
    pub(crate) fn create(to: &Path) -> io::Result<Self> {
        let mut prefix = to.file_name().unwrap_or_default().to_owned();
        prefix.push(".unfinished-");
        let file = tempfile::Builder::new().prefix(&prefix).tempfile_in(directory_of(to))?;
        Ok(Self { path: file.into_temp_path() })
    }

    /// Moves the file, which must be complete and synced, to `to`, and syncs the directory.
    pub(crate) fn persist(self, to: &Path) -> io::Result<()> {
        self.path.persist(to).map_err(|refused| refused.error)?;
        sync_directory(to)
    }
}

/// Syncs the directory of `path`, so that changes of names in it are durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
