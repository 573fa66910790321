//! Errors of a database, whichever engine it is.

use std::io::ErrorKind;

use postgres::error::SqlState;

use crate::store::StoreError;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqlError {
    #[error("no row matches")]
    NoRow,
    #[error("column {column} has an unexpected value: {cause}")]
    InvalidColumn { column: usize, cause: String },
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{}", describe(.0))]
    Postgres(#[from] postgres::Error),
    /// There is no connection now.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Fault(&'static str),
}

/// Turns `NoRow` into `None`.
pub(crate) trait Optional<T> {
    fn optional(self) -> Result<Option<T>, SqlError>;
}

impl<T> Optional<T> for Result<T, SqlError> {
    fn optional(self) -> Result<Option<T>, SqlError> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(SqlError::NoRow) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl SqlError {
    pub(crate) fn invalid_column(column: usize, cause: impl ToString) -> Self {
        Self::InvalidColumn { column, cause: cause.to_string() }
    }

    /// Whether the connection can't be used any more.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Postgres(error) => error.as_db_error().is_none_or(|error| ends_session(error.code())),
            Self::NoRow | Self::InvalidColumn { .. } | Self::Sqlite(_) | Self::Fault(_) => false,
        }
    }

    /// Whether the stored data is damaged.
    fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::Sqlite(error) => matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)),
            Self::Postgres(error) => error
                .as_db_error()
                .is_some_and(|error| [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(error.code())),
            Self::NoRow | Self::InvalidColumn { .. } | Self::Unreachable(_) | Self::Fault(_) => false,
        }
    }

    /// Whether an established connection was cut.
    pub(crate) fn is_cut(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        match error.as_db_error() {
            Some(error) => [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(error.code()),
            None => error.is_closed() || cause_of(error).is_some_and(|cause| CUT.contains(&cause.kind())),
        }
    }
}

/// The errors of a socket whose peer has closed it. A failure to connect has other errors.
const CUT: [ErrorKind; 4] =
    [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::UnexpectedEof];

fn cause_of(error: &postgres::Error) -> Option<&std::io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// A PostgreSQL error with its cause, because the client library's own text is only `db error`.
fn describe(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("PostgreSQL reports: {} ({})", error.message(), error.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

fn ends_session(code: &SqlState) -> bool {
    [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::DATABASE_DROPPED,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ]
    .contains(code)
}

/// Whether the error is transient: it comes from the state of the server or its environment. By the classes of SQLSTATE
/// (PostgreSQL manual, appendix A): 08 connection, 25006 read only, 40 rollback, 53 resources, 55 state, 57 operator,
/// 58 system.
fn is_transient(error: &postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else { return true };
    let code = error.code().code();
    *error.code() == SqlState::READ_ONLY_SQL_TRANSACTION
        || ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        use rusqlite::ErrorCode as Code;
        if error.is_damage() {
            return Self::Damaged(error.to_string());
        }
        let is_transient = match &error {
            SqlError::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    Code::DiskFull
                        | Code::ReadOnly
                        | Code::SystemIoFailure
                        | Code::CannotOpen
                        | Code::DatabaseBusy
                        | Code::DatabaseLocked
                        | Code::FileLockingProtocolFailed
                        | Code::OutOfMemory
                        | Code::PermissionDenied,
                )
            ),
            SqlError::Postgres(error) => is_transient(error),
            SqlError::Unreachable(_) => true,
            // A violated constraint or a value of the wrong type: a bug in Latchkey.
            SqlError::NoRow | SqlError::InvalidColumn { .. } | SqlError::Fault(_) => false,
        };
        if is_transient { Self::Unavailable(error.to_string()) } else { Self::Fault(error.to_string()) }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        SqlError::Sqlite(error).into()
    }
}
