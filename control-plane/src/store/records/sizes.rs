//! The size of each workspace: its keys, and the bytes of its records at an edge.
//!
//! Both are counted in each change's transaction, so that reading them costs one row however large the workspace is.

use policy::WorkspaceId;
use policy::wire::record_bytes;

use crate::base::config::Limits;
use crate::base::limit::Limit;
use crate::store::db::sql::{Sql, params};
use crate::store::{Key, NewKey, StoreError};

/// The size of a workspace, or of what is added to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkspaceSize {
    pub(crate) keys: u64,
    /// Of its records at an edge.
    pub(crate) bytes: u64,
}

impl WorkspaceSize {
    /// The current size of a workspace.
    pub(crate) fn of(sql: Sql<'_>, workspace: WorkspaceId) -> Result<Self, StoreError> {
        let found =
            sql.query_row("SELECT key_count, edge_bytes FROM workspaces WHERE id = ?1", params![workspace], |row| {
                Ok((row.get::<i64>(0)?, row.get::<i64>(1)?))
            })?;
        let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Self { keys: unsigned(found.0), bytes: unsigned(found.1) })
    }

    /// What this key adds to its workspace.
    pub(crate) fn of_new(key: &NewKey) -> Self {
        Self { keys: 1, bytes: record_bytes(key.scopes.len(), key.allowlist.networks().len()) }
    }

    /// `LimitReached` if the size is above a limit.
    pub(crate) fn check(self, limits: &Limits) -> Result<(), StoreError> {
        let reached = |limit: Option<Limit>, taken: u64| limit.filter(|limit| taken > limit.maximum);
        match reached(limits.keys(), self.keys).or_else(|| reached(limits.bytes(), self.bytes)) {
            Some(limit) => Err(StoreError::LimitReached(limit)),
            None => Ok(()),
        }
    }

    /// The sum of both.
    pub(crate) fn plus(self, more: Self) -> Self {
        Self { keys: self.keys.saturating_add(more.keys), bytes: self.bytes.saturating_add(more.bytes) }
    }
}

/// Whether a key takes more bytes and has more rights after a change. A limit refuses no other change of a key.
pub(crate) fn grows(before: &Key, after: &Key) -> bool {
    let bytes = |key: &Key| record_bytes(key.scopes.len(), key.allowlist.networks().len());
    let is_granted =
        |(scope, level): (_, &policy::Level)| before.scopes.get(scope).is_some_and(|granted| granted.includes(*level));
    let narrows = after.allowlist.is_within(&before.allowlist) && after.scopes.iter().all(is_granted);
    bytes(after) > bytes(before) && !narrows
}

