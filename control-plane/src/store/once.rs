//! Changes that are made once however often they are requested, by a form's nonce or a request's idempotency key.
//!
//! The row is written in the change's own transaction, so a change and its row are both on disk or neither is. Across
//! several control planes on one PostgreSQL, this row decides which of two equal requests makes the change.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use policy::{Digest, KeyId, Revision, UnixSeconds};

use super::changes;
use super::retention::Removal;
use super::sql::{Optional as _, Row, Sql, SqlError, params};
use super::sweep::{Progress, STEP, progress};
use super::{Acting, Store, StoreError, import};

/// How long a row is kept: longer than any session can send its form, and than any client retries.
const KEPT_SECS: i64 = 86_400;

/// Identifies a change that is made once. Not secret: only digests are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    /// Of the form's nonce; or of the sender, the method, the path and the idempotency key of a request.
    pub name: Digest,
    /// Of what the request asks for; `None` for a form, or to look for a request whose body was not read yet.
    pub body: Option<Digest>,
}

/// The result of a change that is made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub revision: Revision,
    /// As in [`Once`].
    pub body: Option<Digest>,
    /// Ids of what was made or changed, in the order of the request.
    pub ids: Vec<String>,
}

/// The names of the requests that run in this process.
pub(super) type InProgress = Arc<Mutex<HashSet<Digest>>>;

/// A running request. No other one with its name begins in this process until this is dropped.
pub struct Running {
    in_progress: InProgress,
    name: Digest,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Store {
    /// Begins a request. `InProgress` while another one with this name runs in this process.
    pub fn begin_once(&self, once: Once) -> Result<Running, StoreError> {
        let is_first = self.in_progress.lock().unwrap_or_else(PoisonError::into_inner).insert(once.name);
        let running = || Running { in_progress: Arc::clone(&self.in_progress), name: once.name };
        if is_first { Ok(running()) } else { Err(StoreError::InProgress) }
    }

    /// The result of the change with this name; `None` if it was not made, or more than a day ago. An import that is
    /// still being carried out is finished first.
    pub async fn made_once(&self, once: Once, now: UnixSeconds) -> Result<Option<Made>, StoreError> {
        let read = move |sql: Sql<'_>| {
            let made = find(sql, once, now)?;
            let first = made.as_ref().and_then(|made| made.ids.first()?.parse::<KeyId>().ok());
            let is_pending = first.map_or(Ok(false), |first| import::is_under_way(sql, first))?;
            Ok::<_, StoreError>((made, is_pending))
        };
        let (made, is_pending) = self.engine.read(read).await?;
        if !is_pending {
            return Ok(made);
        }
        self.finish_imports(import::Haste::Paced).await?;
        self.engine.read(move |sql| find(sql, once, now)).await
    }
}

/// Claims the name for this change. `MadeBefore` if another one claimed it in the last day; this change is then rolled
/// back as a whole. `ids` are separated by spaces.
pub(super) fn claim(
    sql: Sql<'_>,
    once: Once,
    revision: Revision,
    ids: &str,
    acting: &Acting,
) -> Result<(), StoreError> {
    let claimed = sql
        .prepare(
            "INSERT INTO made_once (nonce, body, revision, made, made_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (nonce) DO UPDATE SET body = excluded.body, revision = excluded.revision,
                 made = excluded.made, made_at = excluded.made_at
             WHERE made_once.made_at <= ?6",
        )?
        .execute(params![
            once.name.0,
            once.body.map(|body| body.0),
            changes::number(revision)?,
            ids,
            acting.at.0,
            oldest(acting.at)
        ])?;
    if claimed == 0 { Err(StoreError::MadeBefore) } else { Ok(()) }
}

/// Records the newest revision of a change that takes several.
pub(super) fn reached(sql: Sql<'_>, name: Digest, revision: Revision) -> Result<(), StoreError> {
    sql.prepare("UPDATE made_once SET revision = ?2 WHERE nonce = ?1")?
        .execute(params![name.0, changes::number(revision)?])?;
    Ok(())
}

pub(super) fn find(sql: Sql<'_>, once: Once, now: UnixSeconds) -> Result<Option<Made>, StoreError> {
    let mut query = sql.prepare("SELECT revision, body, made FROM made_once WHERE nonce = ?1 AND made_at > ?2")?;
    Ok(query.query_row(params![once.name.0, oldest(now)], made).optional()?)
}

fn made(row: &Row<'_>) -> Result<Made, SqlError> {
    Ok(Made {
        revision: changes::revision(row.get(0)?),
        body: row.get::<Option<[u8; 32]>>(1)?.map(Digest),
        ids: row.text(2)?.split(' ').filter(|id| !id.is_empty()).map(str::to_owned).collect(),
    })
}

/// Rows of this instant or earlier have expired.
fn oldest(now: UnixSeconds) -> i64 {
    now.saturating_add_secs(-KEPT_SECS).0
}

/// Removes expired rows.
pub(super) fn forget(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let deleted = removal
        .sql()
        .prepare("DELETE FROM made_once WHERE nonce IN (SELECT nonce FROM made_once WHERE made_at <= ?1 LIMIT ?2)")?
        .execute(params![removal.older_than_secs(KEPT_SECS).0, STEP])?;
    Ok(progress(deleted))
}
