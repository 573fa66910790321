//! Digests that come from elsewhere: many keys, all or none.
//!
//! An import is written down, then decided, with one row, and then carried out, a step at a time so that other changes get
//! between. What a crash leaves of one that was decided is carried out at the next start; what wasn't never was.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::wire::{KeyRecord, Op};
use policy::{Allowlist, Digest, Environment, KeyId, Revision, Scopes, UnixSeconds, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::error;

use super::audit::{Audited as _, Event};
use super::changes::Change;
use super::definitions::Numbers;
use super::sql::{NONE, Optional as _, Sql, params};
use super::{
    Acting, Actor, Changed, Key, KeyUse, Metadata, NewKey, NewSecret, Store, StoreError, WorkspaceName, keys, secrets,
    workspaces,
};
use crate::secret::LastCharacters;

/// Keys of one step, which is one revision. A revision a key would push all else out of the log, and its audit event would
/// cost more than the key itself.
const KEYS_A_STEP: usize = 100;

/// Steps that are written down in one transaction.
const STEPS_AT_ONCE: usize = 10;

/// A key whose secret somebody else made.
#[derive(Clone, Debug)]
pub struct ImportedKey {
    /// Where it stood; what is refused is named by it.
    pub line: usize,
    pub workspace: WorkspaceId,
    pub key: NewKey,
}

/// A step as it is written down. It must be readable by later versions.
#[derive(Serialize, Deserialize)]
struct Step {
    workspace: WorkspaceId,
    actor: Actor,
    at: UnixSeconds,
    address: Option<IpAddr>,
    request_id: Option<String>,
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
    digest: [u8; 32],
    last_characters: String,
}

impl Store {
    /// Makes all of these keys or, when a digest is known already in whatever state and workspace, none: `DigestsTaken`. One
    /// import is made at a time. Answers with the revision from which on all of them are there.
    pub async fn import_keys(&self, keys: Vec<ImportedKey>, acting: Acting) -> Result<Changed<()>, StoreError> {
        let store = self.clone();
        // A task of its own: whoever stops waiting leaves nothing half done.
        let importing = tokio::spawn(async move {
            // What was found free stays so until it is taken: nothing but an import brings a digest that others may know.
            let _turn = store.importing.lock().await;
            store.carry_out().await?;
            let keys = store.engine.read(move |sql| refuse_taken(sql, keys)).await?;
            let steps = tokio::task::spawn_blocking(move || steps(keys, &acting)).await;
            let steps = steps.map_err(|error| StoreError::Fault(error.to_string()))??;
            let mut steps = steps.into_iter().peekable();
            while steps.peek().is_some() {
                let some: Vec<_> = steps.by_ref().take(STEPS_AT_ONCE).collect();
                store.engine.change(move |change| write_down(change, &some)).await?;
            }
            store.engine.change(decide).await?;
            let revision = store.carry_out().await?;
            let head = store.engine.head().borrow().revision;
            Ok(Changed { value: (), revision: revision.unwrap_or(head) })
        });
        importing.await.map_err(|error| StoreError::Fault(error.to_string()))?
    }

    /// Carries out imports that were decided and broken off.
    pub(super) async fn finish_imports(&self) -> Result<(), StoreError> {
        let _turn = self.importing.lock().await;
        self.carry_out().await.map(drop)
    }

    /// Answers with the last step's revision.
    async fn carry_out(&self) -> Result<Option<Revision>, StoreError> {
        let mut last = None;
        if !self.engine.read(is_pending).await? {
            return Ok(last);
        }
        loop {
            let numbers = self.numbers.clone();
            match self.engine.change(move |change| carry_out_step(change, &numbers)).await? {
                Some(revision) => last = Some(revision),
                None => break,
            }
        }
        self.engine.change(forget_undecided).await?;
        Ok(last)
    }
}

fn refuse_taken(sql: Sql<'_>, keys: Vec<ImportedKey>) -> Result<Vec<ImportedKey>, StoreError> {
    let mut lines = Vec::new();
    for imported in &keys {
        let digest = imported.key.secret.digest;
        if secrets::is_known(sql, digest)? || is_of_a_token(sql, digest)? {
            lines.push(imported.line);
        }
    }
    if lines.is_empty() { Ok(keys) } else { Err(StoreError::DigestsTaken { lines }) }
}

/// A text that opens REST or the feed is no key as well.
fn is_of_a_token(sql: Sql<'_>, digest: Digest) -> Result<bool, StoreError> {
    let mut query = sql.prepare(
        "SELECT EXISTS (SELECT 1 FROM admin_tokens WHERE digest = ?1)
             OR EXISTS (SELECT 1 FROM edge_tokens WHERE digest = ?1)",
    )?;
    Ok(query.query_row(params![digest.0], |row| row.get(0))?)
}

/// The steps of an import, each of one workspace.
fn steps(keys: Vec<ImportedKey>, acting: &Acting) -> Result<Vec<String>, StoreError> {
    let mut by_workspace: BTreeMap<WorkspaceId, Vec<ImportedKey>> = BTreeMap::new();
    for imported in keys {
        by_workspace.entry(imported.workspace).or_default().push(imported);
    }
    let mut steps = Vec::new();
    for (workspace, keys) in by_workspace {
        let mut keys = keys.into_iter().map(|imported| StepKey::from(imported.key)).peekable();
        while keys.peek().is_some() {
            let Acting { actor, at, address, request_id, once: _ } = acting.clone();
            let keys = keys.by_ref().take(KEYS_A_STEP).collect();
            let step = Step { workspace, actor, at, address, request_id, keys };
            steps.push(serde_json::to_string(&step).map_err(|error| StoreError::Fault(error.to_string()))?);
        }
    }
    Ok(steps)
}

fn write_down(change: &Change<'_>, steps: &[String]) -> Result<(), StoreError> {
    let mut insert = change.sql().prepare("INSERT INTO import_steps (keys) VALUES (?1)")?;
    for step in steps {
        insert.execute(params![step])?;
    }
    Ok(())
}

/// From here on all that is written down will be.
fn decide(change: &Change<'_>) -> Result<(), StoreError> {
    let statement = "UPDATE imports SET decided_to = coalesce((SELECT max(step) FROM import_steps), decided_to)";
    change.sql().execute(statement, NONE)?;
    Ok(())
}

fn forget_undecided(change: &Change<'_>) -> Result<(), StoreError> {
    let statement = "DELETE FROM import_steps WHERE step > (SELECT decided_to FROM imports)";
    change.sql().execute(statement, NONE)?;
    Ok(())
}

/// Whether any import is decided and not carried out, or was written down and broke off.
fn is_pending(sql: Sql<'_>) -> Result<bool, StoreError> {
    Ok(sql.query_row("SELECT EXISTS (SELECT 1 FROM import_steps)", NONE, |row| row.get(0))?)
}

/// Makes the keys of the next step, as one change with one revision and one event; `None` when there is none.
fn carry_out_step(change: &Change<'_>, numbers: &Numbers) -> Result<Option<Revision>, StoreError> {
    let sql = change.sql();
    let next = sql
        .prepare(
            "SELECT step, keys FROM import_steps WHERE step <= (SELECT decided_to FROM imports) ORDER BY step LIMIT 1",
        )?
        .query_row(NONE, |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?)))
        .optional()?;
    let Some((number, text)) = next else { return Ok(None) };
    sql.prepare("DELETE FROM import_steps WHERE step = ?1")?.execute(params![number])?;
    let step: Step = serde_json::from_str(&text).map_err(|error| StoreError::Fault(error.to_string()))?;
    let Step { workspace, actor, at, address, request_id, keys } = step;
    let acting = Acting { actor, at, address, request_id, once: None };
    let slug = workspaces::find(sql, &WorkspaceName::Id(workspace))?.slug;
    let revision = change.revision()?;
    let (mut ops, mut shown_keys) = (Vec::new(), Vec::new());
    for new in keys.into_iter().map(NewKey::from) {
        if secrets::is_known(sql, new.secret.digest)? {
            // Only a fault of ours leads here. Its import was answered for, and a key that isn't there opens nothing.
            error!(key.id = %new.id, "an imported digest was taken meanwhile: the key is left out");
            continue;
        }
        keys::insert(sql, workspace, &new, revision, &acting)?;
        secrets::insert(sql, (workspace, new.id), &new.secret, acting.at)?;
        ops.push(Op::Upsert(record(&new, workspace, &slug, numbers)?));
        shown_keys.push(shown(new, workspace, &acting));
    }
    let after = Map::from_iter([("keys".to_owned(), Value::from(shown_keys))]);
    change.record(&acting, &Event::of_many("keys.import", workspace, after), &ops).map(Some)
}

