//! Digests that come from elsewhere: many keys, all or none.
//!
//! An import is written down, then decided, with one row, and then carried out, a step at a time so that other changes get
//! between. What a crash leaves of one that was decided is carried out at the next start, or by another replica's next import;
//! what wasn't never was. Any number of replicas may import at once: see `docs/decisions/store.md`.

mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use policy::wire::record_bytes;
use policy::{Digest, KeyId, Revision, WorkspaceId};

use super::changes::Change;
use super::definitions::Numbers;
use super::retention::Removal;
use super::sizes::Sizes;
use super::sql::{NONE, Optional as _, Sql, Value, params, values};
use super::sweep::{Progress, STEP, progress};
use super::{Acting, Changed, NewKey, Store, StoreError, once};

/// Steps that are written down in one transaction.
const STEPS_AT_ONCE: usize = 10;

/// After how long what was written down and not decided is forgotten. Requests are given up much earlier.
const DRAFT_KEPT_SECS: i64 = 86_400;

/// A key whose secret somebody else made.
#[derive(Clone, Debug)]
pub struct ImportedKey {
    /// Where it stood; what is refused is named by it.
    pub line: usize,
    pub workspace: WorkspaceId,
    pub key: NewKey,
}

/// The import that was decided last: the id of its first key. Empty before there was one.
type Decided = Vec<u8>;

/// What came of carrying out.
struct CarriedOut {
    /// Steps that were carried out here, and the last one's revision.
    steps: usize,
    last: Revision,
    /// Where the history stood when there was none left.
    head: Revision,
}

/// What a change carries out.
enum Next {
    Step(Revision),
    NoneLeft(Revision),
}

impl Store {
    /// Makes all of these keys or, when a digest is known already in whatever state and workspace, none: `DigestsTaken`. One
    /// import is made at a time. Answers with the revision from which on all of them are there.
    pub async fn import_keys(&self, keys: Vec<ImportedKey>, acting: Acting) -> Result<Changed<()>, StoreError> {
        let (store, once) = (self.clone(), acting.once);
        let at = acting.at;
        // A task of its own: whoever stops waiting leaves nothing half done.
        let importing = tokio::spawn(async move {
            let _turn = store.importing.lock().await;
            let Some(import) = keys.first().map(|imported| imported.key.id) else {
                return Ok(store.engine.head().borrow().revision);
            };
            let steps = match store.decided(import, keys, acting).await {
                Ok(steps) => steps,
                Err(error) => {
                    // The store has logged why it can't; then it goes with time.
                    let _ = store.engine.change(move |change| forget_draft(change, import)).await;
                    return Err(error);
                }
            };
            let done = store.carry_out().await?;
            if done.steps == steps {
                return Ok(done.last);
            }
            // Other replicas helped. A repeat is answered with the same revision.
            let made = match once {
                Some(once) => store.engine.read(move |sql| once::find(sql, once, at)).await?,
                None => None,
            };
            Ok(made.map_or(done.head, |made| made.revision))
        });
        let revision = importing.await.map_err(|error| StoreError::Fault(error.to_string()))??;
        Ok(Changed { value: (), revision })
    }

    /// Carries out an import that was decided and broken off.
    pub(super) async fn finish_imports(&self) -> Result<(), StoreError> {
        let _turn = self.importing.lock().await;
        if self.engine.read(is_pending).await? {
            self.carry_out().await?;
        }
        // What isn't decided is of a process that has ended.
        if !self.is_shared() && self.engine.read(has_drafts).await? {
            while self.engine.change(|change| forget_drafts(change.sql(), i64::MAX)).await? == Progress::More {}
        }
        Ok(())
    }

