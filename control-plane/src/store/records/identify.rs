//! Identification of a secret or token by its digest, in all workspaces, valid or not.

use policy::{Digest, KeyId, UnixSeconds, WorkspaceId};

use super::tokens;
use crate::base::secret::LastCharacters;
use crate::store::db::sql::{Optional as _, Sql, params};
use crate::store::{AdminToken, EdgeToken, Status, Store, StoreError};

/// The object that a digest belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DigestOwner {
    Secret(SecretRecord),
    AdminToken(AdminToken),
    EdgeToken(EdgeToken),
}

/// A secret of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRecord {
    pub key: KeyId,
    pub workspace: WorkspaceId,
    pub name: String,
    pub last_characters: LastCharacters,
    pub status: SecretStatus,
    /// The status of the key; `None` if it was deleted.
    pub key_status: Option<Status>,
    pub created_at: UnixSeconds,
    /// When it stopped being the current one, or its key was deleted.
    pub ended_at: Option<UnixSeconds>,
}

/// The state of a secret in its key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretStatus {
    Current,
    /// Rotated out, but still valid: its overlap has not ended.
    Previous,
    RotatedOut,
    Deleted,
}

impl DigestOwner {
    /// The workspace that it belongs to; `None` if it belongs to the platform.
    pub fn workspace(&self) -> Option<WorkspaceId> {
        match self {
            Self::Secret(secret) => Some(secret.workspace),
            Self::AdminToken(token) => token.role.workspace(),
            Self::EdgeToken(_) => None,
        }
    }
}

impl Store {
    /// The owner of this digest; `None` if there is none, or if its row was removed. Costs at most three look-ups.
    pub async fn identify(&self, digest: Digest, now: UnixSeconds) -> Result<Option<DigestOwner>, StoreError> {
        self.engine.read(move |sql| identify(sql, digest, now)).await
    }
}

fn identify(sql: Sql<'_>, digest: Digest, now: UnixSeconds) -> Result<Option<DigestOwner>, StoreError> {
    if let Some(secret) = secret(sql, digest, now)? {
        return Ok(Some(DigestOwner::Secret(secret)));
    }
    if let Some(token) = tokens::find_digest(sql, digest)? {
        return Ok(Some(DigestOwner::AdminToken(token)));
    }
    Ok(tokens::find_digest(sql, digest)?.map(DigestOwner::EdgeToken))
}

fn secret(sql: Sql<'_>, digest: Digest, now: UnixSeconds) -> Result<Option<SecretRecord>, StoreError> {
    let mut statement = sql.prepare(
        "SELECT s.key_id, s.workspace_id, k.name, s.last_characters, s.created_at, s.superseded_at, s.previous_until,
                k.deleted_at, k.active, k.expires_at
         FROM secrets s JOIN keys k ON k.workspace_id = s.workspace_id AND k.id = s.key_id
         WHERE s.digest = ?1",
    )?;
    let found = statement.query_row(params![digest], |row| {
        let (superseded_at, previous_until): (_, Option<UnixSeconds>) = (row.get(5)?, row.get(6)?);
        let deleted_at: Option<UnixSeconds> = row.get(7)?;
        let is_expired = row.get::<Option<UnixSeconds>>(9)?.is_some_and(|at| at.is_reached(now));
        let status = match (deleted_at, superseded_at, previous_until) {
            (Some(_), _, _) => SecretStatus::Deleted,
            (None, None, _) => SecretStatus::Current,
            (None, Some(_), Some(until)) if !until.is_reached(now) => SecretStatus::Previous,
            (None, Some(_), _) => SecretStatus::RotatedOut,
        };
        Ok(SecretRecord {
            key: row.get(0)?,
            workspace: row.get(1)?,
            name: row.get(2)?,
            last_characters: row.get(3)?,
            status,
            key_status: deleted_at.is_none().then_some(Status::of(row.get(8)?, is_expired)),
            created_at: row.get(4)?,
            ended_at: superseded_at.or(deleted_at),
        })
    });
    Ok(found.optional()?)
}
