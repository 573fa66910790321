//! Keys: their rows, and all changes of a key but those of its secret.

use policy::wire::Op;
use policy::{Allowlist, Environment, KeyId, Scopes, UnixSeconds, WorkspaceId};
use serde_json::{Map, Value, json};

use super::sizes::{self, WorkspaceSize};
use super::{names, secrets, usage};
use crate::base::instant;
use crate::store::db::sql::{Optional as _, Row, Sql, SqlError, params, values};
use crate::store::history::audit::{Audited, Event, EventTarget};
use crate::store::history::changes::Change;
use crate::store::history::key_records;
use crate::store::model::merge;
use crate::store::{
    AtRevision, ChangeContext, Key, KeyPatch, KeyUse, MAX_METADATA_BYTES, Metadata, NewSecret, Precondition, Store,
    StoreError,
};

/// A key to create, with its first secret.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub id: KeyId,
    pub name: String,
    pub environment: Environment,
    pub scopes: Scopes,
    pub allowlist: Allowlist,
    /// `None`: never.
    pub expires_at: Option<UnixSeconds>,
    pub metadata: Metadata,
    pub active: bool,
    pub secret: NewSecret,
}

/// The columns of a [`Key`], in the order that [`key`] reads them, from [`TABLES`].
pub(crate) const COLUMNS: &str = "k.id, k.workspace_id, k.name, k.environment,
    (SELECT s.last_characters FROM secrets s
     WHERE s.workspace_id = k.workspace_id AND s.key_id = k.id AND s.superseded_at IS NULL),
    k.active, k.scopes, k.ip_allowlist, k.expires_at, k.metadata, k.created_at, k.created_by, k.updated_at, k.rotated_at,
    (SELECT s.previous_until FROM secrets s
     WHERE s.workspace_id = k.workspace_id AND s.key_id = k.id AND s.previous_until IS NOT NULL),
    k.revision, u.last_used_at, u.last_used_ip, u.secret_last_used_at, u.previous_secret_last_used_at";

/// Keys, with their usage if there is any.
pub(crate) const TABLES: &str = "keys k LEFT JOIN key_usage u ON u.key_id = k.id";

