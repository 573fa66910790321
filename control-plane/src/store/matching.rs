//! Clean-up of keys that nobody needs any more, selected by a filter.

use policy::{KeyId, Revision, UnixSeconds, WorkspaceId};

use super::changes::Change;
use super::keys::TABLES;
use super::names::{COMPARED, folded};
use super::sql::{Sql, Value, bound};
use super::{Acting, Changed, Precondition, Status, Store, StoreError, keys};

/// Keys per change, so that other changes run in between.
const STEP: i64 = 50;

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

/// What to do to all matching keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    Deactivate,
    Delete,
}

/// A matching key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    pub id: KeyId,
    pub name: String,
}

/// The matching keys: how many, and the first of them, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    pub count: u64,
    pub first: Vec<Matched>,
}

/// The most keys that are listed.
const SHOWN: usize = 1_000;

impl Store {
    /// What [`Self::clean_up`] would change now. Costs a pass over the workspace's keys.
    pub async fn matching_keys(
        &self,
        workspace: WorkspaceId,
        filter: KeyFilter,
        cleaning: Cleaning,
        now: UnixSeconds,
    ) -> Result<Changed<Matching>, StoreError> {
        let head = self.engine.head();
        let work = move |sql: Sql<'_>| {
            let mut found = Matching::default();
            let mut after = None;
            loop {
                let step = step(sql, workspace, &filter, cleaning, after, now)?;
                let Some(last) = step.last() else { return Ok(found) };
                after = Some(last.id);
                found.add(step);
            }
        };
        let value = self.engine.read(work).await?;
        Ok(Changed { value, revision: head.borrow().revision })
    }

    /// Deactivates or deletes all matching keys, each with a revision of its own. It works in steps: if one fails,
    /// those before it are done, and the call may be repeated.
    pub async fn clean_up(
        &self,
        workspace: WorkspaceId,
        filter: KeyFilter,
        cleaning: Cleaning,
        acting: Acting,
    ) -> Result<Changed<Matching>, StoreError> {
        let mut done = Changed { value: Matching::default(), revision: self.engine.head().borrow().revision };
        let mut after = None;
        loop {
            let (numbers, filter, acting) = (self.numbers.clone(), filter.clone(), acting.clone());
            let work = move |change: &Change<'_>| {
                // Queried in the change itself: a key that was used or rotated a moment ago no longer matches.
                let step = step(change.sql(), workspace, &filter, cleaning, after, acting.at)?;
                let mut revision = None;
                for matched in &step {
                    let key = (workspace, matched.id);
                    revision = Some(match cleaning {
                        Cleaning::Deactivate => {
                            keys::set_active(change, &numbers, key, false, &Precondition::None, &acting)?.revision
                        }
                        Cleaning::Delete => keys::delete(change, key, &Precondition::None, &acting)?.revision,
                    });
                }
                Ok::<(Vec<Matched>, Option<Revision>), StoreError>((step, revision))
            };
            let (step, revision) = self.engine.change(work).await?;
            done.revision = revision.unwrap_or(done.revision);
            let Some(last) = step.last() else { return Ok(done) };
            after = Some(last.id);
            done.value.add(step);
        }
    }
}

impl Matching {
    fn add(&mut self, step: Vec<Matched>) {
        self.count = self.count.saturating_add(u64::try_from(step.len()).unwrap_or(u64::MAX));
        let room = SHOWN.saturating_sub(self.first.len());
        self.first.extend(step.into_iter().take(room));
    }
}

impl KeyFilter {
    /// The filter as SQL, to append to other conditions, and its parameters, numbered from `first` on.
    pub(super) fn conditions(&self, first: usize, now: UnixSeconds) -> (String, Vec<Value>) {
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
            add(condition, Value::Integer(now.0));
        }
        if let Some(since) = self.unused_since {
            add("coalesce(u.last_used_at, k.created_at) <= ??", Value::Integer(since.0));
        }
        if let Some(since) = self.unrotated_since {
            add("coalesce(k.rotated_at, k.created_at) <= ??", Value::Integer(since.0));
        }
        if let Some(by) = self.expiring_by {
            add("k.expires_at <= ??", Value::Integer(by.0));
            add("k.expires_at > ??", Value::Integer(now.0));
        }
        if let Some(name) = &self.name {
            add(&format!("{COMPARED} LIKE ?? ESCAPE '\\'"), Value::Text(pattern(&folded(name))));
        }
        (conditions, values)
    }
}

/// The next matching keys after `after`, oldest first.
fn step(
    sql: Sql<'_>,
    workspace: WorkspaceId,
    filter: &KeyFilter,
    cleaning: Cleaning,
    after: Option<KeyId>,
    now: UnixSeconds,
) -> Result<Vec<Matched>, StoreError> {
    // Sixteen zero bytes are no id, and sort before all ids.
    let after = after.map_or([0; 16], |id| *id.as_bytes());
    let mut all = vec![Value::Blob(workspace.as_bytes().to_vec()), Value::Blob(after.to_vec()), Value::Integer(STEP)];
    let (conditions, values) = filter.conditions(all.len().saturating_add(1), now);
    all.extend(values);
    let changes_something = match cleaning {
        Cleaning::Deactivate => " AND k.active = 1",
        Cleaning::Delete => "",
    };
    let statement = format!(
        "SELECT k.id, k.name FROM {TABLES}
         WHERE k.workspace_id = ?1 AND k.id > ?2 AND k.deleted_at IS NULL{changes_something}{conditions}
         ORDER BY k.id LIMIT ?3"
    );
    let mut statement = sql.prepare(&statement)?;
    let rows = statement
        .query_map(&bound(&all), |row| Ok(Matched { id: KeyId::from_bytes(row.get(0)?), name: row.get(1)? }))?;
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
