//! Rounds of usage counts: batches are recorded, then added in slices, so that each batch counts once despite crashes.
//!
//! None of this changes what edges enforce, so it has no revision and no audit event.

mod admit;

use std::collections::HashMap;

use policy::protocol::usage::SecretMark;
use policy::{KeyId, UnixSeconds, WorkspaceId};

use self::admit::admit;
use super::usage;
use crate::store::db::sql::{Sql, Value, params, values};
use crate::store::history::changes::Write;
use crate::store::records::usage_delta::{BatchName, Denial, KeyDelta, MAX_KEPT_DENIALS};
use crate::store::{Store, StoreError};

/// Which part of a batch counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchAdmission {
    /// All of it: it was not received before.
    New,
    /// The keys after this one: an interrupted round has added the others. `None`: all keys.
    Partial(Option<KeyId>),
    /// Nothing: it was counted before.
    Duplicate,
    /// Nothing: its sequence is higher than the worker can have reached, which is `most` now. It is not recorded.
    SequenceTooHigh { most: u64 },
}

/// The id of a round that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round(i64);

/// Whether a slice is the round's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlicePosition {
    More,
    Last,
}

impl Store {
    /// Decides which part of each of these batches counts, and records those that count, as part of `round` or of a new
    /// round. Returns the round; `None` if there is none.
    pub(crate) async fn begin_usage_round(
        &self,
        round: Option<Round>,
        names: Vec<BatchName>,
        now: UnixSeconds,
    ) -> Result<(Option<Round>, Vec<BatchAdmission>), StoreError> {
        let work = move |write: &Write<'_>| {
            let mut round = round;
            let admitted = admit(write.sql(), &mut round, &names, now)?;
            Ok((round, admitted))
        };
        self.engine.write(work).await
    }

    /// Adds a slice of the round. The keys are in order, and after those of the slices before. Returns the number of
    /// entries of unknown keys, which are left out.
    pub(crate) async fn fold_usage(
        &self,
        Round(round): Round,
        keys: Vec<(KeyId, KeyDelta)>,
        slice: SlicePosition,
        now: UnixSeconds,
    ) -> Result<u64, StoreError> {
        let work = move |write: &Write<'_>| {
            let sql = write.sql();
            let unknown = fold(sql, &keys, now)?;
            match (slice, keys.last()) {
                (SlicePosition::Last, _) => {
                    sql.prepare("DELETE FROM usage_rounds WHERE id = ?1")?.execute(params![round])?;
                }
                (SlicePosition::More, Some((last, _))) => {
                    sql.prepare("UPDATE usage_rounds SET folded_to = ?2 WHERE id = ?1")?
                        .execute(params![round, last])?;
                }
                (SlicePosition::More, None) => {}
            }
            Ok(unknown)
        };
        self.engine.write(work).await
    }
}

/// The last use of a key and its secrets, as stored in its row.
struct StoredUse {
    workspace: WorkspaceId,
    last_at: Option<UnixSeconds>,
    secret: SecretMark,
    secret_at: Option<UnixSeconds>,
    previous: Option<SecretMark>,
    previous_at: Option<UnixSeconds>,
}

/// Adds to the keys that exist. Returns the number of entries of those that don't.
fn fold(sql: Sql<'_>, keys: &[(KeyId, KeyDelta)], now: UnixSeconds) -> Result<u64, StoreError> {
    let known = load_stored_use(sql, keys)?;
    let folded: Vec<_> = keys.iter().filter_map(|(id, delta)| Some((*id, delta, known.get(id)?))).collect();
    let used: Vec<_> = folded.iter().filter_map(|(id, delta, known)| usage_row(*id, delta, known, now)).collect();
    sql.execute_each(
        "INSERT INTO key_usage (key_id, workspace_id, secret, last_used_at, last_used_ip, secret_last_used_at,
             previous_secret_last_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at,
             last_used_ip = coalesce(excluded.last_used_ip, key_usage.last_used_ip),
             secret_last_used_at = excluded.secret_last_used_at,
             previous_secret_last_used_at = excluded.previous_secret_last_used_at",
        used,
    )?;
    let counts = folded
        .iter()
        .flat_map(|(id, delta, _)| delta.counts.iter().map(|((hour, outcome), more)| (*id, *hour, *outcome, *more)));
    usage::add(sql, counts, now)?;
    let denied = folded.iter().filter(|(_, delta, _)| !delta.denials.is_empty());
    let denied: Vec<_> = denied.map(|(id, delta, _)| (*id, *delta)).collect();
    store_latest_denials(sql, &denied, now)?;
    let unknown = keys.iter().filter(|(id, _)| !known.contains_key(id)).map(|(_, delta)| delta.entries);
    Ok(unknown.fold(0_u64, u64::saturating_add))
}

