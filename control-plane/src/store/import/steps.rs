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
use crate::secret::LastCharacters;
use crate::store::audit::{Audited as _, Event};
use crate::store::changes::Change;
use crate::store::definitions::Numbers;
use crate::store::{
    Acting, Actor, Key, KeyUse, Metadata, NewKey, NewSecret, StoreError, WorkspaceName, keys, once, secrets, workspaces,
};

/// Keys of one step, which is one revision. A revision for each key would push everything else out of the log, and its
/// audit event would cost more than the key itself.
const KEYS_A_STEP: usize = 100;

/// Bytes of JSON after which a step is full, so that its records for edges fit into a delta of the feed.
const STEP_BYTES: usize = 48 << 10;

/// The most bytes of keys that wait for their step to fill, over all workspaces.
const WAITING_BYTES: usize = 8 << 20;

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

/// Cuts an import's keys into steps as they arrive. Each step has keys of one workspace.
pub(super) struct Cutting {
    acting: Acting,
    waiting: BTreeMap<WorkspaceId, Waiting>,
    /// The bytes of all waiting keys.
    bytes: usize,
}

/// Keys of one workspace that wait for a full step.
#[derive(Default)]
struct Waiting {
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

impl Cutting {
    pub(super) fn new(acting: &Acting) -> Self {
        Self { acting: acting.clone(), waiting: BTreeMap::new(), bytes: 0 }
    }

    /// Takes a key. Returns a step that is full now, or that is cut early to make room.
    pub(super) fn add(&mut self, imported: ImportedKey) -> Result<Option<String>, StoreError> {
        let workspace = imported.workspace;
        let key = serde_json::value::to_raw_value(&StepKey::from(imported.key)).map_err(unwritable)?;
        let (waiting, bytes) = (self.waiting.entry(workspace).or_default(), key.get().len());
        waiting.keys.push(key);
        waiting.bytes = waiting.bytes.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        if waiting.keys.len() >= KEYS_A_STEP || waiting.bytes >= STEP_BYTES {
            return self.step(workspace);
        }
        if self.bytes <= WAITING_BYTES {
            return Ok(None);
        }
        let largest = self.waiting.iter().max_by_key(|(_, waiting)| waiting.bytes).map(|(workspace, _)| *workspace);
        largest.map_or(Ok(None), |workspace| self.step(workspace))
    }

    /// After the last key: a step of keys that still wait; `None` if there are none.
    pub(super) fn rest(&mut self) -> Result<Option<String>, StoreError> {
        let first = self.waiting.keys().next().copied();
        first.map_or(Ok(None), |workspace| self.step(workspace))
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// The waiting keys of this workspace, as a step.
    fn step(&mut self, workspace: WorkspaceId) -> Result<Option<String>, StoreError> {
        let Some(Waiting { keys, bytes }) = self.waiting.remove(&workspace) else { return Ok(None) };
        self.bytes = self.bytes.saturating_sub(bytes);
        let Acting { actor, at, address, request_id, once } = self.acting.clone();
        let once = once.map(|once| once.name.0);
        let step = Step { workspace, actor, at, address, request_id, once, keys };
        serde_json::to_string(&step).map(Some).map_err(unwritable)
    }
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::Fault(error.to_string())
}

/// Creates the keys of a step, as one change with one revision and one event.
pub(super) fn carry_out(change: &Change<'_>, step: &str, numbers: &Numbers) -> Result<Revision, StoreError> {
    let step: Step<StepKey> = serde_json::from_str(step).map_err(|error| StoreError::Fault(error.to_string()))?;
    let (sql, Step { workspace, actor, at, address, request_id, once: name, keys }) = (change.sql(), step);
    let acting = Acting { actor, at, address, request_id, once: None };
    let slug = workspaces::find(sql, &WorkspaceName::Id(workspace))?.slug;
    let mut keys: Vec<_> = keys.into_iter().map(NewKey::from).collect();
    let taken = secrets::known(sql, keys.iter().map(|key| key.secret.digest))?;
    keys.retain(|new| {
        let is_taken = taken.contains(&new.secret.digest);
        if is_taken {
            // Only a bug leads here. The import was already accepted, and a missing key grants nothing.
            error!(key.id = %new.id, "an imported digest was taken meanwhile: the key is left out");
        }
        !is_taken
    });
    keys::insert(sql, workspace, &keys, change.revision()?, &acting)?;
    let new: Vec<_> = keys.iter().map(|key| (key.id, &key.secret)).collect();
    secrets::insert(sql, workspace, &new, acting.at)?;
    let ops = keys.iter().map(|key| Ok(Op::Upsert(record(key, workspace, &slug, numbers)?)));
    let ops = ops.collect::<Result<Vec<_>, StoreError>>()?;
    let shown_keys: Vec<_> = keys.into_iter().map(|key| shown(key, workspace, &acting)).collect();
    let after = Map::from_iter([("keys".to_owned(), Value::from(shown_keys))]);
    let revision = change.record(&acting, &Event::of_many("keys.import", workspace, after), &ops)?;
    if let Some(name) = name {
        once::reached(sql, Digest(name), revision)?;
    }
    Ok(revision)
}

/// A key's record for edges.
fn record(key: &NewKey, workspace: WorkspaceId, slug: &str, numbers: &Numbers) -> Result<KeyRecord, StoreError> {
    Ok(KeyRecord {
        digest: key.secret.digest,
        key: key.id,
        workspace,
        slug: slug.to_owned(),
        environment: numbers.environment(key.environment.as_str())?,
        active: key.active,
        expires_at: key.expires_at.unwrap_or(UnixSeconds::DISTANT_FUTURE),
        superseded_at: UnixSeconds::DISTANT_FUTURE,
        grants: numbers.grants(&key.scopes)?,
        allowlist: key.allowlist.clone(),
    })
}

/// A key in the audit event: the fields of a created key, and its id.
fn shown(new: NewKey, workspace: WorkspaceId, acting: &Acting) -> Value {
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
        created_at: acting.at,
        created_by: acting.actor.id.clone(),
        updated_at: acting.at,
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