/// What edges are told of it.
fn record(key: &NewKey, workspace: WorkspaceId, slug: &str, numbers: &Numbers) -> Result<KeyRecord, StoreError> {
    Ok(KeyRecord {
        digest: key.secret.digest,
        key: key.id,
        workspace,
        slug: slug.to_owned(),
        environment: numbers.environment(key.environment.as_str())?,
        active: true,
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
        active: true,
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
        let NewKey { id, name, environment, scopes, allowlist, expires_at, metadata, secret } = key;
        let NewSecret { digest, last_characters } = secret;
        let (digest, last_characters) = (digest.0, last_characters.0);
        Self { id, name, environment, scopes, allowlist, expires_at, metadata, digest, last_characters }
    }
}

impl From<StepKey> for NewKey {
    fn from(key: StepKey) -> Self {
        let StepKey { id, name, environment, scopes, allowlist, expires_at, metadata, digest, last_characters } = key;
        let secret = NewSecret { digest: Digest(digest), last_characters: LastCharacters(last_characters) };
        Self { id, name, environment, scopes, allowlist, expires_at, metadata, secret }
    }
}

#[cfg(test)]
mod tests {
    use policy::Epoch;

    use super::*;
    use crate::config::Config;
    use crate::store::{Database, NewWorkspace, Precondition, databases};

    fn digest(n: u32) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    fn imported(workspace: WorkspaceId, n: u32) -> ImportedKey {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let key = NewKey {
            id: KeyId::from_bytes(id),
            name: format!("key {n}"),
            environment: Environment::default(),
            scopes: Scopes::new(),
            allowlist: Allowlist::Any,
            expires_at: None,
            metadata: Metadata::new(),
            secret: NewSecret { digest: digest(n), last_characters: LastCharacters(String::new()) },
        };
        ImportedKey { line: usize::try_from(n).unwrap(), workspace, key }
    }

    #[tokio::test]
    async fn an_import_that_was_decided_is_carried_out_at_the_next_start_and_lets_others_between() {
        let directory = tempfile::tempdir().unwrap();
        let database: Database = databases::of(directory.path()).parse().unwrap();
        let acting = Acting::system(UnixSeconds(0));
        let config = Config::default();
        let open = || Store::open(&database, Epoch::from_bytes([1; 16]), &config, acting.clone());
        let store = open().await.unwrap();
        let id = WorkspaceId::from_bytes([1; 16]);
        let new = NewWorkspace { id, slug: "acme".to_owned(), name: "Acme".to_owned() };
        store.create_workspace(new, acting.clone()).await.unwrap();

        let keys = (0..250).map(|n| imported(id, n)).collect();
        let decided = steps(keys, &acting).unwrap();
        assert_eq!(decided.len(), 3);
        store.engine.change(move |change| write_down(change, &decided)).await.unwrap();
        store.engine.change(decide).await.unwrap();
        let numbers = store.numbers.clone();
        store.engine.change(move |change| carry_out_step(change, &numbers)).await.unwrap();
        // Here the process ends. Between two steps another change was made.
        let undecided = steps(vec![imported(id, 300)], &acting).unwrap();
        store.engine.change(move |change| write_down(change, &undecided)).await.unwrap();
        store.rename_workspace(id, Some("Other".to_owned()), Precondition::None, acting.clone()).await.unwrap();
        let count = |store: &Store| {
            let count = "SELECT (SELECT count(*) FROM keys), (SELECT count(*) FROM secrets WHERE at_edge = 1)";
            let work = move |sql: Sql<'_>| Ok(sql.query_row(count, NONE, |row| Ok((row.get(0)?, row.get(1)?)))?);
            let engine = std::sync::Arc::clone(&store.engine);
            async move { engine.read::<(u32, u32)>(work).await.unwrap() }
        };
        assert_eq!(count(&store).await, (100, 100));
        store.close().await;

        let store = open().await.unwrap();
        assert_eq!(count(&store).await, (250, 250));
        let again = store.import_keys(vec![imported(id, 500), imported(id, 249)], acting.clone()).await;
        assert_eq!(again, Err(StoreError::DigestsTaken { lines: vec![249] }));
        assert_eq!(count(&store).await, (250, 250));
    }
}
