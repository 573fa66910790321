//! Digests that come from elsewhere: many keys, all or none.
//!
//! An import is written down, then decided, with one row, and then carried out, a step at a time so that other changes get
//! between. What a crash leaves of one that was decided is carried out at the next start, or by another replica's next import;
//! what wasn't never was. Any number of replicas may import at once: see `docs/decisions/store.md`.

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

/// After how long what was written down and not decided is forgotten. Requests are given up much earlier.
const DRAFT_KEPT_SECS: i64 = 86_400;

/// Keys that are imported together, all or none.
pub struct Import {
    /// The workspace whose own admin imports, and that all keys go into; `None`: a platform admin, who is trusted with digests.
    pub of_tenant: Option<WorkspaceId>,
    /// In the order of the keys.
    pub ids: Vec<KeyId>,
    /// Of all keys, in their order, each with the line where it stood; what is refused is named by it.
    pub digests: Vec<(Digest, usize)>,
    /// The keys themselves. They are asked for one by one, on a thread that may wait, so that they needn't be in memory together.
    pub keys: Box<dyn Iterator<Item = Result<ImportedKey, StoreError>> + Send>,
}

/// A key whose secret somebody else made.
#[derive(Clone, Debug)]
pub struct ImportedKey {
    pub workspace: WorkspaceId,
    pub key: NewKey,
}

/// What was written down of an import.
struct Draft {
    import: KeyId,
    steps: usize,
    /// What each workspace gets.
    adds: BTreeMap<WorkspaceId, Sizes>,
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
    /// A step that leads here, and the bytes in which it was written down.
    Step(Revision, usize),
    NoneLeft(Revision),
}

impl Store {
    /// Makes all of these keys or, when a digest is known already in whatever state and workspace, none: `DigestsTaken`. One
    /// import is made at a time. Answers with the ids, and the revision from which on all of them are there.
    pub async fn import_keys(&self, keys: Import, acting: Acting) -> Result<Changed<Vec<KeyId>>, StoreError> {
        let (store, once) = (self.clone(), acting.once);
        let at = acting.at;
        // A task of its own: whoever stops waiting leaves nothing half done.
        let importing = tokio::spawn(async move {
            let _turn = store.importing.lock().await;
            let Some(import) = keys.ids.first().copied() else {
                return Ok(Changed { value: keys.ids, revision: store.engine.head().borrow().revision });
            };
            let ids = keys.ids.clone();
            let steps = match store.decided(import, keys, acting).await {
                Ok(steps) => steps,
                Err(error) => {
                    // The store has logged why it can't; then it goes with time.
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

    /// Carries out an import that was decided and broken off.
    pub(super) async fn finish_imports(&self, haste: Haste) -> Result<(), StoreError> {
        let _turn = self.importing.lock().await;
        if self.engine.read(is_pending).await? {
            self.carry_out(haste).await?;
        }
        // What isn't decided is of a process that has ended.
        if !self.is_shared() && self.engine.read(has_drafts).await? {
            while self.engine.change(|change| forget_drafts(change.sql(), i64::MAX)).await? == Progress::More {}
        }
        Ok(())
    }

    /// Writes an import down and decides it; answers with the number of its steps.
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
        // What was found free stays so while no other import is decided: nothing else brings a digest that others may know.
        loop {
            let (claim, acting, draft, limits) = (claim.clone(), acting.clone(), Arc::clone(&draft), self.limits);
            let work = move |change: &Change<'_>| {
                for (workspace, adds) in &draft.adds {
                    // What is made while it is carried out may lead a little beyond.
                    Sizes::of(change.sql(), *workspace)?.and(*adds).check(&limits)?;
                }
                let is_decided = decide(change, &draft, &last)?;
                if let Some((once, ids)) = claim.filter(|_| is_decided) {
                    // Its steps move the revision on.
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

    /// Writes the keys of an import down, as steps that are written as soon as there are some. For a thread that may wait.
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

    /// That none of these is known, as of the import that was decided last, which is answered.
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
            // Of another replica, or of one that has ended: its digests are known when it is carried out.
            self.carry_out(Haste::Paced).await?;
        }
    }

    /// Carries out what is decided; other replicas may help.
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

/// As a row in `made_once` has them.
fn joined(ids: &[KeyId]) -> String {
    let mut text = String::new();
    for id in ids {
        let separator = if text.is_empty() { "" } else { " " };
        text.push_str(&format!("{separator}{id}"));
    }
    text
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
        Some(step) => steps::carry_out(change, &step, numbers).map(|revision| Next::Step(revision, step.len())),
        None => Ok(Next::NoneLeft(change.position()?.revision)),
    }
}

#[cfg(test)]
mod tests;
