//! Import of many keys by their digests, all or none.
//!
//! An import is stored as a draft, then decided by one row, then carried out in steps, so that other changes run in
//! between. After a crash, a decided import is finished at the next start, or by another replica's next import or
//! sweep; an undecided one is deleted. Any number of replicas may import concurrently: see `docs/decisions/store.md`.

mod page_limit;
mod rate_limit;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use policy::{Digest, KeyId, Revision, UnixSeconds, WorkspaceId};
use tokio::runtime::Handle;

pub(crate) use self::rate_limit::ImportSpeed;
use self::rate_limit::RateLimiter;
use self::steps::StepBuilder;
use super::sizes::WorkspaceSize;
use crate::store::db::sql::{NONE, Optional as _, Sql, Value, params, values};
use crate::store::history::changes::Write;
use crate::store::history::id_catalogue::IdCatalogue;
use crate::store::history::once;
use crate::store::history::retention::{BATCH_ROWS, Progress, Removal, progress};
use crate::store::{AtRevision, ChangeContext, Deployment, NewKey, OnceKey, OnceResult, Store, StoreError};

/// Steps of a draft that are stored in one transaction.
const STEPS_PER_TRANSACTION: usize = 10;

/// How long an undecided draft is kept. Requests time out much earlier.
const DRAFT_KEPT_SECS: i64 = 86_400;

/// Keys that are imported together, all or none.
pub struct Import {
    /// The workspace of the admin who imports, which gets all keys; `None`: a platform admin, whose digests are
    /// trusted.
    pub of_tenant: Option<WorkspaceId>,
    /// In the order of the keys.
    pub ids: Vec<KeyId>,
    /// The digests of all keys, in their order, each with its line number for error messages.
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

/// An import that is stored as steps, and not decided yet.
struct Draft {
    import: KeyId,
    steps: usize,
    /// What it adds to each workspace.
    adds: BTreeMap<WorkspaceId, WorkspaceSize>,
}

/// The import that was decided last: the id of its first key. Empty before the first import.
type DecidedImport = Vec<u8>;

/// The result of carrying out an import.
struct ImportOutcome {
    /// Steps that were carried out here, and the last one's revision.
    steps: usize,
    last: Revision,
    /// The revision when no step was left.
    head: Revision,
}

/// What a change of [`carry_out_next`] did.
enum NextStep {
    /// A step, by its revision and the bytes in which it was stored.
    Step(Revision, usize),
    NoneLeft(Revision),
}

impl Store {
    /// The result of the change with this name; `None` if it was not made in the last day. An import that is still
    /// being carried out is finished first.
    pub async fn once_result(&self, once: OnceKey, now: UnixSeconds) -> Result<Option<OnceResult>, StoreError> {
        let read = move |sql: Sql<'_>| {
            let result = once::find(sql, once, now)?;
            let first = result.as_ref().and_then(|result| result.ids.first()?.parse::<KeyId>().ok());
            let is_pending = first.map_or(Ok(false), |first| is_in_progress(sql, first))?;
            Ok::<_, StoreError>((result, is_pending))
        };
        let (result, is_pending) = self.engine.read(read).await?;
        if !is_pending {
            return Ok(result);
        }
        self.finish_imports(ImportSpeed::Paced).await?;
        self.engine.read(move |sql| once::find(sql, once, now)).await
    }

