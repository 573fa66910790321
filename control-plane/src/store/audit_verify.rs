//! Whether a database's audit log is as it was written. Reads the file by itself, also while a control plane serves it.

use std::path::{Path, PathBuf};

use policy::{ChainHash, Revision};
use rusqlite::{Connection, OpenFlags};

use super::changes;
use super::schema::is_ours;
use super::{AuditHead, audit};

/// An audit log in which each event follows from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    pub events: u64,
    /// `None` when there is no event.
    pub head: Option<AuditHead>,
}

/// Why an audit log is not as it was written, or can't be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("database {path}: cannot read it: {cause}")]
    Read { path: PathBuf, cause: rusqlite::Error },
    #[error("database {path}: it has no audit log; name the file that `latchkey serve --database` names")]
    NotOurs { path: PathBuf },
    #[error(
        "database {path}: the audit event of revision {revision} does not follow from the one before it: it was changed or moved, or what stood before it was"
    )]
    Broken { path: PathBuf, revision: Revision },
    #[error(
        "database {path}: the audit log ends at revision {found}, and the last change is {expected}: its newest events were removed or moved"
    )]
    End { path: PathBuf, found: Revision, expected: Revision },
    #[error(
        "database {path}: no audit event has the hash {expected}: the log was rewritten, or this is another or an older database"
    )]
    Head { path: PathBuf, expected: ChainHash },
}

/// Checks the audit log of the database at `path`, from its first event on. `expected` is the hash of any event that was
/// noted elsewhere: without one, a history that was rewritten as a whole doesn't show. Costs a pass over the log.
pub fn verify_audit(path: &Path, expected: Option<ChainHash>) -> Result<Verified, VerifyError> {
    let failed = |cause| VerifyError::Read { path: path.to_owned(), cause };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(path, flags).map_err(failed)?;
    // One transaction: what a control plane writes meanwhile is not seen.
    let sql = sql.unchecked_transaction().map_err(failed)?;
    let has_log = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'audit_events'";
    if !is_ours(&sql).map_err(failed)? || sql.query_row(has_log, [], |row| row.get::<_, i64>(0)).map_err(failed)? == 0 {
        return Err(VerifyError::NotOurs { path: path.to_owned() });
    }
    let verified = chain(&sql, path, expected)?;
    let last = sql.query_row("SELECT revision FROM position WHERE one = 1", [], |row| row.get(0)).map_err(failed)?;
    let (found, expected) = (verified.head.map_or(Revision(0), |head| head.revision), changes::revision(last));
    if found == expected { Ok(verified) } else { Err(VerifyError::End { path: path.to_owned(), found, expected }) }
}

fn chain(sql: &Connection, path: &Path, expected: Option<ChainHash>) -> Result<Verified, VerifyError> {
    let failed = |cause| VerifyError::Read { path: path.to_owned(), cause };
    let mut statement =
        sql.prepare("SELECT revision, event, hash FROM audit_events ORDER BY revision").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut verified = Verified { events: 0, head: None };
    let mut is_found = expected.is_none_or(|expected| expected == audit::FIRST_HASH);
    while let Some(row) = rows.next().map_err(failed)? {
        let revision = changes::revision(row.get(0).map_err(failed)?);
        let event: String = row.get(1).map_err(failed)?;
        let hash = ChainHash(row.get(2).map_err(failed)?);
        let before = verified.head.map_or(audit::FIRST_HASH, |head| head.hash);
        if before.then(revision, event.as_bytes()) != hash {
            return Err(VerifyError::Broken { path: path.to_owned(), revision });
        }
        is_found |= expected == Some(hash);
        verified = Verified { events: verified.events.saturating_add(1), head: Some(AuditHead { revision, hash }) };
    }
    match expected {
        Some(expected) if !is_found => Err(VerifyError::Head { path: path.to_owned(), expected }),
        _ => Ok(verified),
    }
}