    /// Writes an import down and decides it; answers with the number of its steps.
    async fn decided(&self, import: KeyId, keys: Vec<ImportedKey>, acting: Acting) -> Result<usize, StoreError> {
        let adds = Arc::new(adds(&keys));
        let digests = Arc::new(keys.iter().map(|key| (key.key.secret.digest, key.line)).collect::<Vec<_>>());
        let mut last = self.free(&digests).await?;
        let at = acting.at.0;
        let claim = acting.once.map(|once| (once, keys.iter().map(|key| key.key.id.to_string()).collect::<Vec<_>>()));
        let claim = claim.map(|(once, ids)| (once, Arc::<str>::from(ids.join(" "))));
        let stepping = acting.clone();
        let steps = tokio::task::spawn_blocking(move || steps::steps(keys, &stepping)).await;
        let steps = steps.map_err(|error| StoreError::Fault(error.to_string()))??;
        let count = steps.len();
        let mut rows = steps.into_iter().map(|step| values![import.as_bytes(), at, step]).peekable();
        while rows.peek().is_some() {
            let some: Vec<_> = rows.by_ref().take(STEPS_AT_ONCE).collect();
            self.engine.change(move |change| write_down(change, &some)).await?;
        }
        // What was found free stays so while no other import is decided: nothing else brings a digest that others may know.
        loop {
            let (claim, acting, adds, limits) = (claim.clone(), acting.clone(), Arc::clone(&adds), self.limits);
            let work = move |change: &Change<'_>| {
                for (workspace, adds) in adds.iter() {
                    // What is made while it is carried out may lead a little beyond.
                    Sizes::of(change.sql(), *workspace)?.and(*adds).check(&limits)?;
                }
                let is_decided = decide(change, import, count, &last)?;
                if let Some((once, ids)) = claim.filter(|_| is_decided) {
                    // Its steps move the revision on.
                    once::claim(change.sql(), once, change.position()?.revision, &ids, &acting)?;
                }
                Ok(is_decided)
            };
            if self.engine.change(work).await? {
                break;
            }
            last = self.free(&digests).await?;
        }
        Ok(count)
    }

    /// That none of these is known, as of the import that was decided last, which is answered.
    async fn free(&self, digests: &Arc<Vec<(Digest, usize)>>) -> Result<Decided, StoreError> {
        loop {
            let digests = Arc::clone(digests);
            let work = move |sql: Sql<'_>| match is_pending(sql)? {
                true => Ok(None),
                false => refuse_taken(sql, &digests).and_then(|()| decided_last(sql)).map(Some),
            };
            if let Some(last) = self.engine.read(work).await? {
                return Ok(last);
            }
            // Of another replica, or of one that has ended: its digests are known when it is carried out.
            self.carry_out().await?;
        }
    }

    /// Carries out what is decided; other replicas may help.
    async fn carry_out(&self) -> Result<CarriedOut, StoreError> {
        let (mut steps, mut last) = (0_usize, Revision(0));
        loop {
            let numbers = self.numbers.clone();
            match self.engine.change(move |change| carry_out_next(change, &numbers)).await? {
                Next::Step(revision) => (steps, last) = (steps.saturating_add(1), revision),
                Next::NoneLeft(head) => return Ok(CarriedOut { steps, last, head }),
            }
        }
    }
}

/// What each workspace gets.
fn adds(keys: &[ImportedKey]) -> BTreeMap<WorkspaceId, Sizes> {
    let mut adds = BTreeMap::<_, Sizes>::new();
    for ImportedKey { workspace, key, .. } in keys {
        let bytes = record_bytes(key.scopes.len(), key.allowlist.networks().len());
        let sum = adds.entry(*workspace).or_default();
        *sum = sum.and(Sizes { keys: 1, bytes });
    }
    adds
}

/// A text that opens REST or the feed is no key as well.
fn refuse_taken(sql: Sql<'_>, digests: &[(Digest, usize)]) -> Result<(), StoreError> {
    let all: Vec<_> = digests.iter().map(|(digest, _)| Value::of(digest.0)).collect();
    let mut taken = HashMap::new();
    let statement = "SELECT digest, workspace_id FROM secrets WHERE digest IN (?1)
        UNION ALL SELECT digest, NULL FROM admin_tokens WHERE digest IN (?1)
        UNION ALL SELECT digest, NULL FROM edge_tokens WHERE digest IN (?1)";
    sql.each_in(statement, &all, |row| {
        let workspace = row.get::<Option<[u8; 16]>>(1)?.map(WorkspaceId::from_bytes);
        taken.insert(Digest(row.get(0)?), workspace);
        Ok::<_, StoreError>(())
    })?;
    let taken = digests.iter().filter_map(|(digest, line)| Some((*line, *taken.get(digest)?)));
    let lines: Vec<_> = taken.collect();
    if lines.is_empty() { Ok(()) } else { Err(StoreError::DigestsTaken { lines }) }
}

fn decided_last(sql: Sql<'_>) -> Result<Decided, StoreError> {
    Ok(sql.query_row("SELECT decided FROM imports WHERE one = 1", NONE, |row| row.get(0))?)
}

/// Rows are the import, the instant and the step.
fn write_down(change: &Change<'_>, steps: &[Vec<Value>]) -> Result<(), StoreError> {
    change.sql().execute_each("INSERT INTO import_steps (import, written_at, keys) VALUES (?1, ?2, ?3)", steps)?;
    Ok(())
}

/// From here on all of it that is written down will be. False where another import was decided after `last`.
fn decide(change: &Change<'_>, import: KeyId, steps: usize, last: &Decided) -> Result<bool, StoreError> {
    let written = change
        .sql()
        .prepare("SELECT count(*) FROM import_steps WHERE import = ?1")?
        .query_row(params![import.as_bytes()], |row| row.get::<i64>(0))?;
    if usize::try_from(written) != Ok(steps) {
        let cause = "what was written down of an import was forgotten before it was decided: it took too long";
        return Err(StoreError::Unavailable(cause.to_owned()));
    }
    let decided = change
        .sql()
        .prepare("UPDATE imports SET decided = ?1 WHERE one = 1 AND decided = ?2")?
        .execute(params![import.as_bytes(), last])?;
    Ok(decided > 0)
}

