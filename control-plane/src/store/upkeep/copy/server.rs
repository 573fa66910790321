//! A PostgreSQL schema as the source or the target of a copy.

use std::path::Path;

use policy::Epoch;

use super::tables::{NUMBERED, TABLES};
use super::{CopyError, CopySource, CopyStep, CopySummary, Failure, check, write_all};
use crate::store::OpenError;
use crate::store::db::postgres::{Server, display_url, is_idle, is_ours, prepare_uncommitted, versions};
use crate::store::db::sql::{NONE, Session, Sql, SqlError};

/// A copy may take longer than any statement or transaction of a control plane, and is idle while the other side works.
const NO_TIMEOUTS: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// The tables that a control plane's first start writes to.
const STARTUP_TABLES: [&str; 7] =
    ["position", "changes", "scopes", "environments", "audit_events", "imports", "retention"];

/// A schema that a copy reads.
pub(super) struct Source {
    session: Session,
    name: String,
}

/// Copies into a schema that is empty, or unused since a control plane's first start.
pub(super) fn copy_into(
    url: &str,
    password_file: Option<&Path>,
    source: &dyn CopySource,
    report: &mut dyn FnMut(CopyStep),
) -> Result<CopySummary, CopyError> {
    let server = Server::at(url, password_file)?;
    let session = server.connect().map_err(|error| server.open_error(&error))?;
    let (sql, shown) = (Sql::Postgres(&session), display_url(url));
    let failed = |error: SqlError| CopyError::Write { database: shown.clone(), cause: error.to_string() };
    session.execute_batch(NO_TIMEOUTS).map_err(failed)?;
    // The server rolls back what isn't committed when the connection ends, however it ends.
    prepare_uncommitted(&session, &shown, Epoch::from_bytes([0; 16]))?;
    if !is_idle(sql).map_err(failed)? {
        return Err(CopyError::Served { database: shown });
    }
    if let Some(what) = existing_contents(sql).map_err(failed)? {
        return Err(CopyError::Taken { database: shown, what });
    }
    let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
    sql.execute_batch(&format!("TRUNCATE {}", names.join(", "))).map_err(failed)?;
    let written =
        write_all(source, sql, report).map_err(|failure| failure.into_copy_error(&source.display_name(), &shown))?;
    for (table, column) in NUMBERED {
        let highest = source.highest_number(table, column);
        let highest =
            highest.map_err(|error| Failure::Source(error).into_copy_error(&source.display_name(), &shown))?;
        let next = highest.saturating_add(1);
        // Unlike setval, this is rolled back with the transaction.
        sql.execute_batch(&format!("ALTER TABLE {table} ALTER COLUMN {column} RESTART WITH {next}")).map_err(failed)?;
    }
    report(CopyStep::Waiting("updating the planner's statistics"));
    sql.execute_batch(&format!("ANALYZE {}", names.join(", "))).map_err(failed)?;
    let copied = check(&source.display_name(), sql, &shown, written, report)?;
    report(CopyStep::Waiting("committing"));
    match sql.execute_batch("COMMIT") {
        Ok(()) => Ok(copied),
        Err(error) if error.is_lost() => Err(CopyError::Unknown { database: shown, cause: error.to_string() }),
        Err(error) => Err(failed(error)),
    }
}

/// What a schema already contains; `None` if it is unused.
fn existing_contents(sql: Sql<'_>) -> Result<Option<String>, SqlError> {
    let has = |rows: &str| sql.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {rows})"), NONE, |row| row.get(0));
    for table in TABLES.iter().filter(|table| !STARTUP_TABLES.contains(&table.name)) {
        if has(table.name)? {
            return Ok(Some(format!("rows in {}", table.name)));
        }
    }
    let has_history = has("audit_events WHERE action <> 'catalogue.define'")?;
    Ok(has_history.then(|| "a history of changes".to_owned()))
}

impl Source {
    /// Opens a schema that no control plane serves from, for reading.
    pub(super) fn open(url: &str, password_file: Option<&Path>) -> Result<Self, CopyError> {
        let server = Server::at(url, password_file)?;
        let session = server.connect().map_err(|error| server.open_error(&error))?;
        let (sql, database) = (Sql::Postgres(&session), display_url(url));
        let failed = |error: SqlError| CopyError::Read { database: database.clone(), cause: error.to_string() };
        session.execute_batch(NO_TIMEOUTS).map_err(failed)?;
        session.execute_batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").map_err(failed)?;
        if !is_ours(sql).map_err(failed)? {
            return Err(CopyError::NotOurs { database });
        }
        if !is_idle(sql).map_err(failed)? {
            return Err(CopyError::Served { database });
        }
        let (found, known) = versions(sql).map_err(failed)?;
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(CopyError::Older { database, found, known }),
            std::cmp::Ordering::Greater => Err(OpenError::Newer { database, found, known }.into()),
            std::cmp::Ordering::Equal => Ok(Self { session, name: database }),
        }
    }
}

impl CopySource for Source {
    fn display_name(&self) -> String {
        self.name.clone()
    }

    fn sql(&self) -> Sql<'_> {
        Sql::Postgres(&self.session)
    }

    fn highest_number(&self, table: &str, column: &str) -> Result<i64, SqlError> {
        let highest = format!(
            "SELECT coalesce(pg_sequence_last_value(CAST(pg_get_serial_sequence('{table}', '{column}') AS regclass)), 0)"
        );
        self.sql().query_row(&highest, NONE, |row| row.get(0))
    }
}
