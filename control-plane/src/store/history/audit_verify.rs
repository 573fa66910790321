//! Verification of a database's audit log, also while a control plane serves the database.

use policy::{ChainHash, Revision};
use rusqlite::OpenFlags;

use super::audit;
use crate::store::db::connection::with_read_transaction;
use crate::store::db::database::Database;
use crate::store::db::postgres::Server;
use crate::store::db::sql::{NONE, Sql};
use crate::store::{AuditHead, OpenError, StoreError};

/// An audit log whose chain of hashes is intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedLog {
    pub events: u64,
    /// `None` if there is no event.
    pub head: Option<AuditHead>,
}

/// Why an audit log isn't intact, or can't be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("database {database}: cannot read it: {cause}")]
    Read { database: String, cause: String },
    #[error("database {database}: it has no audit log; name the one that `latchkey serve --database` names")]
    NotOurs { database: String },
    #[error(
        "database {database}: the audit event of revision {revision} does not follow from the one before it: it or the one before it was changed or moved"
    )]
    Broken { database: String, revision: Revision },
    #[error(
        "database {database}: the audit log ends at revision {found}, and the last change is {expected}: its newest events were removed or moved"
    )]
    End { database: String, found: Revision, expected: Revision },
    #[error(
        "database {database}: no audit event has the hash {expected}: the log was rewritten, or this is another or an older database"
    )]
    Head { database: String, expected: ChainHash },
}

/// Verifies the audit log of a database from its first event on. `expected` is the hash of any event, stored
/// elsewhere: without it, a log that was rewritten as a whole isn't detected. Costs a pass over the log. Not for async
/// threads.
pub fn verify_audit(database: impl Into<Database>, expected: Option<ChainHash>) -> Result<VerifiedLog, VerifyError> {
    let database = database.into();
    let named = database.to_string();
    let failed = |cause: String| VerifyError::Read { database: named.clone(), cause };
    let outcome = match &database {
        Database::File(path) => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let sql = rusqlite::Connection::open_with_flags(path, flags).map_err(|error| failed(error.to_string()))?;
            with_read_transaction(Sql::Sqlite(&sql), |sql| check(sql, expected))
        }
        Database::Server { url, password_file } => {
            let server = Server::at(url.expose(), password_file.as_deref())?;
            let session = server.connect().map_err(|error| failed(error.to_string()))?;
            with_read_transaction(Sql::Postgres(&session), |sql| check(sql, expected))
        }
    };
    outcome_to_result(outcome, named)
}

/// Like [`verify_audit`], in a transaction that is already open. `named` is the database's name in errors.
pub(crate) fn verify_open(sql: Sql<'_>, named: &str) -> Result<VerifiedLog, VerifyError> {
    outcome_to_result(check(sql, None), named.to_owned())
}

fn outcome_to_result(outcome: Result<VerifyOutcome, StoreError>, database: String) -> Result<VerifiedLog, VerifyError> {
    match outcome {
        Ok(VerifyOutcome::Intact(verified)) => Ok(verified),
        Ok(VerifyOutcome::NotOurs) => Err(VerifyError::NotOurs { database }),
        Ok(VerifyOutcome::Broken { revision }) => Err(VerifyError::Broken { database, revision }),
        Ok(VerifyOutcome::End { found, expected }) => Err(VerifyError::End { database, found, expected }),
        Ok(VerifyOutcome::NoHead { expected }) => Err(VerifyError::Head { database, expected }),
        Err(cause) => Err(VerifyError::Read { database, cause: cause.to_string() }),
    }
}

/// The outcome of [`check`], without the name of the database.
enum VerifyOutcome {
    Intact(VerifiedLog),
    NotOurs,
    Broken { revision: Revision },
    End { found: Revision, expected: Revision },
    NoHead { expected: ChainHash },
}

/// Must run in one transaction, so that it sees nothing that a control plane writes meanwhile.
fn check(sql: Sql<'_>, expected: Option<ChainHash>) -> Result<VerifyOutcome, StoreError> {
    if !sql.has_audit_log()? {
        return Ok(VerifyOutcome::NotOurs);
    }
    let mut verified = VerifiedLog { events: 0, head: None };
    let mut broken = None;
    let mut is_found = expected.is_none_or(|expected| expected == audit::FIRST_HASH);
    sql.prepare("SELECT revision, event, hash FROM audit_events ORDER BY revision")?.each(NONE, |row| {
        let (revision, hash): (Revision, ChainHash) = (row.get(0)?, row.get(2)?);
        let before = verified.head.map_or(audit::FIRST_HASH, |head| head.hash);
        if broken.is_none() && before.then(revision, row.text(1)?.as_bytes()) != hash {
            broken = Some(revision);
        }
        is_found |= expected == Some(hash);
        verified = VerifiedLog { events: verified.events.saturating_add(1), head: Some(AuditHead { revision, hash }) };
        Ok::<(), StoreError>(())
    })?;
    if let Some(revision) = broken {
        return Ok(VerifyOutcome::Broken { revision });
    }
    if let Some(expected) = expected.filter(|_| !is_found) {
        return Ok(VerifyOutcome::NoHead { expected });
    }
    let found = verified.head.map_or(Revision(0), |head| head.revision);
    let last = "SELECT revision FROM position WHERE one = 1";
    let expected = sql.query_row(last, NONE, |row| row.get(0))?;
    Ok(if found == expected { VerifyOutcome::Intact(verified) } else { VerifyOutcome::End { found, expected } })
}
