//! A connection of one of the engines, its transactions, and its replacement when it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::file_watch::FileWatch;
use super::lock::Lock;
use super::postgres::Server;
use super::postgres::notifications::commit_and_notify;
use super::sql::{NONE, Optional as _, Session, Sql, SqlError, params};
use crate::store::StoreError;

/// How long to query the outcome of a COMMIT whose answer was lost.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) enum Connection {
    /// With the lock of its file, which is released when the last connection is closed.
    #[expect(dead_code, reason = "the lock is held, not used")]
    Sqlite(rusqlite::Connection, Arc<Lock>),
    Postgres(Box<Session>),
}

/// The server to connect to again when a connection is lost. `None` for a file, whose connections are never lost.
pub(crate) type Source = Option<Arc<Server>>;

impl Connection {
    pub(crate) fn sql(&self) -> Sql<'_> {
        match self {
            Self::Sqlite(connection, _) => Sql::Sqlite(connection),
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

/// Runs `work` in one read-only transaction, so that everything it reads is of one revision.
pub(crate) fn with_read_transaction<T>(
    sql: Sql<'_>,
    work: impl FnOnce(Sql<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    begin_read(sql)?;
    let result = work(sql);
    // A read has nothing to commit.
    sql.execute_batch("ROLLBACK")?;
    result
}

fn begin_read(sql: Sql<'_>) -> Result<(), SqlError> {
    sql.execute_batch(match sql {
        Sql::Sqlite(_) => "BEGIN",
        Sql::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    })
}

/// Like [`with_read_transaction`], on an idle connection or else on a new one. Also returns the connection, if it is
/// still usable.
pub(crate) fn read_with_reconnect<T>(
    idle: Option<Connection>,
    source: &Source,
    work: impl FnOnce(Sql<'_>) -> Result<T, StoreError>,
) -> (Option<Connection>, Result<T, StoreError>) {
    // A connection that was cut while idle fails only now.
    let idle = idle.and_then(|idle| match begin_read(idle.sql()) {
        Err(error) if error.is_lost() => None,
        begun => Some(begun.map(|()| idle)),
    });
    let begun = idle.unwrap_or_else(|| {
        let connection = connect(source)?;
        begin_read(connection.sql())?;
        Ok(connection)
    });
    let connection = match begun {
        Ok(connection) => connection,
        Err(error) => return (None, Err(error.into())),
    };
    let result = work(connection.sql());
    let is_usable = connection.sql().execute_batch("ROLLBACK").is_ok();
    (is_usable.then_some(connection), result)
}

/// The connection that writes, one transaction at a time.
pub(crate) struct WriteConnection {
    source: Source,
    connection: Option<Connection>,
    /// Only for a file.
    watch: Option<FileWatch>,
}

impl WriteConnection {
    pub(crate) fn new(connection: Connection, source: Source, watch: Option<FileWatch>) -> Self {
        Self { source, connection: Some(connection), watch }
    }

    /// Begins a transaction. No other write transaction runs until it ends: SQLite has one writer, and in PostgreSQL it
    /// locks the position's row, so that the order of revisions is the order of commits over all replicas.
    pub(crate) fn begin(&mut self) -> Result<(), StoreError> {
        if let Some(watch) = &self.watch {
            watch.check_in_place()?;
        }
        Ok(self.begin_sql()?)
    }

    /// In a transaction that has begun: fails if another program (not a replica) has committed since the last one.
    pub(crate) fn check_sole_writer(&self) -> Result<(), StoreError> {
        match (&self.watch, &self.connection) {
            (Some(watch), Some(Connection::Sqlite(connection, _))) => watch.check_sole_writer(connection),
            (Some(_), Some(Connection::Postgres(_)) | None) | (None, _) => Ok(()),
        }
    }

    fn begin_sql(&mut self) -> Result<(), SqlError> {
        let begun = self.connection.as_ref().map(|connection| begin(connection.sql()));
        match begun {
            // Nothing has begun, so another connection can take over.
            Some(Err(error)) if error.is_lost() && self.source.is_some() => self.reconnect_and_begin(),
            None => self.reconnect_and_begin(),
            Some(begun) => begun,
        }
    }

    fn reconnect_and_begin(&mut self) -> Result<(), SqlError> {
        self.connection = None;
        let connection = connect(&self.source)?;
        begin(connection.sql())?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(crate) fn sql(&self) -> Result<Sql<'_>, SqlError> {
        let connection = self.connection.as_ref().map(Connection::sql);
        connection.ok_or_else(|| SqlError::Unreachable("the connection is lost".to_owned()))
    }

    /// Whether the transaction has ended: SQLite rolls it back on some errors, such as a full disk.
    pub(crate) fn has_ended(&self) -> bool {
        match &self.connection {
            Some(Connection::Sqlite(connection, _)) => connection.is_autocommit(),
            Some(Connection::Postgres(session)) => session.is_closed(),
            None => true,
        }
    }

    /// Commits the transaction. Notifies other replicas if it `moved` the position.
    pub(crate) fn commit(&mut self, moved: bool) -> Result<(), SqlError> {
        let sql = self.sql()?;
        let marker = if moved && self.source.is_some() { CommitMarker::of_transaction(sql)? } else { None };
        let committed = if marker.is_some() { commit_and_notify(sql) } else { sql.execute_batch("COMMIT") };
        if let (Ok(()), Some(watch), Sql::Sqlite(connection)) = (&committed, &self.watch, sql) {
            watch.record_commit(connection);
        }
        match (committed, &self.source) {
            (Err(error), Some(server)) if error.is_lost() => {
                self.connection = None;
                // A write without a revision can't be looked up. It may be committed; the caller may retry.
                marker.map_or(Err(error), |marker| commit_outcome(server, &marker))
            }
            (committed, _) => committed,
        }
    }

    /// Rolls the transaction back.
    pub(crate) fn roll_back(&mut self) -> Result<(), SqlError> {
        let rolled_back = if self.has_ended() { Ok(()) } else { self.sql()?.execute_batch("ROLLBACK") };
        if self.source.is_some() && (rolled_back.is_err() || self.has_ended()) {
            // The server rolls back the transaction of a closed connection.
            self.connection = None;
            return Ok(());
        }
        rolled_back
    }
}

fn begin(sql: Sql<'_>) -> Result<(), SqlError> {
    match sql {
        Sql::Sqlite(_) => sql.execute_batch("BEGIN IMMEDIATE"),
        Sql::Postgres(_) => {
            // Statements after the lock see all that was committed before it.
            sql.execute_batch("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")?;
            let locked = sql.query_row("SELECT 1 FROM position WHERE one = 1 FOR UPDATE", NONE, |_| Ok(()));
            if locked.is_err() {
                // Fails if the connection is lost; then nothing is left to roll back.
                let _ = sql.execute_batch("ROLLBACK");
            }
            locked
        }
    }
}

/// What proves that a transaction was committed: its newest audit event, which no other transaction has.
struct CommitMarker {
    revision: i64,
    hash: [u8; 32],
}

impl CommitMarker {
    fn of_transaction(sql: Sql<'_>) -> Result<Option<Self>, SqlError> {
        let newest = "SELECT revision, hash FROM audit_events ORDER BY revision DESC LIMIT 1";
        sql.query_row(newest, NONE, |row| Ok(Self { revision: row.get(0)?, hash: row.get(1)? })).optional()
    }

    fn is_committed(&self, sql: Sql<'_>) -> Result<bool, SqlError> {
        let hash = "SELECT hash FROM audit_events WHERE revision = ?1";
        let hash: Option<[u8; 32]> = sql.query_row(hash, params![self.revision], |row| row.get(0)).optional()?;
        Ok(hash == Some(self.hash))
    }
}

/// The outcome of a COMMIT whose answer was lost: it is looked up, never assumed. PostgreSQL's `txid_status` can't be
/// trusted: after a crash the server reuses the number of a transaction that was lost.
fn commit_outcome(server: &Server, marker: &CommitMarker) -> Result<(), SqlError> {
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let is_committed = loop {
        let found = server.connect_until(deadline).and_then(|session| {
            let sql = Sql::Postgres(&session);
            // Waits until the lost transaction, which holds the same lock, has ended.
            begin(sql)?;
            marker.is_committed(sql)
        });
        match found {
            Err(error) if error.is_lost() && Instant::now() < deadline => {}
            Err(error) => {
                return Err(SqlError::Unreachable(format!(
                    "the connection was lost during a commit, whose outcome is unknown: {error}"
                )));
            }
            Ok(is_committed) => break is_committed,
        }
    };
    if is_committed {
        Ok(())
    } else {
        Err(SqlError::Unreachable("the connection was lost before the commit".to_owned()))
    }
}
