//! Changes that are made once, however often their form is sent.

use policy::{Digest, Revision};

use super::changes::{self, Change};
use super::sessions::SESSION_SECS;
use super::sql::{Optional as _, Sql, params};
use super::sweep::{Progress, STEP, progress};
use super::{Acting, Store, StoreError};

/// Names one sending of a form, by the digest of its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once(pub Digest);

impl Store {
    /// The revision that a form led to; `None` when it led to none yet.
    pub async fn made_once(&self, once: Once) -> Result<Option<Revision>, StoreError> {
        self.engine.read(move |sql| find(sql, once)).await
    }
}

/// Makes a change the only one of its form. Refused when there was one: the change is then rolled back as a whole.
pub(super) fn claim(sql: Sql<'_>, once: Once, revision: Revision, acting: &Acting) -> Result<(), StoreError> {
    let inserted = sql
        .prepare("INSERT INTO made_once (nonce, revision, made_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![once.0.0, changes::number(revision)?, acting.at.0])?;
    if inserted == 0 { Err(StoreError::MadeBefore) } else { Ok(()) }
}

fn find(sql: Sql<'_>, once: Once) -> Result<Option<Revision>, StoreError> {
    let mut query = sql.prepare("SELECT revision FROM made_once WHERE nonce = ?1")?;
    Ok(query.query_row(params![once.0.0], |row| row.get(0).map(changes::revision)).optional()?)
}

/// Nonces of forms that no session can send any more go.
pub(super) fn forget(change: &Change<'_>, acting: &Acting) -> Result<Progress, StoreError> {
    let old = acting.at.saturating_add_secs(-SESSION_SECS);
    let deleted = change
        .sql()
        .prepare("DELETE FROM made_once WHERE nonce IN (SELECT nonce FROM made_once WHERE made_at <= ?1 LIMIT ?2)")?
        .execute(params![old.0, STEP])?;
    Ok(progress(deleted))
}
