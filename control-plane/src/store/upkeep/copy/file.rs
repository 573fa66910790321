//! A SQLite file as the source or the target of a copy.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::tables::NUMBERED;
use super::{CopyError, CopySource, CopyStep, CopySummary, Failure, check, write_all};
use crate::store::OpenError;
use crate::store::db::lock::Lock;
use crate::store::db::sql::{Sql, SqlError, params};
use crate::store::db::sqlite_schema::{is_ours, open_copy, versions};
use crate::store::upkeep::backup::{TemporaryFile, open_source};

/// A file that a copy reads. The lock keeps control planes from serving it during the copy.
pub(super) struct Source {
    connection: Connection,
    path: PathBuf,
    _lock: Lock,
}

impl Source {
    /// Opens a file that no control plane serves. Also reads what a crash left in its WAL, and leaves it there.
    pub(super) fn open(path: &Path) -> Result<Self, CopyError> {
        let database = path.display().to_string();
        let read = |error: rusqlite::Error| CopyError::Read { database: database.clone(), cause: error.to_string() };
        if let Err(cause) = path.metadata() {
            return Err(CopyError::Read { database, cause: cause.to_string() });
        }
        let lock = match Lock::acquire_for_reading(path) {
            Err(OpenError::InUse { .. }) => return Err(CopyError::Served { database }),
            taken => taken?,
        };
        let connection = open_source(path).map_err(read)?;
        if !is_ours(&connection).map_err(read)? {
            return Err(CopyError::NotOurs { database });
        }
        let (found, known) = versions(&connection).map_err(read)?;
        if found > known {
            return Err(OpenError::Newer { database, found, known }.into());
        }
        if found < known {
            return Err(CopyError::Older { database, found, known });
        }
        // The transaction ends with the connection. It only reads, so there is nothing to commit.
        connection.execute_batch("BEGIN").map_err(read)?;
        Ok(Self { connection, path: path.to_owned(), _lock: lock })
    }
}

impl CopySource for Source {
    fn display_name(&self) -> String {
        self.path.display().to_string()
    }

    fn sql(&self) -> Sql<'_> {
        Sql::Sqlite(&self.connection)
    }

    fn highest_number(&self, table: &str, _column: &str) -> Result<i64, SqlError> {
        let highest = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?1";
        self.sql().query_row(highest, params![table], |row| row.get(0))
    }
}

/// Copies into a new file, mode 0600. The file appears only when it is complete and on disk.
pub(super) fn copy_into(
    path: &Path,
    source: &dyn CopySource,
    report: &mut dyn FnMut(CopyStep),
) -> Result<CopySummary, CopyError> {
    let place = |cause| CopyError::Place { path: path.to_owned(), cause };
    let shown = path.display().to_string();
    let failed = |error: SqlError| CopyError::Write { database: shown.clone(), cause: error.to_string() };
    if path.symlink_metadata().is_ok() {
        return Err(CopyError::TakenFile { path: path.to_owned() });
    }
    let temporary = TemporaryFile::create(path).map_err(place)?;
    let connection = open_copy(&temporary.path)?;
    let sql = Sql::Sqlite(&connection);
    sql.execute_batch("BEGIN IMMEDIATE; DELETE FROM imports").map_err(failed)?;
    let written =
        write_all(source, sql, report).map_err(|failure| failure.into_copy_error(&source.display_name(), &shown))?;
    for (table, column) in NUMBERED {
        let highest = source.highest_number(table, column);
        let highest =
            highest.map_err(|error| Failure::Source(error).into_copy_error(&source.display_name(), &shown))?;
        sql.execute("DELETE FROM sqlite_sequence WHERE name = ?1", params![table]).map_err(failed)?;
        sql.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", params![table, highest])
            .map_err(failed)?;
    }
    let copied = check(&source.display_name(), sql, &shown, written, report)?;
    sql.execute_batch("COMMIT").map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error.into()))?;
    File::open(&temporary.path).and_then(|file| file.sync_all()).map_err(place)?;
    temporary.persist(path).map_err(place)?;
    Ok(copied)
}