/// Counts keys that were created or, below 0, deleted.
pub(crate) fn count_keys(sql: Sql<'_>, workspace: WorkspaceId, keys: i64) -> Result<(), StoreError> {
    sql.execute("UPDATE workspaces SET key_count = key_count + ?2 WHERE id = ?1", params![workspace, keys])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use policy::{Allowlist, Digest, Environment, Epoch, KeyId, Level, Scopes, UnixSeconds};

    use test_support::databases;

    use super::*;
    use crate::base::clock::Clock;
    use crate::base::config::Config;
    use crate::base::secret::LastCharacters;
    use crate::store::db::sql::NONE;
    use crate::store::history::key_records;
    use crate::store::{
        ChangeContext, Database, Import, ImportedKey, KeyPatch, Metadata, NewKey, NewSecret, NewWorkspace,
        Precondition, ROTATED_AT_EDGE_SECS, Rotation, Store,
    };

    const WORKSPACES: [WorkspaceId; 2] = [WorkspaceId::from_bytes([1; 16]), WorkspaceId::from_bytes([2; 16])];

    fn allowlist(networks: u8) -> Allowlist {
        let entries: Vec<_> = (0..networks).map(|n| format!("10.0.{n}.0/24")).collect();
        serde_json::from_value(if networks == 0 { serde_json::Value::Null } else { entries.into() }).unwrap()
    }

    fn scopes(names: &[&str]) -> Scopes {
        names.iter().map(|name| (name.parse().unwrap(), Level::Read)).collect()
    }

    fn secret(n: u32) -> NewSecret {
        NewSecret { digest: Digest::of(&n.to_le_bytes()), last_characters: LastCharacters(String::new()) }
    }

    fn new_key(n: u32, networks: u8) -> NewKey {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NewKey {
            id: KeyId::from_bytes(id),
            name: format!("key {n}"),
            environment: Environment::default(),
            scopes: scopes(&["reviews", "webhooks"]),
            allowlist: allowlist(networks),
            expires_at: None,
            metadata: Metadata::new(),
            active: true,
            secret: secret(n),
        }
    }

    async fn open(directory: &tempfile::TempDir) -> Store {
        let database: Database = databases::of(directory.path()).parse().unwrap();
        let context = ChangeContext::system(UnixSeconds(0));
        let store =
            Store::open(&database, Epoch::from_bytes([1; 16]), &Config::default(), context.clone()).await.unwrap();
        for (workspace, slug) in WORKSPACES.into_iter().zip(["acme", "zeta"]) {
            let new = NewWorkspace { id: workspace, slug: slug.to_owned(), name: slug.to_owned() };
            store.create_workspace(new, context.clone()).await.unwrap();
        }
        store
    }

    /// The stored counts, and those by a pass over all rows.
    async fn stored_and_actual(store: &Store) -> [BTreeMap<WorkspaceId, WorkspaceSize>; 2] {
        let catalogue = store.catalogue.clone();
        let work = move |sql: Sql<'_>| {
            let mut stored = BTreeMap::new();
            for workspace in WORKSPACES {
                stored.insert(workspace, WorkspaceSize::of(sql, workspace)?);
            }
            let mut actual: BTreeMap<_, _> = WORKSPACES.map(|workspace| (workspace, WorkspaceSize::default())).into();
            key_records::each(sql, &catalogue, |record| {
                actual.get_mut(&record.workspace).unwrap().bytes += record.bytes();
                Ok(())
            })?;
            let keys = "SELECT workspace_id FROM keys WHERE deleted_at IS NULL";
            for id in sql.prepare(keys)?.query_map(NONE, |row| row.get::<WorkspaceId>(0))? {
                actual.get_mut(&id).unwrap().keys += 1;
            }
            Ok([stored, actual])
        };
        store.engine.read(work).await.unwrap()
    }

    #[tokio::test]
    async fn stored_sizes_match_the_rows_after_each_kind_of_change() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory).await;
        let clock = |days: i64| Clock::fixed_at(UnixSeconds(days * 86_400), UnixSeconds(0));
        let [acme, zeta] = WORKSPACES;
        let any = || Precondition::None;
        let mut largest = WorkspaceSize::default();
        for round in 0..3_u32 {
            let (id, at) = (new_key(round, 0).id, ChangeContext::system(UnixSeconds(i64::from(round) * 100)));
            for step in 0..12_u32 {
                let (new, at) = (secret(1_000 + round * 100 + step), at.clone());
                match step {
                    0 => drop(store.create_key(acme, new_key(round, 3), at).await.unwrap()),
                    1 => drop(
                        store.rotate_key(acme, id, new, Rotation::Overlap { secs: 3_600 }, any(), at).await.unwrap(),
                    ),
                    2 => {
                        let patch = KeyPatch { allowlist: Some(allowlist(28)), ..KeyPatch::default() };
                        store.update_key(acme, id, patch, any(), at).await.unwrap();
                    }
                    3 => drop(store.rotate_key(acme, id, new, Rotation::Replace, any(), at).await.unwrap()),
                    4 => {
                        drop(store.rotate_key(acme, id, new, Rotation::Overlap { secs: 60 }, any(), at).await.unwrap())
                    }
                    5 => drop(store.end_overlap(acme, id, any(), at).await.unwrap()),
                    6 => drop(store.deactivate_key(acme, id, any(), at).await.unwrap()),
                    7 => {
                        let (scopes, name) = (Some(scopes(&["reviews"])), Some("renamed".to_owned()));
                        let patch = KeyPatch { scopes, name, allowlist: Some(Allowlist::Any), metadata: None };
                        store.update_key(acme, id, patch, any(), at).await.unwrap();
                    }
                    8 => drop(store.rotate_key(acme, id, new, Rotation::EndAll, any(), at).await.unwrap()),
                    9 => {
                        let imported = (0..150).map(|line| {
                            let n = 10_000 + round * 1_000 + line;
                            let workspace = if line % 3 == 0 { acme } else { zeta };
                            ImportedKey { workspace, key: new_key(n, u8::try_from(n % 5).unwrap()) }
                        });
                        let all: Vec<_> = imported.collect();
                        let ids = all.iter().map(|imported| imported.key.id).collect();
                        let digests = all.iter().map(|imported| (imported.key.secret.digest, 1)).collect();
                        let keys = Box::new(all.into_iter().map(Ok));
                        store.import_keys(Import { of_tenant: None, ids, digests, keys }, at).await.unwrap();
                    }
                    10 => store.sweep(&clock(31 * i64::from(round + 1))).await.unwrap(),
                    _ => drop(store.delete_key(acme, id, any(), at).await.unwrap()),
                }
                let [stored, actual] = stored_and_actual(&store).await;
                assert_eq!(stored, actual, "round {round}, step {step}");
                largest.bytes = largest.bytes.max(stored[&acme].bytes);
            }
        }
        let [stored, _] = stored_and_actual(&store).await;
        assert_eq!((stored[&acme].keys, stored[&zeta].keys), (150, 300));
        assert!(stored[&acme].bytes < largest.bytes, "{stored:?}, at most {largest:?}");
    }

    #[tokio::test]
    async fn a_key_keeps_its_newest_rotated_out_digests_at_edges() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory).await;
        let workspace = WORKSPACES[0];
        let key = new_key(0, 0);
        let id = key.id;
        store.create_key(workspace, key, ChangeContext::system(UnixSeconds(0))).await.unwrap();
        for n in 1..=20 {
            let context = ChangeContext::system(UnixSeconds(i64::from(n)));
            store.rotate_key(workspace, id, secret(n), Rotation::EndAll, Precondition::None, context).await.unwrap();
        }
        let at_edge = async |store: &Store| {
            let catalogue = store.catalogue.clone();
            let work = move |sql: Sql<'_>| {
                let mut digests = Vec::new();
                key_records::each(sql, &catalogue, |record| {
                    digests.push(record.digest);
                    Ok(())
                })?;
                Ok(digests)
            };
            store.engine.read(work).await.unwrap()
        };
        let mut expected: Vec<_> = (12..=20).map(|n| secret(n).digest).collect();
        expected.sort();
        assert_eq!(at_edge(&store).await, expected, "the current one and the eight before it");
        let bytes = WorkspaceSize { keys: 1, bytes: 9 * 76 + 2 * 2 };
        assert_eq!(store.engine.read(move |sql| WorkspaceSize::of(sql, workspace)).await, Ok(bytes));
        // After this time none remains.
        store.sweep(&Clock::fixed_at(UnixSeconds(ROTATED_AT_EDGE_SECS + 20), UnixSeconds(0))).await.unwrap();
        assert_eq!(at_edge(&store).await, [secret(20).digest]);
    }
}
