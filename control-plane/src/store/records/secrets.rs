//! Secrets of keys, by their digests: rotation, overlap, and what happens to the old ones.

use std::collections::HashSet;

use policy::wire::Op;
use policy::{Digest, KeyId, UnixSeconds, WorkspaceId};

use super::{keys, usage};
use crate::base::secret::{LastCharacters, Secret};
use crate::store::db::sql::{Optional as _, Sql, params, values};
use crate::store::history::changes::Change;
use crate::store::history::id_catalogue::IdCatalogue;
use crate::store::history::key_records;
use crate::store::{AtRevision, ChangeContext, Key, Precondition, ROTATED_AT_EDGE, Store, StoreError};

/// What is stored of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSecret {
    pub digest: Digest,
    pub last_characters: LastCharacters,
}

/// What happens to a key's secrets when it gets a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The current one ends now, and so does a previous one.
    EndAll,
    /// The current one becomes the previous one, and ends after `secs` seconds. An older previous one ends now.
    Overlap { secs: i64 },
    /// The current one ends now; a previous one stays valid until its own end.
    Replace,
}

impl From<&Secret> for NewSecret {
    fn from(secret: &Secret) -> Self {
        Self { digest: secret.digest(), last_characters: secret.last_characters() }
    }
}

impl Store {
    /// Gives the key a new secret; `rotation` decides what happens to those that it has.
    pub async fn rotate_key(
        &self,
        workspace: WorkspaceId,
        id: KeyId,
        secret: NewSecret,
        rotation: Rotation,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<Key>, StoreError> {
        let work = move |change: &Change<'_>| rotate(change, (workspace, id), (&secret, rotation), &precondition);
        self.change(context, work).await
    }

    /// Ends the previous secret early. If there is none, no change is recorded.
    pub async fn end_overlap(
        &self,
        workspace: WorkspaceId,
        id: KeyId,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<Key>, StoreError> {
        let work = move |change: &Change<'_>| end_overlap(change, (workspace, id), &precondition);
        self.change(context, work).await
    }
}

pub(crate) fn rotate(
    change: &Change<'_>,
    (workspace, id): (WorkspaceId, KeyId),
    (secret, rotation): (&NewSecret, Rotation),
    precondition: &Precondition,
) -> Result<AtRevision<Key>, StoreError> {
    let sql = change.sql();
    let before = keys::find(sql, workspace, id)?;
    precondition.check(before.revision)?;
    if before.is_expired(change.at()) {
        return Err(StoreError::ExpiredKey);
    }
    let (older, overlap_secs) = match rotation {
        Rotation::Replace => (None, None),
        // A key has at most one previous secret: the older one is rotated out, and is no longer live.
        Rotation::EndAll => (rotate_out_previous(sql, (workspace, id), change.at())?, None),
        Rotation::Overlap { secs } => (rotate_out_previous(sql, (workspace, id), change.at())?, Some(secs)),
    };
    let current: Digest = sql
        .prepare(
            "UPDATE secrets SET superseded_at = ?3, previous_until = ?4
             WHERE workspace_id = ?1 AND key_id = ?2 AND superseded_at IS NULL RETURNING digest",
        )?
        .query_row(
            params![workspace, id, change.at(), overlap_secs.map(|secs| change.at().saturating_add_secs(secs))],
            |row| row.get(0),
        )?;
    if overlap_secs.is_some() {
        usage::begin_overlap(sql, id)?;
    }
    insert(sql, workspace, &[(id, secret)], change.at())?;
    sql.prepare("UPDATE keys SET rotated_at = ?3, updated_at = ?3, revision = ?4 WHERE workspace_id = ?1 AND id = ?2")?
        .execute(params![workspace, id, change.at(), change.revision()?])?;
    let touched = [Some(secret.digest), Some(current), older];
    let mut ops = upsert_each(sql, change.catalogue(), touched.into_iter().flatten())?;
    ops.extend(remove_oldest_from_edges(sql, (workspace, id))?.into_iter().map(Op::Remove));
    keys::record_update(change, "key.rotate", &before, &ops)
}

pub(crate) fn end_overlap(
    change: &Change<'_>,
    (workspace, id): (WorkspaceId, KeyId),
    precondition: &Precondition,
) -> Result<AtRevision<Key>, StoreError> {
    let sql = change.sql();
    let key = keys::find(sql, workspace, id)?;
    precondition.check(key.revision)?;
    if key.previous_secret_expires_at(change.at()).is_none() {
        return Ok(AtRevision { revision: key.revision, value: key });
    }
    let ended = rotate_out_previous(sql, (workspace, id), change.at())?;
    sql.prepare("UPDATE keys SET updated_at = ?3, revision = ?4 WHERE workspace_id = ?1 AND id = ?2")?
        .execute(params![workspace, id, change.at(), change.revision()?])?;
    keys::record_update(change, "key.end-overlap", &key, &upsert_each(sql, change.catalogue(), ended)?)
}

/// Rotates out the previous secret, if there is one: as of now, or as of the end of its overlap if that is earlier.
fn rotate_out_previous(
    sql: Sql<'_>,
    (workspace, id): (WorkspaceId, KeyId),
    now: UnixSeconds,
) -> Result<Option<Digest>, StoreError> {
    usage::end_overlap(sql, id)?;
    let ended = sql
        .prepare(
            "UPDATE secrets SET superseded_at = CASE WHEN previous_until < ?3 THEN previous_until ELSE ?3 END,
                 previous_until = NULL
             WHERE workspace_id = ?1 AND key_id = ?2 AND previous_until IS NOT NULL RETURNING digest",
        )?
        .query_row(params![workspace, id, now], |row| row.get(0));
    Ok(ended.optional()?)
}

/// Adds current secrets of different keys. `SecretTaken` if one of them is known already, in any workspace.
pub(crate) fn insert(
    sql: Sql<'_>,
    workspace: WorkspaceId,
    secrets: &[(KeyId, &NewSecret)],
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let row = |(id, secret): &(KeyId, &NewSecret)| values![secret.digest, workspace, id, secret.last_characters, now];
    let inserted = sql.execute_each(
        "INSERT INTO secrets (digest, workspace_id, key_id, last_characters, created_at, at_edge)
         VALUES (?1, ?2, ?3, ?4, ?5, 1) ON CONFLICT (digest) DO NOTHING",
        secrets.iter().map(row),
    )?;
    if inserted < secrets.len() {
        return Err(StoreError::SecretTaken);
    }
    usage::set_current_secrets(sql, workspace, secrets.iter().map(|(id, secret)| (*id, secret.digest)))
}

/// Those of these digests that any key has had, in any workspace. A deleted key's count until they are removed.
pub(crate) fn known(sql: Sql<'_>, digests: impl IntoIterator<Item = Digest>) -> Result<HashSet<Digest>, StoreError> {
    let mut known = HashSet::new();
    sql.each_in("SELECT digest FROM secrets WHERE digest IN (?1)", digests, |row| {
        known.insert(row.get(0)?);
        Ok::<_, StoreError>(())
    })?;
    Ok(known)
}

/// Removes all of a key's digests from the edges; returns those that were there.
pub(crate) fn remove_from_edges(
    sql: Sql<'_>,
    (workspace, id): (WorkspaceId, KeyId),
) -> Result<Vec<Digest>, StoreError> {
    let mut statement = sql.prepare(
        "UPDATE secrets SET at_edge = 0 WHERE workspace_id = ?1 AND key_id = ?2 AND at_edge = 1 RETURNING digest",
    )?;
    let digests = statement.query_map(params![workspace, id], |row| row.get(0))?;
    Ok(digests)
}

/// Removes all but the newest of a key's rotated-out digests from the edges, and returns them: a rotation is never
/// refused, so their number must be limited.
fn remove_oldest_from_edges(sql: Sql<'_>, (workspace, id): (WorkspaceId, KeyId)) -> Result<Vec<Digest>, StoreError> {
    let mut statement = sql.prepare(
        "UPDATE secrets SET at_edge = 0 WHERE digest IN (
             SELECT digest FROM secrets
             WHERE workspace_id = ?1 AND key_id = ?2 AND at_edge = 1
                 AND superseded_at IS NOT NULL AND previous_until IS NULL
             ORDER BY superseded_at DESC, created_at DESC, digest LIMIT ?3 OFFSET ?4)
         RETURNING digest",
    )?;
    let digests = statement.query_map(params![workspace, id, i64::MAX, ROTATED_AT_EDGE], |row| row.get(0))?;
    Ok(digests)
}

fn upsert_each(
    sql: Sql<'_>,
    catalogue: &IdCatalogue,
    digests: impl IntoIterator<Item = Digest>,
) -> Result<Vec<Op>, StoreError> {
    digests.into_iter().filter_map(|digest| key_records::upsert(sql, catalogue, digest).transpose()).collect()
}
