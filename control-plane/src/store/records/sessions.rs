//! Sessions of the console: who is signed in, by the digest of a random text that the browser keeps.

use policy::{Digest, UnixSeconds};

use super::tokens;
use crate::store::db::sql::{Optional as _, params};
use crate::store::history::changes::Write;
use crate::store::history::retention::{BATCH_ROWS, Progress, Removal, progress};
use crate::store::{AdminToken, Store, StoreError};

/// How long a session lasts without a request.
pub(crate) const SESSION_IDLE_SECS: i64 = 3_600;

/// How long a session lasts in any case.
pub const SESSION_SECS: i64 = 12 * 3_600;

/// How often a session's last use is recorded, so that not every request costs a write.
const USE_RECORD_INTERVAL_SECS: i64 = 60;

/// A session that hasn't ended. Whether its token is valid is for the caller to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Of the token that was used to sign in.
    pub token: Digest,
    /// The admin token with that digest, including revoked and expired ones; `None` for the token in the token file, or
    /// for one whose row was removed.
    pub admin_token: Option<AdminToken>,
    pub last_used_at: UnixSeconds,
}

impl Session {
    /// Whether its last use is due to be recorded.
    pub fn is_use_due(&self, now: UnixSeconds) -> bool {
        self.last_used_at.saturating_add_secs(USE_RECORD_INTERVAL_SECS).is_reached(now)
    }
}

impl Store {
    /// Opens a session for the holder of `token`. This is not a change: it has no revision and no audit event.
    pub async fn open_session(&self, session: Digest, token: Digest, now: UnixSeconds) -> Result<(), StoreError> {
        let open = move |write: &Write<'_>| {
            let mut insert = write
                .sql()
                .prepare("INSERT INTO sessions (digest, token, created_at, last_used_at) VALUES (?1, ?2, ?3, ?3)")?;
            insert.execute(params![session, token, now])?;
            Ok(())
        };
        self.engine.write(open).await
    }

    /// The session with this digest, if it has been neither idle nor open for too long.
    pub async fn session(&self, session: Digest, now: UnixSeconds) -> Result<Option<Session>, StoreError> {
        let idle = now.saturating_add_secs(-SESSION_IDLE_SECS);
        let old = now.saturating_add_secs(-SESSION_SECS);
        self.engine
            .read(move |sql| {
                let mut query = sql.prepare(
                    "SELECT token, last_used_at FROM sessions
                     WHERE digest = ?1 AND last_used_at > ?2 AND created_at > ?3",
                )?;
                let found = query.query_row(params![session, idle, old], |row| Ok((row.get(0)?, row.get(1)?)));
                let Some((token, last_used_at)) = found.optional()? else { return Ok(None) };
                let admin_token = tokens::find_digest(sql, token)?;
                Ok(Some(Session { token, admin_token, last_used_at }))
            })
            .await
    }

    /// Records that a session was used.
    pub async fn record_session_use(&self, session: Digest, now: UnixSeconds) -> Result<(), StoreError> {
        let update_use = move |write: &Write<'_>| {
            let mut update =
                write.sql().prepare("UPDATE sessions SET last_used_at = ?2 WHERE digest = ?1 AND last_used_at < ?2")?;
            update.execute(params![session, now])?;
            Ok(())
        };
        self.engine.write(update_use).await
    }

    /// Ends a session.
    pub async fn close_session(&self, session: Digest) -> Result<(), StoreError> {
        let close = move |write: &Write<'_>| {
            write.sql().prepare("DELETE FROM sessions WHERE digest = ?1")?.execute(params![session])?;
            Ok(())
        };
        self.engine.write(close).await
    }

    /// Ends all sessions that were opened with a token.
    pub async fn close_sessions_of(&self, token: Digest) -> Result<(), StoreError> {
        let close = move |write: &Write<'_>| {
            write.sql().prepare("DELETE FROM sessions WHERE token = ?1")?.execute(params![token])?;
            Ok(())
        };
        self.engine.write(close).await
    }
}

/// Removes expired sessions.
pub(crate) fn delete_expired(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    let idle = removal.older_than_secs(SESSION_IDLE_SECS);
    let old = removal.older_than_secs(SESSION_SECS);
    let deleted = removal
        .sql()
        .prepare(
            "DELETE FROM sessions WHERE digest IN (
                 SELECT digest FROM sessions WHERE last_used_at <= ?1 OR created_at <= ?2 LIMIT ?3)",
        )?
        .execute(params![idle, old, BATCH_ROWS])?;
    Ok(progress(deleted))
}
