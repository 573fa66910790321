//! The steps of an import: how they are stored, and how one is carried out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::wire::{KeyRecord, Op};
use policy::{Allowlist, Digest, Environment, KeyId, Revision, Scopes, UnixSeconds, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tracing::error;

use super::ImportedKey;
use crate::base::secret::LastCharacters;
use crate::store::history::audit::{Audited as _, Event};
use crate::store::history::changes::{Change, Write};
use crate::store::history::id_catalogue::IdCatalogue;
use crate::store::history::once;
use crate::store::records::{keys, secrets, workspaces};
use crate::store::{Actor, ChangeContext, Key, KeyUse, Metadata, NewKey, NewSecret, StoreError, WorkspaceName};

/// Keys of one step, which is one revision. A revision for each key would push everything else out of the log, and its
/// audit event would cost more than the key itself.
const KEYS_PER_STEP: usize = 100;

/// Bytes of JSON after which a step is full, so that its records for edges fit into a delta of the feed.
const STEP_BYTES: usize = 48 << 10;

/// The most bytes of keys that wait for a full step, over all workspaces.
const MAX_PENDING_BYTES: usize = 8 << 20;

/// A step as it is stored, with keys as [`StepKey`] or as their JSON. Later versions must be able to read it.
#[derive(Serialize, Deserialize)]
struct Step<K> {
    workspace: WorkspaceId,
    actor: Actor,
    at: UnixSeconds,
    address: Option<IpAddr>,
    request_id: Option<String>,
    /// The name of an import with an idempotency key.
    #[serde(default)]
    once: Option<[u8; 32]>,
    keys: Vec<K>,
}

/// Divides an import's keys into steps as they arrive. Each step has keys of one workspace.
pub(super) struct StepBuilder {
    context: ChangeContext,
    pending: BTreeMap<WorkspaceId, PendingKeys>,
    /// The bytes of all pending keys.
    bytes: usize,
}

/// Keys of one workspace that wait for a full step.
#[derive(Default)]
struct PendingKeys {
    keys: Vec<Box<RawValue>>,
    bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct StepKey {
    id: KeyId,
    name: String,
    environment: Environment,
    scopes: Scopes,
    allowlist: Allowlist,
    expires_at: Option<UnixSeconds>,
    metadata: Metadata,
    #[serde(default = "active_by_default")]
    active: bool,
    digest: [u8; 32],
    last_characters: String,
}

/// For a step that an older version stored.
fn active_by_default() -> bool {
    true
}

impl StepBuilder {
    pub(super) fn new(context: &ChangeContext) -> Self {
        Self { context: context.clone(), pending: BTreeMap::new(), bytes: 0 }
    }

    /// Adds a key. Returns a step if one is full now, or one that isn't full if too many bytes are pending.
    pub(super) fn add(&mut self, imported: ImportedKey) -> Result<Option<String>, StoreError> {
        let workspace = imported.workspace;
        let key = serde_json::value::to_raw_value(&StepKey::from(imported.key)).map_err(json_fault)?;
        let (pending, bytes) = (self.pending.entry(workspace).or_default(), key.get().len());
        pending.keys.push(key);
        pending.bytes = pending.bytes.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        if pending.keys.len() >= KEYS_PER_STEP || pending.bytes >= STEP_BYTES {
            return self.step(workspace);
        }
        if self.bytes <= MAX_PENDING_BYTES {
            return Ok(None);
        }
        let largest = self.pending.iter().max_by_key(|(_, pending)| pending.bytes).map(|(workspace, _)| *workspace);
        largest.map_or(Ok(None), |workspace| self.step(workspace))
    }

    /// After the last key: a step of pending keys; `None` if there are none left.
    pub(super) fn flush_next(&mut self) -> Result<Option<String>, StoreError> {
        let first = self.pending.keys().next().copied();
        first.map_or(Ok(None), |workspace| self.step(workspace))
    }

    #[cfg(test)]
    pub(super) fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// The pending keys of this workspace, as a step.
    fn step(&mut self, workspace: WorkspaceId) -> Result<Option<String>, StoreError> {
        let Some(PendingKeys { keys, bytes }) = self.pending.remove(&workspace) else { return Ok(None) };
        self.bytes = self.bytes.saturating_sub(bytes);
        let ChangeContext { actor, at, address, request_id, once } = self.context.clone();
        let once = once.map(|once| once.name.0);
        let step = Step { workspace, actor, at, address, request_id, once, keys };
        serde_json::to_string(&step).map(Some).map_err(json_fault)
    }
}

fn json_fault(error: serde_json::Error) -> StoreError {
    StoreError::Fault(error.to_string())
}

/// Creates the keys of a step, as one change with one revision and one event.
pub(super) fn carry_out(write: &Write<'_>, step: &str, catalogue: &IdCatalogue) -> Result<Revision, StoreError> {
    let step: Step<StepKey> = serde_json::from_str(step).map_err(|error| StoreError::Fault(error.to_string()))?;
    let (sql, Step { workspace, actor, at, address, request_id, once: name, keys }) = (write.sql(), step);
    let context = ChangeContext { actor, at, address, request_id, once: None };
    let change = Change::new(write, catalogue, &context);
    let slug = workspaces::find(sql, &WorkspaceName::Id(workspace))?.slug;
    let mut keys: Vec<_> = keys.into_iter().map(NewKey::from).collect();
    let taken = secrets::known(sql, keys.iter().map(|key| key.secret.digest))?;
    keys.retain(|new| {
        let is_taken = taken.contains(&new.secret.digest);
        if is_taken {
            // Only a bug can lead here. The import was already accepted, and a missing key grants nothing.
            error!(key.id = %new.id, "an imported digest already exists: the key is left out");
        }
        !is_taken
    });
    keys::insert(&change, workspace, &keys)?;
    let new: Vec<_> = keys.iter().map(|key| (key.id, &key.secret)).collect();
    secrets::insert(sql, workspace, &new, context.at)?;
    let ops = keys.iter().map(|key| Ok(Op::Upsert(record(key, workspace, &slug, catalogue)?)));
    let ops = ops.collect::<Result<Vec<_>, StoreError>>()?;
    let audited_keys: Vec<_> = keys.into_iter().map(|key| audited_key(key, workspace, &context)).collect();
    let after = Map::from_iter([("keys".to_owned(), Value::from(audited_keys))]);
    let revision = change.record(&Event::of_many("keys.import", workspace, after), &ops)?;
    if let Some(name) = name {
        once::record_revision(sql, Digest(name), revision)?;
    }
    Ok(revision)
}

/// A key's record for edges.
fn record(key: &NewKey, workspace: WorkspaceId, slug: &str, catalogue: &IdCatalogue) -> Result<KeyRecord, StoreError> {
    Ok(KeyRecord {
        digest: key.secret.digest,
        key: key.id,
        workspace,
        slug: slug.to_owned(),
        environment: catalogue.environment(key.environment.as_str())?,
        active: key.active,
        expires_at: key.expires_at.unwrap_or(UnixSeconds::DISTANT_FUTURE),
        superseded_at: UnixSeconds::DISTANT_FUTURE,
        grants: catalogue.grants(&key.scopes)?,
        allowlist: key.allowlist.clone(),
    })
}

/// A key in the audit event: the fields of a created key, and its id.
fn audited_key(new: NewKey, workspace: WorkspaceId, context: &ChangeContext) -> Value {
    let key = Key {
        id: new.id,
        workspace,
        name: new.name,
        environment: new.environment,
        last_characters: new.secret.last_characters,
        active: new.active,
        scopes: new.scopes,
        allowlist: new.allowlist,
        expires_at: new.expires_at,
        metadata: new.metadata,
        created_at: context.at,
        created_by: context.actor.id.clone(),
        updated_at: context.at,
        rotated_at: None,
        previous_until: None,
        used: KeyUse::default(),
        revision: Revision(0),
    };
    let mut fields = key.fields();
    fields.insert("id".to_owned(), json!(key.id));
    Value::Object(fields)
}

impl From<NewKey> for StepKey {
    fn from(key: NewKey) -> Self {
        let NewKey { id, name, environment, scopes, allowlist, expires_at, metadata, active, secret } = key;
        let NewSecret { digest, last_characters } = secret;
        let (digest, last_characters) = (digest.0, last_characters.0);
        Self { id, name, environment, scopes, allowlist, expires_at, metadata, active, digest, last_characters }
    }
}

impl From<StepKey> for NewKey {
    fn from(key: StepKey) -> Self {
        let StepKey { id, name, environment, scopes, allowlist, expires_at, metadata, .. } = key;
        let secret = NewSecret { digest: Digest(key.digest), last_characters: LastCharacters(key.last_characters) };
        Self { id, name, environment, scopes, allowlist, expires_at, metadata, active: key.active, secret }
    }
}