/// What was written down of an import that isn't decided goes.
fn forget_draft(change: &Change<'_>, import: KeyId) -> Result<(), StoreError> {
    let statement = "DELETE FROM import_steps WHERE import = ?1 AND import <> (SELECT decided FROM imports)";
    change.sql().prepare(statement)?.execute(params![import.as_bytes()])?;
    Ok(())
}

/// The same of imports that broke off, and that were written down until this instant.
fn forget_drafts(sql: Sql<'_>, until: i64) -> Result<Progress, StoreError> {
    let statement = "DELETE FROM import_steps WHERE step IN (
        SELECT step FROM import_steps WHERE import <> (SELECT decided FROM imports) AND written_at <= ?1 LIMIT ?2)";
    Ok(progress(sql.prepare(statement)?.execute(params![until, STEP])?))
}

/// The same at the hourly sweep: an import of another replica may be under way.
pub(super) fn forget_old_drafts(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    forget_drafts(removal.sql(), removal.older_than_secs(DRAFT_KEPT_SECS).0)
}

/// Where nothing is pending: whether anything is written down and not decided.
fn has_drafts(sql: Sql<'_>) -> Result<bool, StoreError> {
    Ok(sql.query_row("SELECT EXISTS (SELECT 1 FROM import_steps)", NONE, |row| row.get(0))?)
}

/// Whether an import is decided and not carried out.
fn is_pending(sql: Sql<'_>) -> Result<bool, StoreError> {
    let statement = "SELECT EXISTS (SELECT 1 FROM import_steps WHERE import = (SELECT decided FROM imports))";
    Ok(sql.query_row(statement, NONE, |row| row.get(0))?)
}

/// Whether this import is decided and not carried out to its end. Drafts are no answer's: nobody asks for those.
pub(super) fn is_under_way(sql: Sql<'_>, import: KeyId) -> Result<bool, StoreError> {
    let statement = "SELECT EXISTS (SELECT 1 FROM import_steps WHERE import = ?1)";
    Ok(sql.query_row(statement, params![import.as_bytes()], |row| row.get(0))?)
}

/// Carries out the next step of what is decided. Whoever does it holds the order of all changes, so each is carried out once.
fn carry_out_next(change: &Change<'_>, numbers: &Numbers) -> Result<Next, StoreError> {
    let next = change
        .sql()
        .prepare(
            "DELETE FROM import_steps WHERE step = (
                 SELECT min(step) FROM import_steps WHERE import = (SELECT decided FROM imports))
             RETURNING keys",
        )?
        .query_row(NONE, |row| row.get::<String>(0))
        .optional()?;
    match next {
        Some(step) => steps::carry_out(change, &step, numbers).map(Next::Step),
        None => Ok(Next::NoneLeft(change.position()?.revision)),
    }
}

#[cfg(test)]
mod tests {
    use policy::{Allowlist, Environment, Epoch, Scopes, UnixSeconds};

    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::secret::LastCharacters;
    use crate::store::{Database, Metadata, NewSecret, NewWorkspace, Precondition, databases};

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

        let keys: Vec<_> = (0..250).map(|n| imported(id, n)).collect();
        assert_eq!(store.decided(keys[0].key.id, keys, acting.clone()).await, Ok(3));
        let numbers = store.numbers.clone();
        store.engine.change(move |change| carry_out_next(change, &numbers)).await.unwrap();
        // Here the process ends. Between two steps another change was made.
        let undecided = [values![[9_u8; 16], 0_i64, "never decided"]];
        store.engine.change(move |change| write_down(change, &undecided)).await.unwrap();
        store.rename_workspace(id, Some("Other".to_owned()), Precondition::None, acting.clone()).await.unwrap();
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
        // Beside other replicas it may be one's that goes on.
        assert_eq!(count(&store).await, (250, 250, u32::from(databases::is_postgres())));
        store.sweep(&Clock::standing_at(UnixSeconds(DRAFT_KEPT_SECS), UnixSeconds(0))).await.unwrap();
        assert_eq!(count(&store).await, (250, 250, 0));
        let again = store.import_keys(vec![imported(id, 500), imported(id, 249)], acting.clone()).await;
        assert_eq!(again, Err(StoreError::DigestsTaken { lines: vec![(249, Some(id))] }));
        assert_eq!(count(&store).await, (250, 250, 0));
    }

    #[tokio::test]
    async fn a_draft_that_was_forgotten_is_not_decided() {
        let directory = tempfile::tempdir().unwrap();
        let database: Database = databases::of(directory.path()).parse().unwrap();
        let acting = Acting::system(UnixSeconds(0));
        let store = Store::open(&database, Epoch::from_bytes([1; 16]), &Config::default(), acting).await.unwrap();
        let import = KeyId::from_bytes([9; 16]);
        let last = store.engine.read(decided_last).await.unwrap();
        let decided = store.engine.change(move |change| decide(change, import, 1, &last)).await;
        assert!(matches!(decided, Err(StoreError::Unavailable(_))), "{decided:?}");
    }
}
