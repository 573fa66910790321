//! Transactions on a server: how they begin, and whether one was committed whose answer was lost.

use std::time::{Duration, Instant};

use policy::{ChainHash, Revision};

use super::Server;
use crate::store::db::sql::{NONE, Optional as _, Sql, SqlError, params};

/// How long to query the outcome of a COMMIT whose answer was lost.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Begins a transaction that writes, and locks the position's row until it ends.
pub(crate) fn begin_write(sql: Sql<'_>) -> Result<(), SqlError> {
    // Statements after the lock see all that was committed before it.
    sql.execute_batch("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")?;
    let locked = sql.query_row("SELECT 1 FROM position WHERE one = 1 FOR UPDATE", NONE, |_| Ok(()));
    if locked.is_err() {
        // Fails if the connection is lost; then nothing is left to roll back.
        let _ = sql.execute_batch("ROLLBACK");
    }
    locked
}

/// What proves that a transaction was committed: its newest audit event, which no other transaction has.
pub(crate) struct CommitMarker {
    revision: Revision,
    hash: ChainHash,
}

impl CommitMarker {
    pub(crate) fn of_transaction(sql: Sql<'_>) -> Result<Option<Self>, SqlError> {
        let newest = "SELECT revision, hash FROM audit_events ORDER BY revision DESC LIMIT 1";
        sql.query_row(newest, NONE, |row| Ok(Self { revision: row.get(0)?, hash: row.get(1)? })).optional()
    }

    fn is_committed(&self, sql: Sql<'_>) -> Result<bool, SqlError> {
        let hash = "SELECT hash FROM audit_events WHERE revision = ?1";
        let hash: Option<ChainHash> = sql.query_row(hash, params![self.revision], |row| row.get(0)).optional()?;
        Ok(hash == Some(self.hash))
    }
}

/// The outcome of a COMMIT whose answer was lost: it is looked up, never assumed. PostgreSQL's `txid_status` can't be
/// trusted: after a crash the server reuses the number of a transaction that was lost.
pub(crate) fn commit_outcome(server: &Server, marker: &CommitMarker) -> Result<(), SqlError> {
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let is_committed = loop {
        let found = server.connect_until(deadline).and_then(|session| {
            let sql = Sql::Postgres(&session);
            // Waits until the lost transaction, which holds the same lock, has ended.
            begin_write(sql)?;
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
