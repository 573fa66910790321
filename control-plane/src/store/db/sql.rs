//! SQL for either engine: statements are written once, with `?1` for the first parameter.
//!
//! Where the two differ, a method of `db/dialect.rs` returns the text, such as [`Sql::by_name`].

mod batch;
mod error;
mod session;
mod value;

use rusqlite::CachedStatement;

pub(crate) use self::error::{Optional, SqlError};
pub(crate) use self::session::Session;
pub(crate) use self::value::{Column, FromColumn, Kind, Param, ToParam, Value, params, values};

/// An open connection of one of the engines.
#[derive(Clone, Copy)]
pub(crate) enum Sql<'c> {
    Sqlite(&'c rusqlite::Connection),
    Postgres(&'c Session),
}

/// A statement, prepared once per connection.
pub(crate) enum Statement<'c> {
    Sqlite(CachedStatement<'c>),
    /// Prepared when it is run, once for each set of kinds of parameters.
    Postgres(&'c Session, String),
}

/// A row of a result.
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r postgres::Row),
}

/// No parameters.
pub(crate) const NONE: &[Param<'_>] = &[];

impl<'c> Sql<'c> {
    pub(crate) fn prepare(self, statement: &str) -> Result<Statement<'c>, SqlError> {
        match self {
            Self::Sqlite(connection) => Ok(Statement::Sqlite(connection.prepare_cached(statement)?)),
            Self::Postgres(session) => Ok(Statement::Postgres(session, statement.to_owned())),
        }
    }

    /// Returns the number of rows written.
    pub(crate) fn execute(self, statement: &str, params: &[Param<'_>]) -> Result<usize, SqlError> {
        self.prepare(statement)?.execute(params)
    }

    /// The first row; `NoRow` when there is none.
    pub(crate) fn query_row<T>(
        self,
        statement: &str,
        params: &[Param<'_>],
        read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.prepare(statement)?.query_row(params, read)
    }

    /// Runs statements without parameters or results.
    pub(crate) fn execute_batch(self, statements: &str) -> Result<(), SqlError> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(statements)?),
            Self::Postgres(session) => session.execute_batch(statements),
        }
    }
}

impl Statement<'_> {
    /// Returns the number of rows written.
    pub(crate) fn execute(&mut self, params: &[Param<'_>]) -> Result<usize, SqlError> {
        match self {
            Self::Sqlite(statement) => Ok(statement.execute(rusqlite::params_from_iter(params))?),
            Self::Postgres(session, statement) => session.execute(statement, params),
        }
    }

    /// The first row; `NoRow` when there is none.
    pub(crate) fn query_row<T>(
        &mut self,
        params: &[Param<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        match self {
            Self::Sqlite(statement) => match statement.query(rusqlite::params_from_iter(params))?.next()? {
                Some(row) => read(&Row::Sqlite(row)),
                None => Err(SqlError::NoRow),
            },
            Self::Postgres(session, statement) => match session.query(statement, params)?.first() {
                Some(row) => read(&Row::Postgres(row)),
                None => Err(SqlError::NoRow),
            },
        }
    }

    /// All rows.
    pub(crate) fn query_map<T>(
        &mut self,
        params: &[Param<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        let mut all = Vec::new();
        self.each(params, |row| {
            all.push(read(row)?);
            Ok::<(), SqlError>(())
        })?;
        Ok(all)
    }

    /// Streams the rows: passes each to `take` as it arrives. `take` can't use the connection meanwhile.
    pub(crate) fn each<E: From<SqlError>>(
        &mut self,
        params: &[Param<'_>],
        mut take: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Sqlite(statement) => {
                let mut rows = statement.query(rusqlite::params_from_iter(params)).map_err(SqlError::from)?;
                while let Some(row) = rows.next().map_err(SqlError::from)? {
                    take(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            Self::Postgres(session, statement) => session.each(statement, params, |row| take(&Row::Postgres(row))),
        }
    }
}

impl Row<'_> {
    /// A column, counted from 0.
    pub(crate) fn get<T: FromColumn>(&self, at: usize) -> Result<T, SqlError> {
        T::from_column(self.column(at)?).map_err(|cause| SqlError::invalid_column(at, cause))
    }

    /// A column that holds text.
    pub(crate) fn text(&self, at: usize) -> Result<&str, SqlError> {
        self.column(at)?.text().map_err(|cause| SqlError::invalid_column(at, cause))
    }

    pub(crate) fn column(&self, at: usize) -> Result<Column<'_>, SqlError> {
        match self {
            Self::Sqlite(row) => Column::of_sqlite(row.get_ref(at)?)
                .ok_or_else(|| SqlError::invalid_column(at, "no column has this type")),
            Self::Postgres(row) => Ok(row.try_get(at)?),
        }
    }
}
