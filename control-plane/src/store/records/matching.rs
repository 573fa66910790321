//! Clean-up of unused keys: deactivates or deletes all keys that match a filter.

use policy::{KeyId, Revision, UnixSeconds, WorkspaceId};

use super::keys::{self, TABLES};
use super::names::{FOLDED_NAME, fold_case};
use crate::store::db::sql::{Sql, Value, values};
use crate::store::history::changes::Change;
use crate::store::{AtRevision, ChangeContext, Precondition, Status, Store, StoreError};

/// Keys per change (batch), so that other changes run in between.
const BATCH_KEYS: i64 = 50;

/// Which keys to select. All conditions that are set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFilter {
    pub status: Option<Status>,
    /// Last used no later than this; a key that was never used counts from its creation.
    pub unused_since: Option<UnixSeconds>,
    /// Last rotated no later than this; a key that was never rotated counts from its creation.
    pub unrotated_since: Option<UnixSeconds>,
    /// Expires no later than this, and has not expired.
    pub expiring_by: Option<UnixSeconds>,
    /// The whole name, where `*` is any text and `?` any character; upper and lower case are equal.
    pub name: Option<String>,
}

/// What to do with all matching keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanUpAction {
    Deactivate,
    Delete,
}

/// A matching key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchingKey {
    pub id: KeyId,
    pub name: String,
}

/// The matching keys: how many, and the first of them, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMatches {
    pub count: u64,
    pub first: Vec<MatchingKey>,
}

/// The most keys that are listed.
const MAX_LISTED: usize = 1_000;

impl Store {
    /// What [`Self::clean_up`] would change now. Costs a pass over the workspace's keys.
    pub async fn matching_keys(
        &self,
        workspace: WorkspaceId,
        filter: KeyFilter,
        action: CleanUpAction,
        now: UnixSeconds,
    ) -> Result<AtRevision<KeyMatches>, StoreError> {
        let head = self.engine.head();
        let work = move |sql: Sql<'_>| {
            let mut found = KeyMatches::default();
            let mut after = None;
            loop {
                let batch = next_batch(sql, workspace, &filter, action, after, now)?;
                let Some(last) = batch.last() else { return Ok(found) };
                after = Some(last.id);
                found.add(batch);
            }
        };
        let value = self.engine.read(work).await?;
        Ok(AtRevision { value, revision: head.borrow().revision })
    }

    /// Deactivates or deletes all matching keys, each with a revision of its own. It works in batches: if one fails,
    /// those before it are committed, and the call may be repeated.
    pub async fn clean_up(
        &self,
        workspace: WorkspaceId,
        filter: KeyFilter,
        action: CleanUpAction,
        context: ChangeContext,
    ) -> Result<AtRevision<KeyMatches>, StoreError> {
        let mut done = AtRevision { value: KeyMatches::default(), revision: self.engine.head().borrow().revision };
        let mut after = None;
        loop {
            let filter = filter.clone();
            let work = move |change: &Change<'_>| {
                // Queried in the change itself: a key that was used or rotated a moment ago no longer matches.
                let batch = next_batch(change.sql(), workspace, &filter, action, after, change.at())?;
                let mut revision = None;
                for matched in &batch {
                    let key = (workspace, matched.id);
                    revision = Some(match action {
                        CleanUpAction::Deactivate => {
                            keys::set_active(change, key, false, &Precondition::None)?.revision
                        }
                        CleanUpAction::Delete => keys::delete(change, key, &Precondition::None)?.revision,
                    });
                }
                Ok::<(Vec<MatchingKey>, Option<Revision>), StoreError>((batch, revision))
            };
            let (batch, revision) = self.change(context.clone(), work).await?;
            done.revision = revision.unwrap_or(done.revision);
            let Some(last) = batch.last() else { return Ok(done) };
            after = Some(last.id);
            done.value.add(batch);
        }
    }
}

impl KeyMatches {
    fn add(&mut self, batch: Vec<MatchingKey>) {
        self.count = self.count.saturating_add(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        let remaining = MAX_LISTED.saturating_sub(self.first.len());
        self.first.extend(batch.into_iter().take(remaining));
    }
}

impl KeyFilter {
    /// The filter as SQL, to append to other conditions, and its parameters, numbered from `first` on.
    pub(crate) fn conditions(&self, first: usize, now: UnixSeconds) -> (String, Vec<Value>) {
        let mut conditions = String::new();
        let mut values = Vec::new();
        let mut add = |condition: &str, value: Value| {
            values.push(value);
            let number = first.saturating_add(values.len()).saturating_sub(1);
            conditions.push_str(&format!(" AND {}", condition.replace("??", &format!("?{number}"))));
        };
        if let Some(status) = self.status {
            let condition = match status {
                Status::Active => "k.active = 1 AND (k.expires_at IS NULL OR k.expires_at > ??)",
                Status::Inactive => "k.active = 0 AND (k.expires_at IS NULL OR k.expires_at > ??)",
                Status::Expired => "k.expires_at <= ??",
            };
            add(condition, Value::of(now));
        }
        if let Some(since) = self.unused_since {
            add("coalesce(u.last_used_at, k.created_at) <= ??", Value::of(since));
        }
        if let Some(since) = self.unrotated_since {
            add("coalesce(k.rotated_at, k.created_at) <= ??", Value::of(since));
        }
        if let Some(by) = self.expiring_by {
            add("k.expires_at <= ??", Value::of(by));
            add("k.expires_at > ??", Value::of(now));
        }
        if let Some(name) = &self.name {
            add(&format!("{FOLDED_NAME} LIKE ?? ESCAPE '\\'"), Value::of(pattern(&fold_case(name))));
        }
        (conditions, values)
    }
}

/// The next matching keys after `after`, oldest first.
fn next_batch(
    sql: Sql<'_>,
    workspace: WorkspaceId,
    filter: &KeyFilter,
    action: CleanUpAction,
    after: Option<KeyId>,
    now: UnixSeconds,
) -> Result<Vec<MatchingKey>, StoreError> {
    // Sixteen zero bytes are not an id, and sort before all ids.
    let mut all = values![workspace, after.unwrap_or(KeyId::from_bytes([0; 16])), BATCH_KEYS];
    let (conditions, values) = filter.conditions(all.len().saturating_add(1), now);
    all.extend(values);
    let is_affected = match action {
        CleanUpAction::Deactivate => " AND k.active = 1",
        CleanUpAction::Delete => "",
    };
    let statement = format!(
        "SELECT k.id, k.name FROM {TABLES}
         WHERE k.workspace_id = ?1 AND k.id > ?2 AND k.deleted_at IS NULL{is_affected}{conditions}
         ORDER BY k.id LIMIT ?3"
    );
    let mut statement = sql.prepare(&statement)?;
    let rows = statement.query_map(&all, |row| Ok(MatchingKey { id: row.get(0)?, name: row.get(1)? }))?;
    Ok(rows)
}

/// Translates a pattern for names into one for LIKE.
fn pattern(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', character]),
            other => pattern.push(other),
        }
    }
    pattern
}
