//! Copies a database with its whole history to the other engine: a file to PostgreSQL, or back.
//!
//! See `docs/decisions/postgres.md`.

mod file;
mod server;
mod table_summary;
mod tables;

use std::io;
use std::path::PathBuf;

use policy::Position;

pub use self::table_summary::{TableDigest, TableSummary};
use self::tables::{TABLES, Table};
use crate::store::StoreError;
use crate::store::db::database::Database;
use crate::store::db::lock::OpenError;
use crate::store::db::sql::{NONE, Param, Sql, SqlError};
use crate::store::history::audit_verify::{VerifiedLog, VerifyError, verify_open};
use crate::store::history::changes;

/// Rows per progress report.
const PROGRESS_ROWS: u64 = 1_000;

/// The progress of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyStep {
    /// Begins to copy a table of this many rows.
    Copying { table: &'static str, rows: u64 },
    /// Begins to check the target's rows of a table.
    Checking { table: &'static str, rows: u64 },
    /// This many more rows are copied or checked.
    RowsDone(u64),
    /// Does something of unknown length.
    Waiting(&'static str),
}

/// What was copied and verified in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySummary {
    pub position: Position,
    pub tables: Vec<TableSummary>,
    /// The target's.
    pub audit: VerifiedLog,
}

/// Why a copy failed. Each message names the database and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(
        "{from} and {to} are on the same engine: name a file and a postgres:// URL. `latchkey backup` copies a file, and pg_dump a PostgreSQL database"
    )]
    SameEngine { from: String, to: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("database {database}: cannot read it: {cause}; nothing was copied")]
    Read { database: String, cause: String },
    #[error("database {database}: it is not one of Latchkey's; name the one that `latchkey serve --database` names")]
    NotOurs { database: String },
    #[error(
        "database {database}: its schema {found} is older than this version's {known}; start this version's control plane on it once, which brings it up to date, stop it, and copy then"
    )]
    Older { database: String, found: i64, known: i64 },
    #[error(
        "database {database}: a control plane serves from it; stop it first, or its changes during the copy would be lost"
    )]
    Served { database: String },
    #[error(
        "database {database}: it already has {what}, and was not changed; copy into an empty one, such as a new one of `createdb`, or another schema (`options=-csearch_path%3D…`)"
    )]
    Taken { database: String, what: String },
    #[error("database {path}: a file with this name already exists, and was not changed; name another file")]
    TakenFile { path: PathBuf },
    #[error("database {database}: {cause}; nothing was copied, and the database is unchanged")]
    Write { database: String, cause: String },
    #[error("database {path}: {cause}; check its directory and the disk")]
    Place { path: PathBuf, cause: io::Error },
    #[error(
        "database {database}: the answer to the commit was lost ({cause}), so either everything was copied or nothing; `latchkey audit verify` shows which"
    )]
    Unknown { database: String, cause: String },
    #[error(
        "database {database}: its rows of table {table} are not those that were written ({found} rows, and {expected} were written); nothing was copied, and the database is unchanged"
    )]
    Differs { database: String, table: &'static str, found: u64, expected: u64 },
    #[error("{0}; nothing was copied")]
    Audit(VerifyError),
}

/// Copies all of a database into an empty one on the other engine, in one transaction: the target gets everything or
/// stays as it was. Before the commit everything is read again and compared. No control plane may serve either
/// database. `report` receives the progress. Costs two passes over all rows, and memory that doesn't grow with them.
/// Not for async threads.
pub fn copy(from: &Database, to: &Database, report: &mut dyn FnMut(CopyStep)) -> Result<CopySummary, CopyError> {
    match (from, to) {
        (Database::File(path), Database::Server { url, password_file }) => {
            let source = file::Source::open(path)?;
            server::copy_into(url.expose(), password_file.as_deref(), &source, report)
        }
        (Database::Server { url, password_file }, Database::File(path)) => {
            let source = server::Source::open(url.expose(), password_file.as_deref())?;
            file::copy_into(path, &source, report)
        }
        (Database::File(_), Database::File(_)) | (Database::Server { .. }, Database::Server { .. }) => {
            Err(CopyError::SameEngine { from: from.to_string(), to: to.to_string() })
        }
    }
}

