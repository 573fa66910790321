//! Import of many keys by their digests, all or none.
//!
//! An import is written down, then decided by one row, then carried out in steps, so that other changes run in between.
//! After a crash, a decided one is finished at the next start, or by another replica's next import or sweep; an
//! undecided one is dropped. Any number of replicas may import concurrently: see `docs/decisions/store.md`.

mod crowding;
mod pace;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use policy::{Digest, KeyId, Revision, WorkspaceId};
use tokio::runtime::Handle;

pub(super) use self::pace::Haste;
use self::pace::Pace;
use self::steps::Cutting;
use super::changes::Change;
use super::definitions::Numbers;
use super::retention::Removal;
use super::sizes::Sizes;
use super::sql::{NONE, Optional as _, Sql, Value, params, values};
use super::sweep::{Progress, STEP, progress};
use super::{Acting, Changed, NewKey, Store, StoreError, once};

/// Steps that are written down in one transaction.
const STEPS_AT_ONCE: usize = 10;

/// How long a draft that was not decided is kept. Requests time out much earlier.
const DRAFT_KEPT_SECS: i64 = 86_400;

/// Keys that are imported together, all or none.
pub struct Import {
    /// The workspace of the admin who imports, which gets all keys; `None`: a platform admin, whose digests are
    /// trusted.
    pub of_tenant: Option<WorkspaceId>,
    /// In the order of the keys.
    pub ids: Vec<KeyId>,
    /// Of all keys, in their order, each with the line that it is on; an error names that line.
    pub digests: Vec<(Digest, usize)>,
    /// The keys themselves, taken one by one on a thread that may block, so that they needn't be in memory together.
    pub keys: Box<dyn Iterator<Item = Result<ImportedKey, StoreError>> + Send>,
}

/// A key whose secret was made elsewhere.
#[derive(Clone, Debug)]
pub struct ImportedKey {
    pub workspace: WorkspaceId,
    pub key: NewKey,
}

/// An import that was written down.
struct Draft {
    import: KeyId,
    steps: usize,
    /// What it adds to each workspace.
    adds: BTreeMap<WorkspaceId, Sizes>,
}

/// The import that was decided last: the id of its first key. Empty before the first import.
type Decided = Vec<u8>;

/// The result of carrying out.
struct CarriedOut {
    /// Steps that were carried out here, and the last one's revision.
    steps: usize,
    last: Revision,
    /// The revision when no step was left.
    head: Revision,
}

/// What a change carried out.
enum Next {
    /// A step, by the revision that it led to and the bytes in which it was written down.
    Step(Revision, usize),
    NoneLeft(Revision),
}

impl Store {
    /// Creates all of these keys or, if a digest is known already in any state and workspace, none: `DigestsTaken`. One
    /// import runs at a time. Returns the ids, and the revision as of which all of them exist.
    pub async fn import_keys(&self, keys: Import, acting: Acting) -> Result<Changed<Vec<KeyId>>, StoreError> {
        let (store, once) = (self.clone(), acting.once);
        let at = acting.at;
        // A task of its own: a caller that stops waiting leaves nothing half done.
        let importing = tokio::spawn(async move {
            let _turn = store.importing.lock().await;
            let Some(import) = keys.ids.first().copied() else {
                return Ok(Changed { value: keys.ids, revision: store.engine.head().borrow().revision });
            };
            let ids = keys.ids.clone();
            let steps = match store.decided(import, keys, acting).await {
                Ok(steps) => steps,
                Err(error) => {
                    // If this fails, the store logs why, and the sweep removes the draft later.
                    let _ = store.engine.change(move |change| forget_draft(change, import)).await;
                    return Err(error);
                }
            };
            let done = store.carry_out(Haste::Paced).await?;
            if done.steps == steps {
                return Ok(Changed { value: ids, revision: done.last });
            }
            // Other replicas helped. A repeat is answered with the same revision.
            let made = match once {
                Some(once) => store.engine.read(move |sql| once::find(sql, once, at)).await?,
                None => None,
            };
            Ok(Changed { value: ids, revision: made.map_or(done.head, |made| made.revision) })
        });
        importing.await.map_err(|error| StoreError::Fault(error.to_string()))?
    }

    /// Finishes an import that was decided and then interrupted.
    pub(super) async fn finish_imports(&self, haste: Haste) -> Result<(), StoreError> {
        let _turn = self.importing.lock().await;
        if self.engine.read(is_pending).await? {
            self.carry_out(haste).await?;
        }
        // Without replicas, a draft is of a process that has ended.
        if !self.is_shared() && self.engine.read(has_drafts).await? {
            while self.engine.change(|change| forget_drafts(change.sql(), i64::MAX)).await? == Progress::More {}
        }
        Ok(())
    }