impl Store {
    /// Creates a key in a workspace.
    pub async fn create_key(
        &self,
        workspace: WorkspaceId,
        new: NewKey,
        context: ChangeContext,
    ) -> Result<AtRevision<Key>, StoreError> {
        let limits = self.limits;
        let work = move |change: &Change<'_>| {
            let created = create(change, workspace, &new)?;
            WorkspaceSize::of(change.sql(), workspace)?.check(&limits)?;
            Ok(created)
        };
        self.change(context, work).await
    }

    /// The key with this id; `NotFound` if it is in another workspace or was deleted.
    pub async fn key(&self, workspace: WorkspaceId, id: KeyId) -> Result<Key, StoreError> {
        self.engine.read(move |sql| find(sql, workspace, id)).await
    }

    /// Replaces the fields that `patch` has. If nothing differs, no change is recorded.
    pub async fn update_key(
        &self,
        workspace: WorkspaceId,
        id: KeyId,
        patch: KeyPatch,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<Key>, StoreError> {
        let limits = self.limits;
        let work = move |change: &Change<'_>| {
            let before = find(change.sql(), workspace, id)?;
            let changed = update(change, (workspace, id), patch, &precondition)?;
            if sizes::grows(&before, &changed.value) {
                // The number of keys is not checked: an update creates none.
                WorkspaceSize { keys: 0, ..WorkspaceSize::of(change.sql(), workspace)? }.check(&limits)?;
            }
            Ok(changed)
        };
        self.change(context, work).await
    }

    /// Allows the key to be used.
    pub async fn activate_key(
        &self,
        workspace: WorkspaceId,
        id: KeyId,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<Key>, StoreError> {
        let work = move |change: &Change<'_>| set_active(change, (workspace, id), true, &precondition);
        self.change(context, work).await
    }

    /// Denies the key until it is activated.
    pub async fn deactivate_key(
        &self,
        workspace: WorkspaceId,
        id: KeyId,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<Key>, StoreError> {
        let work = move |change: &Change<'_>| set_active(change, (workspace, id), false, &precondition);
        self.change(context, work).await
    }

    /// Deletes the key for good. Its digests leave the edges immediately, and can't be used again for 365 days.
    pub async fn delete_key(
        &self,
        workspace: WorkspaceId,
        id: KeyId,
        precondition: Precondition,
        context: ChangeContext,
    ) -> Result<AtRevision<()>, StoreError> {
        self.change(context, move |change| delete(change, (workspace, id), &precondition)).await
    }
}

fn create(change: &Change<'_>, workspace: WorkspaceId, new: &NewKey) -> Result<AtRevision<Key>, StoreError> {
    insert(change, workspace, std::slice::from_ref(new))?;
    secrets::insert(change.sql(), workspace, &[(new.id, &new.secret)], change.at())?;
    let ops = key_records::upsert_live(change.sql(), change.catalogue(), (workspace, new.id))?;
    let value = find(change.sql(), workspace, new.id)?;
    let revision = change.record(&Event::created("key.create", &value), &ops)?;
    Ok(AtRevision { value, revision })
}

/// Adds the keys' rows, without their secrets.
pub(crate) fn insert(change: &Change<'_>, workspace: WorkspaceId, new: &[NewKey]) -> Result<(), StoreError> {
    let (sql, revision) = (change.sql(), change.revision()?);
    let row = |new: &NewKey| {
        Ok(values![
            workspace,
            new.id,
            new.name,
            new.environment,
            new.scopes,
            new.allowlist,
            new.expires_at,
            checked(&new.metadata)?,
            change.at(),
            change.context().actor.id,
            revision,
            names::fold_case(&new.name),
            new.active
        ])
    };
    let rows = new.iter().map(row).collect::<Result<Vec<_>, StoreError>>()?;
    sql.execute_each(
        "INSERT INTO keys (workspace_id, id, name, environment, active, scopes, ip_allowlist, expires_at, metadata,
                           created_at, created_by, updated_at, revision, folded_name)
         VALUES (?1, ?2, ?3, ?4, ?13, ?5, ?6, ?7, ?8, ?9, ?10, ?9, ?11, ?12)",
        rows,
    )?;
    sizes::count_keys(sql, workspace, i64::try_from(new.len()).unwrap_or(i64::MAX))
}

pub(crate) fn update(
    change: &Change<'_>,
    (workspace, id): (WorkspaceId, KeyId),
    patch: KeyPatch,
    precondition: &Precondition,
) -> Result<AtRevision<Key>, StoreError> {
    let before = find(change.sql(), workspace, id)?;
    precondition.check(before.revision)?;
    let mut after = before.clone();
    after.name = patch.name.unwrap_or(after.name);
    after.scopes = patch.scopes.unwrap_or(after.scopes);
    after.allowlist = patch.allowlist.unwrap_or(after.allowlist);
    match patch.metadata {
        Some(Value::Object(patch)) => merge(&mut after.metadata, &patch),
        Some(_) => after.metadata.clear(),
        None => {}
    }
    if after == before {
        return Ok(AtRevision { revision: before.revision, value: before });
    }
    change
        .sql()
        .prepare(
            "UPDATE keys SET name = ?3, scopes = ?4, ip_allowlist = ?5, metadata = ?6, updated_at = ?7, revision = ?8,
                 folded_name = ?9
             WHERE workspace_id = ?1 AND id = ?2",
        )?
        .execute(params![
            workspace,
            id,
            after.name,
            after.scopes,
            after.allowlist,
            checked(&after.metadata)?,
            change.at(),
            change.revision()?,
            names::fold_case(&after.name)
        ])?;
    // Edges get neither name nor metadata.
    let affects_edges = after.scopes != before.scopes || after.allowlist != before.allowlist;
    let ops = if affects_edges {
        key_records::upsert_live(change.sql(), change.catalogue(), (workspace, id))?
    } else {
        Vec::new()
    };
    record_update(change, "key.update", &before, &ops)
}