/// The source of a copy, in a read-only transaction.
trait CopySource {
    /// Its name in messages.
    fn display_name(&self) -> String;

    fn sql(&self) -> Sql<'_>;

    /// The highest number ever assigned to a row of a table.
    fn highest_number(&self, table: &str, column: &str) -> Result<i64, SqlError>;
}

/// An SQL error, and the side where it happened.
enum Failure {
    Source(SqlError),
    Target(SqlError),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Source(error)
    }
}

impl Failure {
    fn into_copy_error(self, source: &str, target: &str) -> CopyError {
        match self {
            Self::Source(error) => CopyError::Read { database: source.to_owned(), cause: error.to_string() },
            Self::Target(error) => CopyError::Write { database: target.to_owned(), cause: error.to_string() },
        }
    }
}

/// Writes all rows of `source` into the empty tables of `target`.
fn write_all(
    source: &dyn CopySource,
    target: Sql<'_>,
    report: &mut dyn FnMut(CopyStep),
) -> Result<Vec<TableSummary>, Failure> {
    let written = TABLES.iter().map(|table| {
        report(CopyStep::Copying { table: table.name, rows: count(source.sql(), table)? });
        write(source.sql(), target, table, report)
    });
    written.collect()
}

fn write(
    source: Sql<'_>,
    target: Sql<'_>,
    table: &Table,
    report: &mut dyn FnMut(CopyStep),
) -> Result<TableSummary, Failure> {
    let mut rows = TableSummary::empty(table.name);
    let rows_of_source = |put: &mut dyn FnMut(&[Param<'_>]) -> Result<(), SqlError>| {
        read(source, table, report, &mut rows, &mut |row| put(row).map_err(Failure::Target))
    };
    target.copy_in(table.name, table.columns, rows_of_source).map_err(Failure::Target)??;
    Ok(rows)
}

/// Compares the target with what was written, and verifies its audit log. By then both logs are equal, so a fault in it
/// is reported as a fault of `from`.
fn check(
    from: &str,
    target: Sql<'_>,
    named: &str,
    written: Vec<TableSummary>,
    report: &mut dyn FnMut(CopyStep),
) -> Result<CopySummary, CopyError> {
    let failed = |cause: String| CopyError::Write { database: named.to_owned(), cause };
    for (table, expected) in TABLES.iter().zip(&written) {
        report(CopyStep::Checking { table: table.name, rows: expected.count });
        let mut found = TableSummary::empty(table.name);
        read(target, table, report, &mut found, &mut |_| Ok(()))
            .map_err(|error: SqlError| failed(error.to_string()))?;
        if found != *expected {
            let (found, expected) = (found.count, expected.count);
            return Err(CopyError::Differs { database: named.to_owned(), table: table.name, found, expected });
        }
    }
    report(CopyStep::Waiting("checking the audit log"));
    let audit = verify_open(target, from).map_err(CopyError::Audit)?;
    let position = changes::position(target).map_err(|error: StoreError| failed(error.to_string()))?;
    Ok(CopySummary { position, tables: written, audit })
}

/// Reads all rows of a table, counts them in `rows`, and passes them to `take`.
fn read<E: From<SqlError>>(
    sql: Sql<'_>,
    table: &Table,
    report: &mut dyn FnMut(CopyStep),
    rows: &mut TableSummary,
    take: &mut dyn FnMut(&[Param<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = Vec::new();
    sql.prepare(&table.select())?.each(NONE, |row| {
        let row = table.row(row)?;
        rows.add(&row, &mut buffer);
        if rows.count.is_multiple_of(PROGRESS_ROWS) {
            report(CopyStep::RowsDone(PROGRESS_ROWS));
        }
        take(&row)
    })
}

fn count(sql: Sql<'_>, table: &Table) -> Result<u64, SqlError> {
    let count: i64 = sql.query_row(&format!("SELECT count(*) FROM {}", table.name), NONE, |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}