    /// Writes an import down and decides it; returns the number of its steps.
    async fn decided(&self, import: KeyId, keys: Import, acting: Acting) -> Result<usize, StoreError> {
        let Import { of_tenant, ids, digests, keys } = keys;
        let digests = Arc::new(digests);
        let mut last = self.free(&digests, of_tenant).await?;
        let count = ids.len();
        let claim = acting.once.map(|once| (once, Arc::<str>::from(joined(&ids))));
        drop(ids);
        let (store, writing, runtime) = (self.clone(), acting.clone(), Handle::current());
        let written = move || store.write_down(import, keys, &writing, &runtime);
        let draft = tokio::task::spawn_blocking(written).await;
        let draft = Arc::new(draft.map_err(|error| StoreError::Fault(error.to_string()))??);
        if usize::try_from(draft.adds.values().map(|adds| adds.keys).sum::<u64>()) != Ok(count) {
            return Err(StoreError::Fault("an import has other keys than it began with".to_owned()));
        }
        // Free digests stay free until another import is decided: nothing else adds digests that others may know.
        loop {
            let (claim, acting, draft, limits) = (claim.clone(), acting.clone(), Arc::clone(&draft), self.limits);
            let work = move |change: &Change<'_>| {
                for (workspace, adds) in &draft.adds {
                    // Keys that are created while it is carried out may exceed the limit a little.
                    Sizes::of(change.sql(), *workspace)?.and(*adds).check(&limits)?;
                }
                let is_decided = decide(change, &draft, &last)?;
                if let Some((once, ids)) = claim.filter(|_| is_decided) {
                    // Its steps update the revision.
                    once::claim(change.sql(), once, change.position()?.revision, &ids, &acting)?;
                }
                Ok(is_decided)
            };
            if self.engine.change(work).await? {
                break;
            }
            last = self.free(&digests, of_tenant).await?;
        }
        Ok(draft.steps)
    }

    /// Writes an import down as steps, which are stored as soon as there are some. For a thread that may block.
    fn write_down(
        &self,
        import: KeyId,
        keys: impl Iterator<Item = Result<ImportedKey, StoreError>>,
        acting: &Acting,
        runtime: &Handle,
    ) -> Result<Draft, StoreError> {
        let mut draft = Draft { import, steps: 0, adds: BTreeMap::new() };
        let (mut cutting, mut rows) = (Cutting::new(acting), Vec::new());
        let mut write = |rows: &mut Vec<Vec<Value>>, least: usize| {
            if rows.len() < least {
                return Ok(());
            }
            let some = std::mem::take(rows);
            draft.steps = draft.steps.saturating_add(some.len());
            runtime.block_on(self.engine.change(move |change| write_down(change, &some)))
        };
        let row = |step: String| values![import.as_bytes(), acting.at.0, step];
        for imported in keys {
            let imported = imported?;
            let adds = draft.adds.entry(imported.workspace).or_default();
            *adds = adds.and(Sizes::of_new(&imported.key));
            rows.extend(cutting.add(imported)?.map(row));
            write(&mut rows, STEPS_AT_ONCE)?;
        }
        while let Some(step) = cutting.rest()? {
            rows.push(row(step));
            write(&mut rows, STEPS_AT_ONCE)?;
        }
        write(&mut rows, 1)?;
        Ok(draft)
    }

    /// Checks that none of these digests is known, and returns the last decided import as of that check.
    async fn free(
        &self,
        digests: &Arc<Vec<(Digest, usize)>>,
        of_tenant: Option<WorkspaceId>,
    ) -> Result<Decided, StoreError> {
        loop {
            let digests = Arc::clone(digests);
            let work = move |sql: Sql<'_>| match is_pending(sql)? {
                true => Ok(None),
                false => {
                    refuse_taken(sql, &digests)?;
                    of_tenant.map_or(Ok(()), |workspace| crowding::refuse(sql, workspace, &digests))?;
                    decided_last(sql).map(Some)
                }
            };
            if let Some(last) = self.engine.read(work).await? {
                return Ok(last);
            }
            // Of another replica, or of a process that has ended: its digests are known once it is carried out.
            self.carry_out(Haste::Paced).await?;
        }
    }

    /// Carries out the decided import; other replicas may help.
    async fn carry_out(&self, haste: Haste) -> Result<CarriedOut, StoreError> {
        let (mut steps, mut last, mut pace) = (0_usize, Revision(0), Pace::begin(haste));
        loop {
            let numbers = self.numbers.clone();
            match self.engine.change(move |change| carry_out_next(change, &numbers)).await? {
                Next::Step(revision, bytes) => {
                    (steps, last) = (steps.saturating_add(1), revision);
                    pace.carried_out(bytes).await;
                }
                Next::NoneLeft(head) => return Ok(CarriedOut { steps, last, head }),
            }
        }
    }
}