    /// Creates all of these keys or, if a digest already exists in any state and workspace, none: `DigestsTaken`. One
    /// import runs at a time. Returns the ids, and the revision as of which all of them exist.
    pub async fn import_keys(
        &self,
        keys: Import,
        context: ChangeContext,
    ) -> Result<AtRevision<Vec<KeyId>>, StoreError> {
        let (store, once) = (self.clone(), context.once);
        let at = context.at;
        // In a task of its own, so that it isn't cancelled half done if the caller stops waiting.
        let importing = tokio::spawn(async move {
            let _turn = store.import_lock.lock().await;
            let Some(import) = keys.ids.first().copied() else {
                return Ok(AtRevision { value: keys.ids, revision: store.engine.head().borrow().revision });
            };
            let ids = keys.ids.clone();
            let steps = match store.store_and_decide(import, keys, context).await {
                Ok(steps) => steps,
                Err(error) => {
                    // If this fails, the store logs why, and the sweep removes the draft later.
                    let _ = store.engine.write(move |write| delete_draft(write, import)).await;
                    return Err(error);
                }
            };
            let done = store.carry_out(ImportSpeed::Paced).await?;
            if done.steps == steps {
                return Ok(AtRevision { value: ids, revision: done.last });
            }
            // Other replicas carried out some of the steps. A retry gets the same revision.
            let earlier = match once {
                Some(once) => store.engine.read(move |sql| once::find(sql, once, at)).await?,
                None => None,
            };
            Ok(AtRevision { value: ids, revision: earlier.map_or(done.head, |earlier| earlier.revision) })
        });
        importing.await.map_err(|error| StoreError::Fault(error.to_string()))?
    }

    /// Finishes an import that was decided and then interrupted.
    pub(crate) async fn finish_imports(&self, speed: ImportSpeed) -> Result<(), StoreError> {
        let _turn = self.import_lock.lock().await;
        if self.engine.read(is_pending).await? {
            self.carry_out(speed).await?;
        }
        match self.deployment() {
            // A draft belongs to a process that has ended.
            Deployment::Single => {
                let all = UnixSeconds(i64::MAX);
                let has_drafts = self.engine.read(has_drafts).await?;
                while has_drafts
                    && self.engine.write(move |write| delete_drafts(write.sql(), all)).await? == Progress::More
                {
                }
                Ok(())
            }
            Deployment::Replicated(_) => Ok(()),
        }
    }

