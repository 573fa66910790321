//! Tests of imports: an interrupted one is completed or deleted, and keys are divided into steps.

use policy::{Allowlist, Environment, Epoch, Scopes, UnixSeconds};

use test_support::databases;

use super::*;
use crate::base::clock::Clock;
use crate::base::config::Config;
use crate::base::secret::LastCharacters;
use crate::store::{Database, Metadata, NewSecret, NewWorkspace, Precondition};

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
        active: true,
        secret: NewSecret { digest: digest(n), last_characters: LastCharacters(String::new()) },
    };
    ImportedKey { workspace, key }
}

/// An import of the keys with these numbers, which are also their lines.
fn import(workspace: WorkspaceId, numbers: impl IntoIterator<Item = u32>) -> Import {
    let numbers: Vec<_> = numbers.into_iter().collect();
    let ids = numbers.iter().map(|n| imported(workspace, *n).key.id).collect();
    let digests = numbers.iter().map(|n| (digest(*n), usize::try_from(*n).unwrap())).collect();
    Import {
        of_tenant: None,
        ids,
        digests,
        keys: Box::new(numbers.into_iter().map(move |n| Ok(imported(workspace, n)))),
    }
}

#[tokio::test]
async fn a_decided_import_is_completed_at_the_next_start_and_lets_other_changes_in_between() {
    let directory = tempfile::tempdir().unwrap();
    let database: Database = databases::of(directory.path()).parse().unwrap();
    let context = ChangeContext::system(UnixSeconds(0));
    let config = Config::default();
    let open = || Store::open(&database, Epoch::from_bytes([1; 16]), &config, context.clone());
    let store = open().await.unwrap();
    let id = WorkspaceId::from_bytes([1; 16]);
    let new = NewWorkspace { id, slug: "acme".to_owned(), name: "Acme".to_owned() };
    store.create_workspace(new, context.clone()).await.unwrap();

    let keys = import(id, 0..250);
    assert_eq!(store.store_and_decide(keys.ids[0], keys, context.clone()).await, Ok(3));
    let catalogue = store.catalogue.clone();
    store.engine.write(move |write| carry_out_next(write, &catalogue)).await.unwrap();
    // The process ends here. Before that, another change is made between two steps.
    let undecided = vec![values![[9_u8; 16], 0_i64, "never decided"]];
    store.engine.write(move |write| store_steps(write, undecided)).await.unwrap();
    store.rename_workspace(id, Some("Other".to_owned()), Precondition::None, context.clone()).await.unwrap();
    let count = |store: &Store| {
        let count = "SELECT (SELECT count(*) FROM keys), (SELECT count(*) FROM secrets WHERE at_edge = 1),
                         (SELECT count(*) FROM import_steps)";
        let work =
            move |sql: Sql<'_>| Ok(sql.query_row(count, NONE, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?);
        let engine = Arc::clone(&store.engine);
        async move { engine.read::<(u32, u32, u32)>(work).await.unwrap() }
    };
    assert_eq!(count(&store).await, (100, 100, 3));
    store.close().await;

    let store = open().await.unwrap();
    // With replicas, the undecided draft may be another replica's that is still in progress.
    assert_eq!(count(&store).await, (250, 250, u32::from(databases::is_postgres())));
    store.sweep(&Clock::fixed_at(UnixSeconds(DRAFT_KEPT_SECS), UnixSeconds(0))).await.unwrap();
    assert_eq!(count(&store).await, (250, 250, 0));
    let again = store.import_keys(import(id, [500, 249]), context.clone()).await;
    assert_eq!(again, Err(StoreError::DigestsTaken { lines: vec![(249, Some(id))] }));
    assert_eq!(count(&store).await, (250, 250, 0));
}

#[tokio::test]
async fn a_deleted_draft_is_not_decided() {
    let directory = tempfile::tempdir().unwrap();
    let database: Database = databases::of(directory.path()).parse().unwrap();
    let context = ChangeContext::system(UnixSeconds(0));
    let store = Store::open(&database, Epoch::from_bytes([1; 16]), &Config::default(), context).await.unwrap();
    let import = KeyId::from_bytes([9; 16]);
    let last = store.engine.read(last_decided).await.unwrap();
    let draft = Draft { import, steps: 1, adds: BTreeMap::new() };
    let decided = store.engine.write(move |write| decide(write, &draft, &last)).await;
    assert!(matches!(decided, Err(StoreError::Unavailable(_))), "{decided:?}");
}