pub(crate) fn set_active(
    change: &Change<'_>,
    (workspace, id): (WorkspaceId, KeyId),
    active: bool,
    precondition: &Precondition,
) -> Result<AtRevision<Key>, StoreError> {
    let before = find(change.sql(), workspace, id)?;
    precondition.check(before.revision)?;
    if before.active == active {
        return Ok(AtRevision { revision: before.revision, value: before });
    }
    change
        .sql()
        .prepare("UPDATE keys SET active = ?3, updated_at = ?4, revision = ?5 WHERE workspace_id = ?1 AND id = ?2")?
        .execute(params![workspace, id, active, change.at(), change.revision()?])?;
    let ops = key_records::upsert_live(change.sql(), change.catalogue(), (workspace, id))?;
    record_update(change, if active { "key.activate" } else { "key.deactivate" }, &before, &ops)
}

pub(crate) fn delete(
    change: &Change<'_>,
    (workspace, id): (WorkspaceId, KeyId),
    precondition: &Precondition,
) -> Result<AtRevision<()>, StoreError> {
    let before = find(change.sql(), workspace, id)?;
    precondition.check(before.revision)?;
    change
        .sql()
        .prepare("UPDATE keys SET deleted_at = ?3, revision = ?4 WHERE workspace_id = ?1 AND id = ?2")?
        .execute(params![workspace, id, change.at(), change.revision()?])?;
    sizes::count_keys(change.sql(), workspace, -1)?;
    let digests = secrets::remove_from_edges(change.sql(), (workspace, id))?;
    usage::delete_key_usage(change.sql(), id)?;
    let ops: Vec<Op> = digests.into_iter().map(Op::Remove).collect();
    Ok(AtRevision { value: (), revision: change.record(&Event::ended("key.delete", &before), &ops)? })
}

/// Records a change of a key that was `before`; returns the changed key.
pub(crate) fn record_update(
    change: &Change<'_>,
    action: &'static str,
    before: &Key,
    ops: &[Op],
) -> Result<AtRevision<Key>, StoreError> {
    let value = find(change.sql(), before.workspace, before.id)?;
    let revision = change.record(&Event::changed(action, before, &value), ops)?;
    Ok(AtRevision { value, revision })
}

pub(crate) fn find(sql: Sql<'_>, workspace: WorkspaceId, id: KeyId) -> Result<Key, StoreError> {
    let statement =
        format!("SELECT {COLUMNS} FROM {TABLES} WHERE k.workspace_id = ?1 AND k.id = ?2 AND k.deleted_at IS NULL");
    let found = sql.prepare(&statement)?.query_row(params![workspace, id], key).optional()?;
    found.ok_or(StoreError::NotFound)
}

/// A row of [`COLUMNS`].
pub(crate) fn key(row: &Row<'_>) -> Result<Key, SqlError> {
    Ok(Key {
        id: row.get(0)?,
        workspace: row.get(1)?,
        name: row.get(2)?,
        environment: row.get(3)?,
        last_characters: row.get(4)?,
        active: row.get(5)?,
        scopes: row.get(6)?,
        allowlist: row.get(7)?,
        expires_at: row.get(8)?,
        metadata: row.get(9)?,
        created_at: row.get(10)?,
        created_by: row.get(11)?,
        updated_at: row.get(12)?,
        rotated_at: row.get(13)?,
        previous_until: row.get(14)?,
        used: KeyUse::read(row, [16, 17, 18, 19])?,
        revision: row.get(15)?,
    })
}

/// Metadata that isn't too large to be stored.
fn checked(metadata: &Metadata) -> Result<&Metadata, StoreError> {
    let bytes = serde_json::to_string(metadata).map_err(|error| StoreError::Fault(error.to_string()))?.len();
    if bytes > MAX_METADATA_BYTES { Err(StoreError::MetadataTooLarge { bytes }) } else { Ok(metadata) }
}

impl Audited for Key {
    fn target(&self) -> EventTarget {
        EventTarget { kind: "key", id: self.id.to_string(), name: self.name.clone() }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        Some(self.workspace)
    }

    fn fields(&self) -> Map<String, Value> {
        let fields = [
            ("name", json!(self.name)),
            ("environment", json!(self.environment)),
            ("last_characters", json!(self.last_characters.clone().into_option())),
            ("active", json!(self.active)),
            ("scopes", json!(self.scopes)),
            ("ip_allowlist", json!(self.allowlist)),
            ("expires_at", json!(self.expires_at.map(instant::text))),
            ("metadata", json!(self.metadata)),
            ("previous_secret_expires_at", json!(self.previous_until.map(instant::text))),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