    /// Stores an import as a draft and decides it; returns the number of its steps.
    async fn store_and_decide(&self, import: KeyId, keys: Import, context: ChangeContext) -> Result<usize, StoreError> {
        let Import { of_tenant, ids, digests, keys } = keys;
        let digests = Arc::new(digests);
        let mut last = self.check_digests_unused(&digests, of_tenant).await?;
        let count = ids.len();
        let claim = context.once.map(|once| (once, Arc::<str>::from(join_ids(&ids))));
        drop(ids);
        let (store, drafted_by, runtime) = (self.clone(), context.clone(), Handle::current());
        let store_draft = move || store.store_draft(import, keys, &drafted_by, &runtime);
        let draft = tokio::task::spawn_blocking(store_draft).await;
        let draft = Arc::new(draft.map_err(|error| StoreError::Fault(error.to_string()))??);
        if usize::try_from(draft.adds.values().map(|adds| adds.keys).sum::<u64>()) != Ok(count) {
            return Err(StoreError::Fault("the keys of an import are not those that were announced".to_owned()));
        }
        // Unused digests stay unused until another import is decided: nothing else adds digests that others may know.
        loop {
            let (claim, context, draft, limits) = (claim.clone(), context.clone(), Arc::clone(&draft), self.limits);
            let work = move |write: &Write<'_>| {
                for (workspace, adds) in &draft.adds {
                    // Keys that are created while it is carried out may exceed the limit a little.
                    WorkspaceSize::of(write.sql(), *workspace)?.plus(*adds).check(&limits)?;
                }
                let is_decided = decide(write, &draft, &last)?;
                if let Some((once, ids)) = claim.filter(|_| is_decided) {
                    // Its steps update the revision.
                    once::claim(write.sql(), once, write.position()?.revision, &ids, context.at)?;
                }
                Ok(is_decided)
            };
            if self.engine.write(work).await? {
                break;
            }
            last = self.check_digests_unused(&digests, of_tenant).await?;
        }
        Ok(draft.steps)
    }

    /// Stores an import as steps, several at a time. For a thread that may block.
    fn store_draft(
        &self,
        import: KeyId,
        keys: impl Iterator<Item = Result<ImportedKey, StoreError>>,
        context: &ChangeContext,
        runtime: &Handle,
    ) -> Result<Draft, StoreError> {
        let mut draft = Draft { import, steps: 0, adds: BTreeMap::new() };
        let (mut builder, mut rows) = (StepBuilder::new(context), Vec::new());
        let mut write = |rows: &mut Vec<Vec<Value>>, least: usize| {
            if rows.len() < least {
                return Ok(());
            }
            let some = std::mem::take(rows);
            draft.steps = draft.steps.saturating_add(some.len());
            runtime.block_on(self.engine.write(move |write| store_steps(write, some)))
        };
        let row = |step: String| values![import, context.at, step];
        for imported in keys {
            let imported = imported?;
            let adds = draft.adds.entry(imported.workspace).or_default();
            *adds = adds.plus(WorkspaceSize::of_new(&imported.key));
            rows.extend(builder.add(imported)?.map(row));
            write(&mut rows, STEPS_PER_TRANSACTION)?;
        }
        while let Some(step) = builder.flush_next()? {
            rows.push(row(step));
            write(&mut rows, STEPS_PER_TRANSACTION)?;
        }
        write(&mut rows, 1)?;
        Ok(draft)
    }

    /// Checks that none of these digests exists, and returns the last decided import as of that check.
    async fn check_digests_unused(
        &self,
        digests: &Arc<Vec<(Digest, usize)>>,
        of_tenant: Option<WorkspaceId>,
    ) -> Result<DecidedImport, StoreError> {
        loop {
            let digests = Arc::clone(digests);
            let work = move |sql: Sql<'_>| match is_pending(sql)? {
                true => Ok(None),
                false => {
                    check_unused(sql, &digests)?;
                    of_tenant.map_or(Ok(()), |workspace| page_limit::check(sql, workspace, &digests))?;
                    last_decided(sql).map(Some)
                }
            };
            if let Some(last) = self.engine.read(work).await? {
                return Ok(last);
            }
            // It belongs to another replica, or to a process that has ended: its digests exist once it is carried out.
            self.carry_out(ImportSpeed::Paced).await?;
        }
    }

    /// Carries out the decided import; other replicas may help.
    async fn carry_out(&self, speed: ImportSpeed) -> Result<ImportOutcome, StoreError> {
        let (mut steps, mut last, mut limiter) = (0_usize, Revision(0), RateLimiter::begin(speed));
        loop {
            let catalogue = self.catalogue.clone();
            match self.engine.write(move |write| carry_out_next(write, &catalogue)).await? {
                NextStep::Step(revision, bytes) => {
                    (steps, last) = (steps.saturating_add(1), revision);
                    limiter.wait_after(bytes).await;
                }
                NextStep::NoneLeft(head) => return Ok(ImportOutcome { steps, last, head }),
            }
        }
    }
}

/// The ids as `made_once` stores them.
fn join_ids(ids: &[KeyId]) -> String {
    let mut text = String::new();
    for id in ids {
        let separator = if text.is_empty() { "" } else { " " };
        text.push_str(&format!("{separator}{id}"));
    }
    text
}

/// Fails with `DigestsTaken` if a digest exists already. The text of an admin or edge token can't be a key's secret as
/// well.
fn check_unused(sql: Sql<'_>, digests: &[(Digest, usize)]) -> Result<(), StoreError> {
    let mut taken = HashMap::<Digest, Option<WorkspaceId>>::new();
    let statement = "SELECT digest, workspace_id FROM secrets WHERE digest IN (?1)
        UNION ALL SELECT digest, NULL FROM admin_tokens WHERE digest IN (?1)
        UNION ALL SELECT digest, NULL FROM edge_tokens WHERE digest IN (?1)";
    sql.each_in(statement, digests.iter().map(|(digest, _)| digest), |row| {
        taken.insert(row.get(0)?, row.get(1)?);
        Ok::<_, StoreError>(())
    })?;
    let taken = digests.iter().filter_map(|(digest, line)| Some((*line, *taken.get(digest)?)));
    let lines: Vec<_> = taken.collect();
    if lines.is_empty() { Ok(()) } else { Err(StoreError::DigestsTaken { lines }) }
}