/// The ids as a row of `made_once` has them.
fn joined(ids: &[KeyId]) -> String {
    let mut text = String::new();
    for id in ids {
        let separator = if text.is_empty() { "" } else { " " };
        text.push_str(&format!("{separator}{id}"));
    }
    text
}

/// The text of an admin or edge token can't be a key's secret as well.
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

/// A row is the import, the instant and the step.
fn write_down(change: &Change<'_>, steps: &[Vec<Value>]) -> Result<(), StoreError> {
    change.sql().execute_each("INSERT INTO import_steps (import, written_at, keys) VALUES (?1, ?2, ?3)", steps)?;
    Ok(())
}

/// Decides the import: all that is written down of it will be carried out. False if another was decided after `last`.
fn decide(change: &Change<'_>, draft: &Draft, last: &Decided) -> Result<bool, StoreError> {
    let Draft { import, steps, .. } = draft;
    let written = change
        .sql()
        .prepare("SELECT count(*) FROM import_steps WHERE import = ?1")?
        .query_row(params![import.as_bytes()], |row| row.get::<i64>(0))?;
    if usize::try_from(written) != Ok(*steps) {
        let cause = "what was written down of an import was forgotten before it was decided: it took too long";
        return Err(StoreError::Unavailable(cause.to_owned()));
    }
    let decided = change
        .sql()
        .prepare("UPDATE imports SET decided = ?1 WHERE one = 1 AND decided = ?2")?
        .execute(params![import.as_bytes(), last])?;
    Ok(decided > 0)
}

/// Removes the draft of an import, unless it is decided.
fn forget_draft(change: &Change<'_>, import: KeyId) -> Result<(), StoreError> {
    let statement = "DELETE FROM import_steps WHERE import = ?1 AND import <> (SELECT decided FROM imports)";
    change.sql().prepare(statement)?.execute(params![import.as_bytes()])?;
    Ok(())
}

/// Removes drafts of all undecided imports that were written down until this instant.
fn forget_drafts(sql: Sql<'_>, until: i64) -> Result<Progress, StoreError> {
    let statement = "DELETE FROM import_steps WHERE step IN (
        SELECT step FROM import_steps WHERE import <> (SELECT decided FROM imports) AND written_at <= ?1 LIMIT ?2)";
    Ok(progress(sql.prepare(statement)?.execute(params![until, STEP])?))
}

/// The same in the hourly sweep: a younger draft may be another replica's running import.
pub(super) fn forget_old_drafts(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    forget_drafts(removal.sql(), removal.older_than_secs(DRAFT_KEPT_SECS).0)
}

/// Whether there are drafts, provided that no import is pending.
fn has_drafts(sql: Sql<'_>) -> Result<bool, StoreError> {
    Ok(sql.query_row("SELECT EXISTS (SELECT 1 FROM import_steps)", NONE, |row| row.get(0))?)
}

/// Whether a decided import isn't carried out yet.
fn is_pending(sql: Sql<'_>) -> Result<bool, StoreError> {
    let statement = "SELECT EXISTS (SELECT 1 FROM import_steps WHERE import = (SELECT decided FROM imports))";
    Ok(sql.query_row(statement, NONE, |row| row.get(0))?)
}

/// Whether this import still has steps to carry out. It must be decided, as each import in `made_once` is.
pub(super) fn is_under_way(sql: Sql<'_>, import: KeyId) -> Result<bool, StoreError> {
    let statement = "SELECT EXISTS (SELECT 1 FROM import_steps WHERE import = ?1)";
    Ok(sql.query_row(statement, params![import.as_bytes()], |row| row.get(0))?)
}

/// Carries out the next step of the decided import. Changes run one by one over all replicas, so each step runs once.
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
        Some(step) => steps::carry_out(change, &step, numbers).map(|revision| Next::Step(revision, step.len())),
        None => Ok(Next::NoneLeft(change.position()?.revision)),
    }
}

#[cfg(test)]
mod tests;