fn load_stored_use(sql: Sql<'_>, keys: &[(KeyId, KeyDelta)]) -> Result<HashMap<KeyId, StoredUse>, StoreError> {
    let statement = "SELECT key_id, workspace_id, last_used_at, secret, secret_last_used_at, previous_secret,
                         previous_secret_last_used_at
                     FROM key_usage WHERE key_id IN (?1)";
    let mut all = HashMap::new();
    sql.each_in(statement, keys.iter().map(|(id, _)| id), |row| {
        let known = StoredUse {
            workspace: row.get(1)?,
            last_at: row.get(2)?,
            secret: row.get(3)?,
            secret_at: row.get(4)?,
            previous: row.get(5)?,
            previous_at: row.get(6)?,
        };
        all.insert(row.get(0)?, known);
        Ok::<_, StoreError>(())
    })?;
    Ok(all)
}

/// The parameters of a key's row with its last use; `None` if the key wasn't used.
fn usage_row(id: KeyId, delta: &KeyDelta, known: &StoredUse, now: UnixSeconds) -> Option<Vec<Value>> {
    // An edge's clock may be ahead.
    let last = delta.used.iter().map(|used| used.at).max()?.min(now);
    let used = |mark: SecretMark| delta.used.iter().find(|own| own.secret == mark).map(|own| own.at.min(now));
    let address = delta.last.filter(|_| known.last_at.is_none_or(|known| known <= last));
    Some(values![
        id,
        known.workspace,
        known.secret,
        known.last_at.max(Some(last)),
        address.map(|(_, address)| address),
        known.secret_at.max(used(known.secret)),
        known.previous_at.max(known.previous.and_then(used))
    ])
}

