//! A connection of one of the engines, its transactions, and what takes its place when it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StoreError;
use super::postgres::{Server, Session};
use super::sql::{NONE, Sql, SqlError, params};

/// For how long it is asked what became of a COMMIT whose answer was lost.
const ASKED: Duration = Duration::from_secs(5);

pub(super) enum Connection {
    Sqlite(rusqlite::Connection),
    Postgres(Box<Session>),
}

/// Where others come from when connections are lost. Those of a file aren't.
pub(super) type Source = Option<Arc<Server>>;

impl Connection {
    pub(super) fn sql(&self) -> Sql<'_> {
        match self {
            Self::Sqlite(connection) => Sql::Sqlite(connection),
            Self::Postgres(session) => Sql::Postgres(session),
        }
    }
}

fn connect(source: &Source) -> Result<Connection, SqlError> {
    match source {
        Some(server) => server.connect().map(Box::new).map(Connection::Postgres),
        None => Err(SqlError::Unreachable("the file is closed".to_owned())),
    }
}

/// Runs `work` in one transaction that only reads: all that it sees is of one revision.
pub(super) fn reading<T>(sql: Sql<'_>, work: impl FnOnce(Sql<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
    begin_reading(sql)?;
    let result = work(sql);
    // There is nothing to keep of a read.
    sql.execute_batch("ROLLBACK")?;
    result
}

fn begin_reading(sql: Sql<'_>) -> Result<(), SqlError> {
    sql.execute_batch(match sql {
        Sql::Sqlite(_) => "BEGIN",
        Sql::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    })
}

/// The same on a connection that was idle, or else on a new one; answers with the connection, too, if it serves on.
pub(super) fn reading_anew<T>(
    idle: Option<Connection>,
    source: &Source,
    work: impl FnOnce(Sql<'_>) -> Result<T, StoreError>,
) -> (Option<Connection>, Result<T, StoreError>) {
    // One that was cut while it was idle shows it only now.
    let idle = idle.and_then(|idle| match begin_reading(idle.sql()) {
        Err(error) if error.is_lost() => None,
        begun => Some(begun.map(|()| idle)),
    });
    let begun = idle.unwrap_or_else(|| {
        let connection = connect(source)?;
        begin_reading(connection.sql())?;
        Ok(connection)
    });
    let connection = match begun {
        Ok(connection) => connection,
        Err(error) => return (None, Err(error.into())),
    };
    let result = work(connection.sql());
    let serves_on = connection.sql().execute_batch("ROLLBACK").is_ok();
    (serves_on.then_some(connection), result)
}

/// The connection that changes something, one transaction at a time.
pub(super) struct Writing {
    source: Source,
    connection: Option<Connection>,
    /// Names the transaction, so that it can be asked after.
    transaction: i64,
}

impl Writing {
    pub(super) fn new(connection: Connection, source: Source) -> Self {
        Self { source, connection: Some(connection), transaction: 0 }
    }

    /// Begins a transaction. It is the only one until it ends: SQLite has one writer; in PostgreSQL it holds the position's row,
    /// so that the order of revisions is the order of commits over all replicas.
    pub(super) fn begin(&mut self) -> Result<(), SqlError> {
        let begun = self.connection.as_ref().map(|connection| begin(connection.sql()));
        self.transaction = match begun {
            Some(Ok(transaction)) => transaction,
            // Nothing has begun, so another one may do it.
            Some(Err(error)) if error.is_lost() && self.source.is_some() => self.begin_anew()?,
            None => self.begin_anew()?,
            Some(Err(error)) => return Err(error),
        };
        Ok(())
    }

    fn begin_anew(&mut self) -> Result<i64, SqlError> {
        self.connection = None;
        let connection = connect(&self.source)?;
        let transaction = begin(connection.sql())?;
        self.connection = Some(connection);
        Ok(transaction)
    }

    pub(super) fn sql(&self) -> Result<Sql<'_>, SqlError> {
        let connection = self.connection.as_ref().map(Connection::sql);
        connection.ok_or_else(|| SqlError::Unreachable("the connection is lost".to_owned()))
    }

    /// Whether the transaction is over: SQLite ends it by itself on some errors, such as a full disk.
    pub(super) fn has_ended(&self) -> bool {
        match &self.connection {
            Some(Connection::Sqlite(connection)) => connection.is_autocommit(),
            Some(Connection::Postgres(session)) => session.is_closed(),
            None => true,
        }
    }

    /// Ends the transaction and keeps what it did. Other replicas are told of it when it has moved the position.
    pub(super) fn commit(&mut self, moved: bool) -> Result<(), SqlError> {
        let committed = match self.sql()? {
            sql @ Sql::Postgres(_) if moved => sql.execute_batch("NOTIFY latchkey; COMMIT"),
            sql => sql.execute_batch("COMMIT"),
        };
        match (&committed, &self.source) {
            (Err(error), Some(server)) if error.is_lost() => {
                self.connection = None;
                became_of(server, self.transaction)
            }
            _ => committed,
        }
    }

    /// Ends the transaction and keeps nothing of it.
    pub(super) fn roll_back(&mut self) -> Result<(), SqlError> {
        let undone = if self.has_ended() { Ok(()) } else { self.sql()?.execute_batch("ROLLBACK") };
        if self.source.is_some() && (undone.is_err() || self.has_ended()) {
            // The server rolls back what a connection leaves behind.
            self.connection = None;
            return Ok(());
        }
        undone
    }
}

/// Answers with the transaction's name.
fn begin(sql: Sql<'_>) -> Result<i64, SqlError> {
    match sql {
        Sql::Sqlite(_) => sql.execute_batch("BEGIN IMMEDIATE").map(|()| 0),
        Sql::Postgres(_) => {
            // What comes after the lock sees all that was committed before.
            sql.execute_batch("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")?;
            let lock = "SELECT txid_current() FROM position WHERE one = 1 FOR UPDATE";
            let locked = sql.query_row(lock, NONE, |row| row.get(0));
            if locked.is_err() {
                // Fails when the connection is lost, and then there is nothing to end.
                let _ = sql.execute_batch("ROLLBACK");
            }
            locked
        }
    }
}

/// What became of a COMMIT whose answer was lost: it is neither taken for done nor for undone, but asked for.
fn became_of(server: &Server, transaction: i64) -> Result<(), SqlError> {
    let unknown = |error: SqlError| {
        SqlError::Unreachable(format!("the connection was lost at a commit, which may have been carried out: {error}"))
    };
    let session = server.connect_until(Instant::now() + ASKED).map_err(unknown)?;
    let sql = Sql::Postgres(&session);
    // Waits for the end of that transaction, which holds the same lock.
    begin(sql).map_err(unknown)?;
    let status: Option<String> =
        sql.query_row("SELECT txid_status(?1)", params![transaction], |row| row.get(0)).map_err(unknown)?;
    match status.as_deref() {
        Some("committed") => Ok(()),
        Some("aborted") => Err(SqlError::Unreachable("the connection was lost before the commit".to_owned())),
        other => Err(unknown(SqlError::Unreachable(format!("its state is {other:?}")))),
    }
}
