//! A connection of one of the engines, its transactions, and its replacement when it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StoreError;
use super::file_watch::Watch;
use super::lock::Lock;
use super::postgres::{Server, Session};
use super::sql::{NONE, Optional as _, Sql, SqlError, params};

/// How long to keep asking for the outcome of a COMMIT whose answer was lost.
const ASKED: Duration = Duration::from_secs(5);

pub(super) enum Connection {
    /// With the lock of its file, which is released when the last connection is closed.
    #[expect(dead_code, reason = "the lock is held, not used")]
    Sqlite(rusqlite::Connection, Arc<Lock>),
    Postgres(Box<Session>),
}

/// Where new connections come from when one is lost. `None` for a file, whose connections are never lost.
pub(super) type Source = Option<Arc<Server>>;

impl Connection {
    pub(super) fn sql(&self) -> Sql<'_> {
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

/// Runs `work` in one read-only transaction, so that all it sees is of one revision.
pub(super) fn reading<T>(sql: Sql<'_>, work: impl FnOnce(Sql<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
    begin_reading(sql)?;
    let result = work(sql);
    // A read has nothing to commit.
    sql.execute_batch("ROLLBACK")?;
    result
}

fn begin_reading(sql: Sql<'_>) -> Result<(), SqlError> {
    sql.execute_batch(match sql {
        Sql::Sqlite(_) => "BEGIN",
        Sql::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    })
}

/// The same on an idle connection, or else on a new one. Also returns the connection, if it is still usable.
pub(super) fn reading_anew<T>(
    idle: Option<Connection>,
    source: &Source,
    work: impl FnOnce(Sql<'_>) -> Result<T, StoreError>,
) -> (Option<Connection>, Result<T, StoreError>) {
    // A connection that was cut while idle fails only now.
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

/// The connection that writes, one transaction at a time.
pub(super) struct Writing {
    source: Source,
    connection: Option<Connection>,
    /// Only for a file.
    watch: Option<Watch>,
}

impl Writing {
    pub(super) fn new(connection: Connection, source: Source, watch: Option<Watch>) -> Self {
        Self { source, connection: Some(connection), watch }
    }

    /// Begins a transaction. No other write transaction runs until it ends: SQLite has one writer, and in PostgreSQL it
    /// locks the position's row, so that the order of revisions is the order of commits over all replicas.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        if let Some(watch) = &self.watch {
            watch.is_placed()?;
        }
        Ok(self.begin_sql()?)
    }

    /// In a transaction that has begun: fails if another program (not a replica) has committed since the last one.
    pub(super) fn is_sole(&self) -> Result<(), StoreError> {
        match (&self.watch, &self.connection) {
            (Some(watch), Some(Connection::Sqlite(connection, _))) => watch.is_sole(connection),
            (Some(_), Some(Connection::Postgres(_)) | None) | (None, _) => Ok(()),
        }
    }

    fn begin_sql(&mut self) -> Result<(), SqlError> {
        let begun = self.connection.as_ref().map(|connection| begin(connection.sql()));
        match begun {
            // Nothing has begun, so another connection can take over.
            Some(Err(error)) if error.is_lost() && self.source.is_some() => self.begin_anew(),
            None => self.begin_anew(),
            Some(begun) => begun,
        }
    }

    fn begin_anew(&mut self) -> Result<(), SqlError> {
        self.connection = None;
        let connection = connect(&self.source)?;
        begin(connection.sql())?;
        self.connection = Some(connection);
        Ok(())
    }

    pub(super) fn sql(&self) -> Result<Sql<'_>, SqlError> {
        let connection = self.connection.as_ref().map(Connection::sql);
        connection.ok_or_else(|| SqlError::Unreachable("the connection is lost".to_owned()))
    }

    /// Whether the transaction has ended: SQLite rolls it back on some errors, such as a full disk.
    pub(super) fn has_ended(&self) -> bool {
        match &self.connection {
            Some(Connection::Sqlite(connection, _)) => connection.is_autocommit(),
            Some(Connection::Postgres(session)) => session.is_closed(),
            None => true,
        }
    }

    /// Commits the transaction. Notifies other replicas if it has `moved` the position.
    pub(super) fn commit(&mut self, moved: bool) -> Result<(), SqlError> {
        let sql = self.sql()?;
        let left = if moved && self.source.is_some() { Left::by(sql)? } else { None };
        let committed = sql.execute_batch(if left.is_some() { "NOTIFY latchkey; COMMIT" } else { "COMMIT" });
        if let (Ok(()), Some(watch), Sql::Sqlite(connection)) = (&committed, &self.watch, sql) {
            watch.committed(connection);
        }
        match (committed, &self.source) {
            (Err(error), Some(server)) if error.is_lost() => {
                self.connection = None;
                // A write without a revision can't be looked for. It may be committed; the caller may retry.
                left.map_or(Err(error), |left| became_of(server, &left))
            }
            (committed, _) => committed,
        }
    }

    /// Rolls the transaction back.
    pub(super) fn roll_back(&mut self) -> Result<(), SqlError> {
        let undone = if self.has_ended() { Ok(()) } else { self.sql()?.execute_batch("ROLLBACK") };
        if self.source.is_some() && (undone.is_err() || self.has_ended()) {
            // The server rolls back the transaction of a closed connection.
            self.connection = None;
            return Ok(());
        }
        undone
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

/// What only this transaction leaves behind when it is committed: its newest audit event.
struct Left {
    revision: i64,
    hash: [u8; 32],
}

impl Left {
    fn by(sql: Sql<'_>) -> Result<Option<Self>, SqlError> {
        let newest = "SELECT revision, hash FROM audit_events ORDER BY revision DESC LIMIT 1";
        sql.query_row(newest, NONE, |row| Ok(Self { revision: row.get(0)?, hash: row.get(1)? })).optional()
    }

    fn is_there(&self, sql: Sql<'_>) -> Result<bool, SqlError> {
        let hash = "SELECT hash FROM audit_events WHERE revision = ?1";
        let hash: Option<[u8; 32]> = sql.query_row(hash, params![self.revision], |row| row.get(0)).optional()?;
        Ok(hash == Some(self.hash))
    }
}

/// The outcome of a COMMIT whose answer was lost: it is looked up, never assumed. PostgreSQL's `txid_status` can't be
/// trusted: after a crash the server reuses the number of a transaction that was lost.
fn became_of(server: &Server, left: &Left) -> Result<(), SqlError> {
    let deadline = Instant::now() + ASKED;
    let is_there = loop {
        let asked = server.connect_until(deadline).and_then(|session| {
            let sql = Sql::Postgres(&session);
            // Waits until the lost transaction, which holds the same lock, has ended.
            begin(sql)?;
            left.is_there(sql)
        });
        match asked {
            Err(error) if error.is_lost() && Instant::now() < deadline => {}
            Err(error) => {
                return Err(SqlError::Unreachable(format!(
                    "the connection was lost at a commit, which may have been carried out: {error}"
                )));
            }
            Ok(is_there) => break is_there,
        }
    };
    if is_there { Ok(()) } else { Err(SqlError::Unreachable("the connection was lost before the commit".to_owned())) }
}