/// Stores the newest denials of each key.
fn store_latest_denials(sql: Sql<'_>, denied: &[(KeyId, &KeyDelta)], now: UnixSeconds) -> Result<(), StoreError> {
    let mut kept: HashMap<KeyId, Vec<Denial>> = HashMap::new();
    sql.each_in(
        "SELECT key_id, latest FROM key_denials WHERE key_id IN (?1)",
        denied.iter().map(|(id, _)| id),
        |row| {
            kept.insert(row.get(0)?, row.get(1)?);
            Ok::<_, StoreError>(())
        },
    )?;
    let row = |(id, delta): &(KeyId, &KeyDelta)| {
        let mut latest = kept.remove(id).unwrap_or_default();
        latest.extend(delta.denials.iter().map(|denial| Denial { at: denial.at.min(now), ..denial.clone() }));
        latest.sort_by_key(|denial| std::cmp::Reverse(denial.at));
        latest.truncate(MAX_KEPT_DENIALS);
        values![id, latest]
    };
    sql.execute_each(
        "INSERT INTO key_denials (key_id, latest) VALUES (?1, ?2) ON CONFLICT (key_id) DO UPDATE SET latest = excluded.latest",
        denied.iter().map(row),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use policy::Epoch;

    use super::admit::WORKERS;
    use test_support::databases;

    use super::*;
    use crate::base::clock::Clock;
    use crate::base::config::Config;
    use crate::store::records::usage_delta::ALLOWED;
    use crate::store::{ChangeContext, Database, NewKey, NewSecret, NewWorkspace};

    const NOW: UnixSeconds = UnixSeconds(1_795_420_800);

    async fn open(folder: &Path) -> Store {
        let context = ChangeContext::system(NOW);
        let database: Database = databases::of(folder).parse().unwrap();
        Store::open(database, Epoch::from_bytes([1; 16]), &Config::default(), context).await.unwrap()
    }

    fn workspace() -> policy::WorkspaceId {
        policy::WorkspaceId::from_bytes([1; 16])
    }

    fn key(byte: u8) -> KeyId {
        KeyId::from_bytes([byte; 16])
    }

    fn name(worker: &str, sequence: u64) -> BatchName {
        BatchName { instance: "i".to_owned(), worker: worker.to_owned(), sequence }
    }

    fn delta(byte: u8) -> (KeyId, KeyDelta) {
        (key(byte), KeyDelta { counts: [((NOW, ALLOWED), 5)].into(), ..KeyDelta::default() })
    }

    async fn counted(store: &Store, byte: u8) -> u64 {
        let usage = store.usage(workspace(), key(byte), NOW).await.unwrap();
        usage.hours.iter().flat_map(|hour| &hour.counts).map(|(_, count)| count).sum()
    }

    async fn with_keys(folder: &Path, keys: u8) -> Store {
        let store = open(folder).await;
        let new = NewWorkspace { id: workspace(), slug: "acme".to_owned(), name: "Acme".to_owned() };
        store.create_workspace(new, ChangeContext::system(NOW)).await.unwrap();
        for byte in 1..=keys {
            let secret = NewSecret {
                digest: policy::Digest([byte; 32]),
                last_characters: crate::base::secret::LastCharacters("abcd".to_owned()),
            };
            let new = NewKey {
                id: key(byte),
                name: "key".to_owned(),
                environment: policy::Environment::default(),
                scopes: policy::Scopes::default(),
                allowlist: policy::Allowlist::Any,
                expires_at: None,
                metadata: serde_json::Map::new(),
                active: true,
                secret,
            };
            store.create_key(workspace(), new, ChangeContext::system(NOW)).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn an_interrupted_round_is_finished_when_its_batches_are_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_keys(folder.path(), 3).await;
        let names = || vec![name("w1", 7), name("w2", 1)];
        let (round, admitted) = store.begin_usage_round(None, names(), NOW).await.unwrap();
        assert_eq!(admitted, [BatchAdmission::New, BatchAdmission::New]);
        let round = round.unwrap();
        store.fold_usage(round, vec![delta(1)], SlicePosition::More, NOW).await.unwrap();
        store.fold_usage(round, vec![delta(2)], SlicePosition::More, NOW).await.unwrap();
        store.close().await;

        let store = open(folder.path()).await;
        let (again, admitted) = store.begin_usage_round(None, vec![name("w1", 7)], NOW).await.unwrap();
        assert_eq!(admitted, [BatchAdmission::Partial(Some(key(2)))]);
        assert_ne!(again, Some(round));
        store.fold_usage(again.unwrap(), vec![delta(3)], SlicePosition::Last, NOW).await.unwrap();
        for byte in 1..=3 {
            assert_eq!(counted(&store, byte).await, 5, "key {byte}");
        }
        let (none, admitted) = store.begin_usage_round(None, vec![name("w1", 7)], NOW).await.unwrap();
        assert_eq!((none, admitted), (None, vec![BatchAdmission::Duplicate]));
        // The other batch of the interrupted round has not come again yet, and its rest still counts.
        let (_, admitted) = store.begin_usage_round(None, vec![name("w2", 1)], NOW).await.unwrap();
        assert_eq!(admitted, [BatchAdmission::Partial(Some(key(2)))]);
        store.close().await;
    }

    #[tokio::test]
    async fn a_count_stops_at_its_maximum_and_other_keys_are_still_counted() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_keys(folder.path(), 2).await;
        for sequence in 1..=3 {
            let (round, _) = store.begin_usage_round(None, vec![name("w1", sequence)], NOW).await.unwrap();
            let huge = KeyDelta { counts: [((NOW, ALLOWED), u64::MAX)].into(), ..KeyDelta::default() };
            store.fold_usage(round.unwrap(), vec![(key(1), huge), delta(2)], SlicePosition::Last, NOW).await.unwrap();
        }
        assert_eq!((counted(&store, 1).await, counted(&store, 2).await), (1 << 62, 15));
        // The maximum also holds when its hours become days.
        let later = NOW.saturating_add_secs(9 * 86_400);
        store.sweep(&Clock::fixed_at(later, NOW)).await.unwrap();
        let usage = store.usage(workspace(), key(1), later).await.unwrap();
        assert_eq!(usage.days[0].counts, [(ALLOWED.to_owned(), 1 << 62)]);
        store.close().await;
    }

    #[tokio::test]
    async fn a_round_that_was_interrupted_before_its_first_key_counts_all_keys() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_keys(folder.path(), 0).await;
        store.begin_usage_round(None, vec![name("w1", 1)], NOW).await.unwrap();
        let (_, admitted) = store.begin_usage_round(None, vec![name("w1", 1)], NOW).await.unwrap();
        assert_eq!(admitted, [BatchAdmission::Partial(None)]);
        store.close().await;
    }

    #[tokio::test]
    async fn the_sequences_of_an_instance_are_bounded_and_old_ones_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_keys(folder.path(), 0).await;
        let before = store.usage_rows().await.unwrap();
        for worker in 0..WORKERS + 50 {
            let at = NOW.saturating_add_secs(i64::try_from(worker).unwrap());
            let (round, _) = store.begin_usage_round(None, vec![name(&worker.to_string(), 1)], at).await.unwrap();
            store.fold_usage(round.unwrap(), Vec::new(), SlicePosition::Last, at).await.unwrap();
        }
        assert_eq!(store.usage_rows().await.unwrap(), before + u64::try_from(WORKERS).unwrap());
        // An interrupted round is removed with the last worker that could finish it.
        store.begin_usage_round(None, vec![name("last", 1)], NOW).await.unwrap();
        store.sweep(&Clock::fixed_at(NOW.saturating_add_secs(32 * 86_400), NOW)).await.unwrap();
        assert_eq!(store.usage_rows().await.unwrap(), before);
        store.close().await;
    }
}
