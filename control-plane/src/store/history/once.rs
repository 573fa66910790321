//! Idempotency: a change is made once however often it is requested, by a form's nonce or a request's idempotency key.
//!
//! The row is written in the change's own transaction, so a change and its row are both on disk or neither is. Across
//! several control planes on one PostgreSQL, this row decides which of two equal requests makes the change.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use policy::{Digest, Revision, UnixSeconds};

use super::retention::Removal;
use crate::store::db::sql::{Optional as _, Row, Sql, SqlError, params};
use crate::store::history::retention::{BATCH_ROWS, Progress, progress};
use crate::store::{Store, StoreError};

/// How long a row is kept: longer than any session can send its form, and than any client retries.
const RETENTION_SECS: i64 = 86_400;

/// Identifies a change that is made once. Not secret, because it has only digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnceKey {
    /// Of the form's nonce; or of the sender, the method, the path and the idempotency key of a request.
    pub name: Digest,
    /// Of the request's body; `None` for a form, or to look up a request whose body was not read yet.
    pub body: Option<Digest>,
}

/// The result of a change that is made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnceResult {
    pub revision: Revision,
    /// As in [`OnceKey`].
    pub body: Option<Digest>,
    /// Ids of the objects that were created or changed, in the order of the request.
    pub ids: Vec<String>,
}

/// The names of the requests that run in this process.
pub(crate) type RequestsInProgress = Arc<Mutex<HashSet<Digest>>>;

/// A request in flight. No other one with its name begins in this process until this is dropped.
pub struct OnceGuard {
    in_progress: RequestsInProgress,
    name: Digest,
}

impl Drop for OnceGuard {
    fn drop(&mut self) {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Store {
    /// Begins a request. `InProgress` while another one with this name runs in this process.
    pub fn begin_once(&self, once: OnceKey) -> Result<OnceGuard, StoreError> {
        let is_first = self.in_progress.lock().unwrap_or_else(PoisonError::into_inner).insert(once.name);
        let guard = || OnceGuard { in_progress: Arc::clone(&self.in_progress), name: once.name };
        if is_first { Ok(guard()) } else { Err(StoreError::InProgress) }
    }
}

/// Claims the name for this change. `AlreadyMade` if another one claimed it in the last day; this change is then rolled
/// back as a whole. `ids` are separated by spaces.
pub(crate) fn claim(
    sql: Sql<'_>,
    once: OnceKey,
    revision: Revision,
    ids: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let claimed = sql
        .prepare(
            "INSERT INTO made_once (nonce, body, revision, made, made_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (nonce) DO UPDATE SET body = excluded.body, revision = excluded.revision,
                 made = excluded.made, made_at = excluded.made_at
             WHERE made_once.made_at <= ?6",
        )?
        .execute(params![once.name, once.body, revision, ids, now, expiry_cutoff(now)])?;
    if claimed == 0 { Err(StoreError::AlreadyMade) } else { Ok(()) }
}

/// Records the newest revision of a change that has several.
pub(crate) fn record_revision(sql: Sql<'_>, name: Digest, revision: Revision) -> Result<(), StoreError> {
    sql.prepare("UPDATE made_once SET revision = ?2 WHERE nonce = ?1")?.execute(params![name, revision])?;
    Ok(())
}

pub(crate) fn find(sql: Sql<'_>, once: OnceKey, now: UnixSeconds) -> Result<Option<OnceResult>, StoreError> {
    let mut query = sql.prepare("SELECT revision, body, made FROM made_once WHERE nonce = ?1 AND made_at > ?2")?;
    Ok(query.query_row(params![once.name, expiry_cutoff(now)], read_result).optional()?)
}

fn read_result(row: &Row<'_>) -> Result<OnceResult, SqlError> {
    Ok(OnceResult {
        revision: row.get(0)?,
        body: row.get(1)?,
        ids: row.text(2)?.split(' ').filter(|id| !id.is_empty()).map(str::to_owned).collect(),
    })
}

/// Rows of this instant or earlier have expired.
fn expiry_cutoff(now: UnixSeconds) -> UnixSeconds {
    now.saturating_add_secs(-RETENTION_SECS)
}

/// Removes expired rows.
pub(crate) fn delete_expired(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let deleted = removal
        .sql()
        .prepare("DELETE FROM made_once WHERE nonce IN (SELECT nonce FROM made_once WHERE made_at <= ?1 LIMIT ?2)")?
        .execute(params![removal.older_than_secs(RETENTION_SECS), BATCH_ROWS])?;
    Ok(progress(deleted))
}