/// Divides one key for each of these workspaces into steps. Returns the workspace and the number of keys of each step
/// in order, and the most bytes that waited.
fn cut(workspaces: impl Iterator<Item = u8>, metadata: usize) -> (Vec<(u8, usize)>, usize) {
    let (mut builder, mut steps, mut most) = (StepBuilder::new(&ChangeContext::system(UnixSeconds(0))), Vec::new(), 0);
    for (n, of) in workspaces.enumerate() {
        let mut key = imported(WorkspaceId::from_bytes([of; 16]), u32::try_from(n).unwrap());
        key.key.metadata.insert("text".to_owned(), "x".repeat(metadata).into());
        steps.extend(builder.add(key).unwrap());
        most = most.max(builder.pending_bytes());
    }
    steps.extend(std::iter::from_fn(|| builder.flush_next().unwrap()));
    assert_eq!(builder.pending_bytes(), 0);
    let shown = |step: String| {
        let step: serde_json::Value = serde_json::from_str(&step).unwrap();
        let workspace: WorkspaceId = serde_json::from_value(step["workspace"].clone()).unwrap();
        (workspace.as_bytes()[0], step["keys"].as_array().unwrap().len())
    };
    (steps.into_iter().map(shown).collect(), most)
}

#[test]
fn a_step_has_keys_of_one_workspace_and_at_most_a_hundred() {
    assert_eq!(cut((0..250).map(|_| 1), 0).0, [(1, 100), (1, 100), (1, 50)]);
    let (mut steps, _) = cut((0..300_u32).map(|n| u8::try_from(n % 2).unwrap()), 0);
    steps.sort_unstable();
    assert_eq!(steps, [(0, 50), (0, 100), (1, 50), (1, 100)]);
    assert_eq!(cut(std::iter::empty(), 0).0, []);
}

#[test]
fn keys_of_many_workspaces_do_not_wait_without_bound() {
    let of = |n: usize| u8::try_from(n % 200).unwrap();
    let (steps, most) = cut((0..20_000).map(of), 2_000);
    assert!(most < 9 << 20, "{most} bytes wait");
    let keys = |of: u8| steps.iter().filter(|(workspace, _)| *workspace == of).map(|(_, keys)| keys).sum::<usize>();
    assert!((0..200).all(|of| keys(of) == 100));
    assert!(steps.len() < 1_200, "{} steps", steps.len());
}

/// Keys whose digests begin with these two bytes.
fn chosen(workspace: WorkspaceId, page: [u8; 2], numbers: impl IntoIterator<Item = u32>) -> Import {
    let numbers: Vec<_> = numbers.into_iter().collect();
    let key = move |n: u32| {
        let mut imported = imported(workspace, n);
        imported.key.secret.digest.0[..2].copy_from_slice(&page);
        imported
    };
    let ids = numbers.iter().map(|n| key(*n).key.id).collect();
    let digests = numbers.iter().map(|n| (key(*n).key.secret.digest, usize::try_from(*n).unwrap())).collect();
    let keys = Box::new(numbers.into_iter().map(move |n| Ok(key(n))));
    Import { of_tenant: Some(workspace), ids, digests, keys }
}

#[tokio::test]
async fn a_tenant_s_digests_cannot_overfill_a_page_of_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let database: Database = databases::of(directory.path()).parse().unwrap();
    let context = ChangeContext::system(UnixSeconds(0));
    let store = Store::open(&database, Epoch::from_bytes([1; 16]), &Config::default(), context.clone()).await.unwrap();
    let [acme, zeta] = [1, 2].map(|id| WorkspaceId::from_bytes([id; 16]));
    for (id, slug) in [(acme, "acme"), (zeta, "zeta")] {
        let new = NewWorkspace { id, slug: slug.to_owned(), name: slug.to_owned() };
        store.create_workspace(new, context.clone()).await.unwrap();
    }
    let made = async |import| store.import_keys(import, context.clone()).await.map(|_| ());
    let refused = |lines: std::ops::Range<usize>, workspace| {
        let lines = lines.map(|line| (line, Some(workspace))).collect();
        Err(StoreError::DigestsTaken { lines })
    };
    let (full, last) = ([7, 7], [0xff, 0xff]);
    assert_eq!(made(chosen(acme, full, 0..9)).await, refused(0..9, acme), "in one import");
    assert_eq!(made(chosen(acme, full, 0..8)).await, Ok(()));
    assert_eq!(made(chosen(acme, full, 8..9)).await, refused(8..9, acme), "in another import");
    // There is room in other pages, and in this page for other workspaces. A platform admin isn't limited.
    assert_eq!(made(chosen(acme, [7, 8], 10..18)).await, Ok(()));
    assert_eq!(made(chosen(acme, last, 20..28)).await, Ok(()));
    assert_eq!(made(chosen(acme, last, 28..29)).await, refused(28..29, acme));
    assert_eq!(made(chosen(zeta, full, 30..38)).await, Ok(()));
    assert_eq!(made(Import { of_tenant: None, ..chosen(acme, full, 40..60) }).await, Ok(()));
    // Real digests are spread evenly.
    let import = Import { of_tenant: Some(acme), ..import(acme, 1_000..6_000) };
    assert_eq!(made(import).await, Ok(()));
}
