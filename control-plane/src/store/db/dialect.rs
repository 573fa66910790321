//! Where the engines differ: each method chooses between SQLite and PostgreSQL, so that no caller does.

use super::sql::{Kind, NONE, Param, Sql, SqlError};
use super::{postgres, sqlite_schema};

impl Sql<'_> {
    /// Begins a transaction that reads: all that it sees is of one revision.
    pub(crate) fn begin_read(self) -> Result<(), SqlError> {
        self.execute_batch(match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => postgres::transaction::BEGIN_READ,
        })
    }

    /// Begins a transaction that writes. No other one runs until it ends.
    pub(crate) fn begin_write(self) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(_) => self.execute_batch("BEGIN IMMEDIATE"),
            Self::Postgres(_) => postgres::transaction::begin_write(self),
        }
    }

    /// Checkpoints the WAL into the file, as far as readers allow: on a full disk the WAL may have room when the file
    /// has none, and changes would soon fail again. A server does so by itself.
    pub(crate) fn checkpoint(self) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(_) => self.query_row("PRAGMA wal_checkpoint(PASSIVE)", NONE, |_| Ok(())),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Whether Latchkey created the database, in a version with an audit log.
    pub(crate) fn has_audit_log(self) -> Result<bool, SqlError> {
        match self {
            Self::Sqlite(connection) => {
                let has_log = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'audit_events'";
                Ok(sqlite_schema::is_ours(connection)? && self.query_row(has_log, NONE, |row| row.get::<i64>(0))? > 0)
            }
            Self::Postgres(_) => postgres::is_ours(self),
        }
    }

    /// Writes many rows into a table; all of them or none. `rows` passes each row to the function that it gets. Memory
    /// doesn't grow with their number.
    pub(crate) fn copy_in<E>(
        self,
        table: &str,
        columns: &[(&str, Kind)],
        rows: impl FnOnce(&mut dyn FnMut(&[Param<'_>]) -> Result<(), SqlError>) -> Result<(), E>,
    ) -> Result<Result<(), E>, SqlError> {
        let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        match self {
            Self::Sqlite(_) => {
                let numbered: Vec<_> = (1..=columns.len()).map(|number| format!("?{number}")).collect();
                let mut insert =
                    self.prepare(&format!("INSERT INTO {table} ({names}) VALUES ({})", numbered.join(", ")))?;
                Ok(rows(&mut |row| insert.execute(row).map(drop)))
            }
            Self::Postgres(session) => {
                let kinds: Vec<_> = columns.iter().map(|(_, kind)| *kind).collect();
                session.copy_in(&format!("COPY {table} ({names}) FROM STDIN (FORMAT binary)"), &kinds, rows)
            }
        }
    }

    /// Whether the engine has statistics to choose an index by. If not, a statement names it by [`Self::indexed_by`].
    pub(crate) fn has_statistics(self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(_) => true,
        }
    }

    /// The expression that orders keys by name, ignoring the case of A to Z. SQLite does it by the column's collation.
    pub(crate) fn by_name(self) -> &'static str {
        match self {
            Self::Sqlite(_) => "k.name",
            Self::Postgres(_) => "lower(k.name)",
        }
    }

    /// Makes the tables be joined in the order in which they are written: SQLite needs `CROSS JOIN` for it, PostgreSQL
    /// finds that order itself.
    pub(crate) fn in_join_order(self, statement: &str) -> String {
        match self {
            Self::Sqlite(_) => statement.replace(" JOIN ", " CROSS JOIN "),
            Self::Postgres(_) => statement.to_owned(),
        }
    }

    /// The strings of a JSON array, as rows.
    pub(crate) fn items_of_json(self, array: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("(SELECT value FROM json_each({array}))"),
            Self::Postgres(_) => format!("(SELECT json_array_elements_text({array}::text::json))"),
        }
    }

    /// The clause that names the index to use: SQLite has no statistics to choose by, PostgreSQL has.
    pub(crate) fn indexed_by(self, index: &str) -> String {
        match self {
            Self::Sqlite(_) => format!(" INDEXED BY {index}"),
            Self::Postgres(_) => String::new(),
        }
    }
}
