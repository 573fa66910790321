//! Begins a new history in a PostgreSQL database that was restored from a backup, as for a restored file.

use std::path::Path;

use policy::{Epoch, Revision};

use super::compare::Loss;
use super::{History, LostChanges, Renewal, RestoreError, Restored, begin, refuse_loss, renew, replay};
use crate::store::postgres::{Server, is_idle, is_ours, prepare_uncommitted, shown};
use crate::store::sql::{NONE, Sql, SqlError};
use crate::store::{NewSecret, StoreError, audit, changes};

/// Begins a new history in PostgreSQL, in one transaction. No control plane may serve from it. How the data got there
/// doesn't matter. `secret` makes secrets that nobody will know. Not for async threads.
pub fn restore_in_place(
    url: &str,
    password_file: Option<&Path>,
    what: &Renewal<'_>,
    secret: &mut dyn FnMut() -> Result<NewSecret, StoreError>,
) -> Result<Restored, RestoreError> {
    let database = shown(url);
    let store = |cause: StoreError| RestoreError::Store { database: database.clone(), cause };
    let failed = |cause: SqlError| store(cause.into());
    let server = Server::at(url, password_file)?;
    let session = server.connect().map_err(|error| server.failed(&error))?;
    let sql = Sql::Postgres(&session);
    // The transaction is idle while a log is read from disk.
    session.execute_batch("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0").map_err(failed)?;
    if !is_ours(sql).map_err(failed)? {
        return Err(RestoreError::NothingThere { database });
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
            None => Loss::Unknown { why: "no edge has shown how far it came".to_owned() },
            Some(reached) if reached > covered => Loss::Some { reached, undone: String::new() },
            Some(_) => Loss::None,
        };
        refuse_loss(&database, sql, backup.revision, loss).map_err(|error| *error)?;
    }
    let history = History { backup: backup.revision, begin: begin(reached, covered), reached, log: log.as_ref() };
    let (revision, replayed) = renew(sql, what, None, &history, secret).map_err(store)?;
    sql.execute_batch("COMMIT").map_err(failed)?;
    Ok(Restored { backup: backup.revision, revision, reached, replayed, kept_as: None })
}

/// The highest revision that edges have presented beyond the database's own; `None` if there was none.
fn reached(sql: Sql<'_>) -> Result<Option<Revision>, SqlError> {
    let reported = "SELECT reported_revision FROM position WHERE one = 1";
    let reported = sql.query_row(reported, NONE, |row| row.get(0).map(changes::revision))?;
    Ok((reported > Revision(0)).then_some(reported))
}
