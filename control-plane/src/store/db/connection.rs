//! A connection of one of the engines, its transactions, and its replacement when it is lost.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use policy::Epoch;

use super::database::Database;
use super::file_watch::FileWatch;
use super::lock::{Lock, OpenError};
use super::postgres::Server;
use super::postgres::notifications::commit_and_notify;
use super::postgres::transaction::{CommitMarker, commit_outcome};
use super::sql::{Session, Sql, SqlError};
use super::sqlite_schema::{open_reader, open_writer};
use crate::store::StoreError;

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

/// The connections to a database that was opened.
pub(crate) struct Connections {
    pub(crate) writer: WriteConnection,
    /// On a server, connections that read are opened when they are needed.
    pub(crate) readers: Vec<Connection>,
    pub(crate) source: Source,
}

impl Connections {
    /// Opens the database, with so many `readers`. A new one gets `epoch`; an existing one has its own. Sets
    /// `has_foreign_commits` when another program commits to its file.
    pub(crate) fn open(
        database: &Database,
        epoch: Epoch,
        readers: u32,
        has_foreign_commits: Arc<AtomicBool>,
    ) -> Result<Self, OpenError> {
        let (connection, readers, source, watch) = match database {
            Database::File(path) => {
                let lock = Arc::new(Lock::acquire(path)?);
                let writer = open_writer(&lock, epoch)?;
                let reader = |_| open_reader(&lock).map(|reader| Connection::Sqlite(reader, Arc::clone(&lock)));
                let readers = (0..readers).map(reader).collect::<Result<_, _>>()?;
                let watch = FileWatch::begin(Arc::clone(&lock), &writer, has_foreign_commits)?;
                (Connection::Sqlite(writer, lock), readers, None, Some(watch))
            }
            Database::Server { url, password_file } => {
                let (server, session) = Server::open(url.expose(), password_file.as_deref(), epoch)?;
                (Connection::Postgres(Box::new(session)), Vec::new(), Some(Arc::new(server)), None)
            }
        };
        let writer = WriteConnection { source: source.clone(), connection: Some(connection), watch };
        Ok(Self { writer, readers, source })
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
    sql.begin_read()?;
    let result = work(sql);
    // A read has nothing to commit.
    sql.execute_batch("ROLLBACK")?;
    result
}

/// Like [`with_read_transaction`], on an idle connection or else on a new one. Also returns the connection, if it is
/// still usable.
pub(crate) fn read_with_reconnect<T>(
    idle: Option<Connection>,
    source: &Source,
    work: impl FnOnce(Sql<'_>) -> Result<T, StoreError>,
) -> (Option<Connection>, Result<T, StoreError>) {
    // A connection that was cut while idle fails only now.
    let idle = idle.and_then(|idle| match idle.sql().begin_read() {
        Err(error) if error.is_lost() => None,
        begun => Some(begun.map(|()| idle)),
    });
    let begun = idle.unwrap_or_else(|| {
        let connection = connect(source)?;
        connection.sql().begin_read()?;
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
        let begun = self.connection.as_ref().map(|connection| connection.sql().begin_write());
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
        connection.sql().begin_write()?;
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
