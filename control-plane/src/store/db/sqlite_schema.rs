//! SQLite connections: their settings, and the schema's migrations.

use std::path::Path;

use policy::{ChainHash, Epoch, Position, Revision};
use rusqlite::{Connection, OpenFlags, params};
use rusqlite_migration::{M, Migrations};

use super::lock::{Lock, OpenError};

/// "LKEY", as the first migration sets it.
const APPLICATION_ID: i64 = 0x4C4B_4559;

const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("migrations/0001_first.sql")),
    M::up(include_str!("migrations/0002_audit.sql")),
    M::up(include_str!("migrations/0003_admin_tokens.sql")),
    M::up(include_str!("migrations/0004_edge_tokens.sql")),
    M::up(include_str!("migrations/0005_searches.sql")),
    M::up(include_str!("migrations/0006_instances.sql")),
    M::up(include_str!("migrations/0007_usage.sql")),
    M::up(include_str!("migrations/0008_moving.sql")),
    M::up(include_str!("migrations/0009_console.sql")),
    M::up(include_str!("migrations/0010_imports.sql")),
    M::up(include_str!("migrations/0011_idempotency.sql")),
    M::up(include_str!("migrations/0012_folded_names.sql")),
    M::up(include_str!("migrations/0013_retention.sql")),
    M::up(include_str!("migrations/0014_sizes.sql")),
    M::up(include_str!("migrations/0015_audit_searches.sql")),
    M::up(include_str!("migrations/0016_roles.sql")),
];

/// The connection that writes: durable when COMMIT returns.
pub(crate) fn open_writer(lock: &Lock, epoch: Epoch) -> Result<Connection, OpenError> {
    let failed = |cause: String| OpenError::Sql { path: lock.path.clone(), cause };
    let sql = |cause| open_error(&lock.path, &cause);
    let mut connection = connect(&lock.path).map_err(sql)?;
    refuse_foreign(&connection, &lock.path)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql)?;
    if mode != "wal" {
        return Err(failed(format!(
            "its journal mode stays {mode}, but WAL is needed; is it on a network file system?"
        )));
    }
    migrate(&mut connection, &lock.path)?;
    let first = Position::first(epoch, Revision(0));
    connection
        .execute(
            "INSERT INTO position (one, epoch, first_revision, revision, head) VALUES (1, ?1, 0, 0, ?2)
             ON CONFLICT DO NOTHING",
            params![first.epoch.as_bytes(), ChainHash::first(epoch, first.revision).0],
        )
        .map_err(sql)?;
    Ok(connection)
}

/// A connection that can only read.
pub(crate) fn open_reader(lock: &Lock) -> Result<Connection, OpenError> {
    let sql = |cause| open_error(&lock.path, &cause);
    let connection = connect(&lock.path).map_err(sql)?;
    connection.pragma_update(None, "query_only", true).map_err(sql)?;
    // A first read, so that it opens the current WAL, whatever happens to its name later.
    number(&connection, &lock.path, "PRAGMA user_version")?;
    Ok(connection)
}

/// A copy that no other process has open, migrated to this version's schema. It stays one file, without a WAL.
pub(crate) fn open_copy(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = connect(path).map_err(|cause| open_error(path, &cause))?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error: rusqlite_migration::Error| OpenError::Sql { path: path.to_owned(), cause: error.to_string() };
    Migrations::from_slice(MIGRATIONS).to_latest(connection).map_err(failed)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // No URI file names, no creation: the caller has created the file, with its mode.
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Each statement is prepared once per connection.
    connection.set_prepared_statement_cache_capacity(128);
    connection.execute_batch(
        "PRAGMA busy_timeout = 5000;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -16000;
         -- The fsync of the WAL returns before COMMIT does; fullfsync makes it mean that on macOS too.
         PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON;
         -- 16 MB of WAL between checkpoints: a checkpoint's own fsyncs are spread over more commits than by default.
         PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(connection)
}

/// Refuses another program's database, or one of a newer version, and leaves it as it is.
fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let is_empty = number(connection, path, "SELECT count(*) FROM sqlite_schema")? == 0;
    if !is_empty && !is_ours(connection).map_err(|error| open_error(path, &error))? {
        return Err(OpenError::NotOurs { database: path.display().to_string() });
    }
    check_version(connection, path)
}

/// The database's schema version, and this program's.
pub(crate) fn versions(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let found = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok((found, i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)))
}

/// Refuses a database of a newer version.
pub(crate) fn check_version(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let (found, known) = versions(connection).map_err(|error| open_error(path, &error))?;
    if found > known { Err(OpenError::Newer { database: path.display().to_string(), found, known }) } else { Ok(()) }
}

fn number(connection: &Connection, path: &Path, query: &str) -> Result<i64, OpenError> {
    connection.query_row(query, [], |row| row.get(0)).map_err(|error| open_error(path, &error))
}

/// True for a database that Latchkey created.
pub(crate) fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(connection.query_row("PRAGMA application_id", [], |row| row.get::<_, i64>(0))? == APPLICATION_ID)
}

fn open_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::NotOurs { database: path.display().to_string() },
        _ => OpenError::Sql { path: path.to_owned(), cause: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> Result<Connection, OpenError> {
        open_writer(&Lock::acquire(path)?, Epoch::from_bytes([1; 16]))
    }

    #[test]
    fn migrations_are_valid() {
        Migrations::from_slice(MIGRATIONS).validate().unwrap();
    }

    #[test]
    fn a_file_of_a_newer_schema_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("latchkey.db");
        open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(open(&path), Err(OpenError::Newer { found: 99, known: 16, .. })));
    }

    #[test]
    fn another_program_s_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = directory.path().join("theirs.db");
        Connection::open(&theirs).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(matches!(open(&theirs), Err(OpenError::NotOurs { .. })));
        let text = directory.path().join("notes.txt");
        std::fs::write(&text, "not a database at all, but longer than a header of one hundred bytes. ".repeat(9))
            .unwrap();
        assert!(matches!(open(&text), Err(OpenError::NotOurs { .. })));
    }

    #[test]
    fn a_database_can_be_open_only_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("latchkey.db");
        let first = Lock::acquire(&path).unwrap();
        let link = directory.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(Lock::acquire(&path), Err(OpenError::InUse { .. })));
        assert!(matches!(Lock::acquire(&link), Err(OpenError::InUse { .. })));
        // Nor by another name of the file, which has a lock file of its own, nor when the lock file is gone.
        let other = directory.path().join("other.db");
        std::fs::hard_link(&path, &other).unwrap();
        std::fs::remove_file(directory.path().join("latchkey.db-lock")).unwrap();
        for path in [&path, &other] {
            assert!(matches!(Lock::acquire(path), Err(OpenError::InUse { .. })), "{}", path.display());
            assert!(matches!(Lock::acquire_for_reading(path), Err(OpenError::InUse { .. })), "{}", path.display());
        }
        drop(first);
        assert!(Lock::acquire(&other).is_ok());
    }

    #[test]
    fn a_path_that_can_hold_no_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Lock::acquire(directory.path()), Err(OpenError::NotAFile { .. })));
        assert!(matches!(Lock::acquire(&directory.path().join("nowhere/latchkey.db")), Err(OpenError::Io { .. })));
    }

    #[test]
    fn the_writer_waits_for_the_disk_at_each_commit() {
        let directory = tempfile::tempdir().unwrap();
        let connection = open(&directory.path().join("latchkey.db")).unwrap();
        for (pragma, expected) in [("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)] {
            let value: i64 = connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap();
            assert_eq!(value, expected, "{pragma}");
        }
    }
}
