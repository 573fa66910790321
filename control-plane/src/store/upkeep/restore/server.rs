//! Begins a new history in a PostgreSQL database that was restored from a backup, as for a restored file.

use std::path::Path;

use policy::{Epoch, Revision};

use super::compare::Loss;
use super::{
    History, LostChanges, RestoreError, RestorePlan, RestoreSummary, base_revision, begin_new_history, refuse_loss,
    replay,
};
use crate::store::db::postgres::{Server, display_url, is_idle, is_ours, prepare_uncommitted};
use crate::store::db::sql::{NONE, Sql, SqlError};
use crate::store::history::{audit, changes};
use crate::store::{NewSecret, StoreError};

/// Begins a new history in PostgreSQL, in one transaction. No control plane may serve from it. How the data got there
/// doesn't matter. `secret` generates secrets that nobody will know. Not for async threads.
pub fn restore_in_place(
    url: &str,
    password_file: Option<&Path>,
    what: &RestorePlan<'_>,
    secret: &mut dyn FnMut() -> Result<NewSecret, StoreError>,
) -> Result<RestoreSummary, RestoreError> {
    let database = display_url(url);
    let store = |cause: StoreError| RestoreError::Store { database: database.clone(), cause };
    let failed = |cause: SqlError| store(cause.into());
    let server = Server::at(url, password_file)?;
    let session = server.connect().map_err(|error| server.open_error(&error))?;
    let sql = Sql::Postgres(&session);
    // The transaction is idle while a log is read from disk.
    session.execute_batch("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0").map_err(failed)?;
    if !is_ours(sql).map_err(failed)? {
        return Err(RestoreError::NoDatabase { database });
    }
    // The server rolls back what isn't committed when the connection ends, however it ends.
    prepare_uncommitted(&session, &database, Epoch::from_bytes([0; 16]))?;
    if !is_idle(sql).map_err(failed)? {
        return Err(RestoreError::Served { database });
    }
    let backup = changes::position(sql).map_err(store)?;
    let head = audit::head(sql).map_err(store)?;
    let log = what.log.map(|path| {
        let broken = |cause| RestoreError::Log { path: path.to_owned(), cause };
        replay::read(path, backup.revision, head).map_err(broken)
    });
    let log = log.transpose()?;
    let covered = log.as_ref().and_then(|log| log.last()).unwrap_or(backup.revision).max(backup.revision);
    let reached = reached(sql).map_err(failed)?.into_iter().chain(what.reported).max();
    let reached = reached.map(|reached| reached.max(backup.revision));
    if what.lost_changes == LostChanges::Refused {
        let loss = match reached {
            None => Loss::Unknown { why: "no edge has reported a revision".to_owned() },
            Some(reached) if reached > covered => Loss::Some { reached, undone: String::new() },
            Some(_) => Loss::None,
        };
        refuse_loss(&database, sql, backup.revision, loss).map_err(|error| *error)?;
    }
    let history =
        History { backup: backup.revision, base_revision: base_revision(reached, covered), reached, log: log.as_ref() };
    let (revision, replayed) = begin_new_history(sql, what, None, &history, secret).map_err(store)?;
    sql.execute_batch("COMMIT").map_err(failed)?;
    Ok(RestoreSummary { backup: backup.revision, revision, reached, replayed, kept_as: None })
}

/// The highest revision above the database's own that edges have reported; `None` if there was none.
fn reached(sql: Sql<'_>) -> Result<Option<Revision>, SqlError> {
    let reported = "SELECT reported_revision FROM position WHERE one = 1";
    let reported = sql.query_row(reported, NONE, |row| row.get(0))?;
    Ok((reported > Revision(0)).then_some(reported))
}
