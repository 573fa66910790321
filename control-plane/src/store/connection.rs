//! A connection of one of the engines, its transactions, and what takes its place when it is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StoreError;
use super::file_watch::Watch;
use super::lock::Lock;
use super::postgres::{Server, Session};
use super::sql::{NONE, Optional as _, Sql, SqlError, params};

/// For how long it is asked what became of a COMMIT whose answer was lost.
const ASKED: Duration = Duration::from_secs(5);

pub(super) enum Connection {
    /// With the lock of its file, which is freed once the last of them is closed.
    #[expect(dead_code, reason = "the lock is held, not used")]
    Sqlite(rusqlite::Connection, Arc<Lock>),
    Postgres(Box<Session>),
}

/// Where others come from when connections are lost. Those of a file aren't.
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
    /// Of a file.
    watch: Option<Watch>,
}

impl Writing {
    pub(super) fn new(connection: Connection, source: Source, watch: Option<Watch>) -> Self {
        Self { source, connection: Some(connection), watch }
    }

    /// Begins a transaction. It is the only one until it ends: SQLite has one writer; in PostgreSQL it holds the position's row,
    /// so that the order of revisions is the order of commits over all replicas.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        if let Some(watch) = &self.watch {
            watch.is_placed()?;
        }
        Ok(self.begin_sql()?)
    }

    /// In a transaction that has begun: that nobody who shouldn't has committed since the last one. Replicas may.
    pub(super) fn is_sole(&self) -> Result<(), StoreError> {
        match (&self.watch, &self.connection) {
            (Some(watch), Some(Connection::Sqlite(connection, _))) => watch.is_sole(connection),
            (Some(_), Some(Connection::Postgres(_)) | None) | (None, _) => Ok(()),
        }
    }

    fn begin_sql(&mut self) -> Result<(), SqlError> {
        let begun = self.connection.as_ref().map(|connection| begin(connection.sql()));
        match begun {
            // Nothing has begun, so another one may do it.
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

    /// Whether the transaction is over: SQLite ends it by itself on some errors, such as a full disk.
    pub(super) fn has_ended(&self) -> bool {
        match &self.connection {
            Some(Connection::Sqlite(connection, _)) => connection.is_autocommit(),
            Some(Connection::Postgres(session)) => session.is_closed(),
            None => true,
        }
    }

    /// Ends the transaction and keeps what it did. Other replicas are told of it when it has moved the position.
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
                // What has no revision can't be looked for: it may be there, and whoever asked for it asks again.
                left.map_or(Err(error), |left| became_of(server, &left))
            }
            (committed, _) => committed,
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

fn begin(sql: Sql<'_>) -> Result<(), SqlError> {
    match sql {
        Sql::Sqlite(_) => sql.execute_batch("BEGIN IMMEDIATE"),
        Sql::Postgres(_) => {
            // What comes after the lock sees all that was committed before.
            sql.execute_batch("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")?;
            let locked = sql.query_row("SELECT 1 FROM position WHERE one = 1 FOR UPDATE", NONE, |_| Ok(()));
            if locked.is_err() {
                // Fails when the connection is lost, and then there is nothing to end.
                let _ = sql.execute_batch("ROLLBACK");
            }
            locked
        }
    }
}

/// What a transaction leaves behind when it is committed, and no other one does: its newest audit event.
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

/// What became of a COMMIT whose answer was lost: it is neither taken for done nor for undone, but looked for. PostgreSQL's
/// own word (`txid_status`) is none: after a crash it gives the number of a transaction that was lost to another one.
fn became_of(server: &Server, left: &Left) -> Result<(), SqlError> {
    let deadline = Instant::now() + ASKED;
    let is_there = loop {
        let asked = server.connect_until(deadline).and_then(|session| {
            let sql = Sql::Postgres(&session);
            // Waits for the end of that transaction, which holds the same lock.
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
