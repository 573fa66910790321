//! The steps of an import: as they are written down, and how one is carried out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::wire::{KeyRecord, Op};
use policy::{Allowlist, Digest, Environment, KeyId, Revision, Scopes, UnixSeconds, WorkspaceId};
use serde::{Deserialize, Serialize};
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

/// Keys of one step, which is one revision. A revision a key would push all else out of the log, and its audit event would
/// cost more than the key itself.
const KEYS_A_STEP: usize = 100;

/// A step as it is written down. It must be readable by later versions.
#[derive(Serialize, Deserialize)]
struct Step {
    workspace: WorkspaceId,
    actor: Actor,
    at: UnixSeconds,
    address: Option<IpAddr>,
    request_id: Option<String>,
    /// The name of an import that is made once.
    #[serde(default)]
    once: Option<[u8; 32]>,
    keys: Vec<StepKey>,
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

/// Of a step that an older version wrote down.
fn active_by_default() -> bool {
    true
}

/// The steps of an import, each of one workspace.
pub(super) fn steps(keys: Vec<ImportedKey>, acting: &Acting) -> Result<Vec<String>, StoreError> {
    let mut by_workspace: BTreeMap<WorkspaceId, Vec<ImportedKey>> = BTreeMap::new();
    for imported in keys {
        by_workspace.entry(imported.workspace).or_default().push(imported);
    }
    let mut steps = Vec::new();
    for (workspace, keys) in by_workspace {
        let mut keys = keys.into_iter().map(|imported| StepKey::from(imported.key)).peekable();
        while keys.peek().is_some() {
            let Acting { actor, at, address, request_id, once } = acting.clone();
            let once = once.map(|once| once.name.0);
            let keys = keys.by_ref().take(KEYS_A_STEP).collect();
            let step = Step { workspace, actor, at, address, request_id, once, keys };
            steps.push(serde_json::to_string(&step).map_err(|error| StoreError::Fault(error.to_string()))?);
        }
    }
    Ok(steps)
}

/// Makes the keys of a step, as one change with one revision and one event.
pub(super) fn carry_out(change: &Change<'_>, step: &str, numbers: &Numbers) -> Result<Revision, StoreError> {
    let step: Step = serde_json::from_str(step).map_err(|error| StoreError::Fault(error.to_string()))?;
    let (sql, Step { workspace, actor, at, address, request_id, once: name, keys }) = (change.sql(), step);
    let acting = Acting { actor, at, address, request_id, once: None };
    let slug = workspaces::find(sql, &WorkspaceName::Id(workspace))?.slug;
    let mut keys: Vec<_> = keys.into_iter().map(NewKey::from).collect();
    let taken = secrets::known(sql, keys.iter().map(|key| key.secret.digest))?;
    keys.retain(|new| {
        let is_taken = taken.contains(&new.secret.digest);
        if is_taken {
            // Only a fault of ours leads here. Its import was answered for, and a key that isn't there opens nothing.
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

/// What edges are told of it.
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

/// What the audit log shows of it: what it shows of a key that was made, and its id.
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