fn last_decided(sql: Sql<'_>) -> Result<DecidedImport, StoreError> {
    Ok(sql.query_row("SELECT decided FROM imports WHERE one = 1", NONE, |row| row.get(0))?)
}

/// A row is the import, the instant and the step.
fn store_steps(write: &Write<'_>, steps: Vec<Vec<Value>>) -> Result<(), StoreError> {
    write.sql().execute_each("INSERT INTO import_steps (import, written_at, keys) VALUES (?1, ?2, ?3)", steps)?;
    Ok(())
}

/// Decides the import: all steps of its draft will be carried out. False if another was decided after `last`.
fn decide(write: &Write<'_>, draft: &Draft, last: &DecidedImport) -> Result<bool, StoreError> {
    let Draft { import, steps, .. } = draft;
    let written = write
        .sql()
        .prepare("SELECT count(*) FROM import_steps WHERE import = ?1")?
        .query_row(params![import], |row| row.get::<i64>(0))?;
    if usize::try_from(written) != Ok(*steps) {
        let cause = "the draft of an import was deleted because it took too long; repeat the import";
        return Err(StoreError::Unavailable(cause.to_owned()));
    }
    let decided = write
        .sql()
        .prepare("UPDATE imports SET decided = ?1 WHERE one = 1 AND decided = ?2")?
        .execute(params![import, last])?;
    Ok(decided > 0)
}

/// Deletes the draft of an import, unless it is decided.
fn delete_draft(write: &Write<'_>, import: KeyId) -> Result<(), StoreError> {
    let statement = "DELETE FROM import_steps WHERE import = ?1 AND import <> (SELECT decided FROM imports)";
    write.sql().prepare(statement)?.execute(params![import])?;
    Ok(())
}

/// Deletes the drafts of all undecided imports that were stored until this instant.
fn delete_drafts(sql: Sql<'_>, until: UnixSeconds) -> Result<Progress, StoreError> {
    let statement = "DELETE FROM import_steps WHERE step IN (
        SELECT step FROM import_steps WHERE import <> (SELECT decided FROM imports) AND written_at <= ?1 LIMIT ?2)";
    Ok(progress(sql.prepare(statement)?.execute(params![until, BATCH_ROWS])?))
}

/// Deletes old drafts in the hourly sweep: a younger draft may belong to another replica's running import.
pub(crate) fn delete_old_drafts(removal: &Removal<'_>) -> Result<Progress, StoreError> {
    delete_drafts(removal.sql(), removal.older_than_secs(DRAFT_KEPT_SECS))
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
pub(crate) fn is_in_progress(sql: Sql<'_>, import: KeyId) -> Result<bool, StoreError> {
    let statement = "SELECT EXISTS (SELECT 1 FROM import_steps WHERE import = ?1)";
    Ok(sql.query_row(statement, params![import], |row| row.get(0))?)
}

/// Carries out the next step of the decided import. Changes run one by one over all replicas, so each step runs once.
fn carry_out_next(write: &Write<'_>, catalogue: &IdCatalogue) -> Result<NextStep, StoreError> {
    let next = write
        .sql()
        .prepare(
            "DELETE FROM import_steps WHERE step = (
                 SELECT min(step) FROM import_steps WHERE import = (SELECT decided FROM imports))
             RETURNING keys",
        )?
        .query_row(NONE, |row| row.get::<String>(0))
        .optional()?;
    match next {
        Some(step) => steps::carry_out(write, &step, catalogue).map(|revision| NextStep::Step(revision, step.len())),
        None => Ok(NextStep::NoneLeft(write.position()?.revision)),
    }
}

#[cfg(test)]
mod tests;
