//! Rounds of usage: batches are noted, then folded in slices, so that each counts once whatever breaks off.
//!
//! All of it is no change of what edges enforce: it has no revision and no event.

use policy::{KeyId, UnixSeconds};

use super::changes::Change;
use super::sql::{Optional as _, Sql, params};
use super::{Store, StoreError, usage};
use crate::usage::{BatchName, Denial, KeyDelta, LATEST, SecretMark};

/// Workers of an instance whose sequences are kept; the one that was silent longest makes room for another.
const WORKERS: i64 = 1_024;

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    New,
    /// A round that broke off has folded it up to this key; `None`: not even the first.
    Behind(Option<KeyId>),
    Counted,
}

/// A round that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round(i64);

/// Whether a slice is the round's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    End,
}

impl Store {
    /// Says what is to be counted of each of these batches, and notes those that are: as part of `round`, or of a new one,
    /// which is answered.
    pub(crate) async fn begin_usage_round(
        &self,
        round: Option<Round>,
        names: Vec<BatchName>,
        now: UnixSeconds,
    ) -> Result<(Option<Round>, Vec<Admitted>), StoreError> {
        let work = move |change: &Change<'_>| {
            let (mut round, mut admitted) = (round, Vec::with_capacity(names.len()));
            for name in &names {
                admitted.push(admit(change.sql(), &mut round, name, now)?);
            }
            Ok((round, admitted))
        };
        self.engine.change(work).await
    }

    /// Adds to these keys, which lie in order behind those that the round has folded before.
    pub(crate) async fn fold_usage(
        &self,
        Round(round): Round,
        keys: Vec<(KeyId, KeyDelta)>,
        then: Then,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        let work = move |change: &Change<'_>| {
            let sql = change.sql();
            for (key, delta) in &keys {
                fold(sql, *key, delta, now)?;
            }
            match (then, keys.last()) {
                (Then::End, _) => {
                    sql.prepare("DELETE FROM usage_rounds WHERE id = ?1")?.execute(params![round])?;
                }
                (Then::GoOn, Some((last, _))) => {
                    sql.prepare("UPDATE usage_rounds SET folded_to = ?2 WHERE id = ?1")?
                        .execute(params![round, last.as_bytes()])?;
                }
                (Then::GoOn, None) => {}
            }
            Ok(())
        };
        self.engine.change(work).await
    }
}

fn admit(
    sql: Sql<'_>,
    round: &mut Option<Round>,
    BatchName { instance, worker, sequence }: &BatchName,
    now: UnixSeconds,
) -> Result<Admitted, StoreError> {
    let sequence = i64::try_from(*sequence).unwrap_or(i64::MAX);
    let known = sql
        .prepare(
            "SELECT w.sequence, r.folded_to FROM usage_workers w LEFT JOIN usage_rounds r ON r.id = w.round
             WHERE w.instance = ?1 AND w.worker = ?2",
        )?
        .query_row(params![instance, worker], |row| Ok((row.get::<i64>(0)?, row.get::<Option<Vec<u8>>>(1)?)))
        .optional()?;
    let admitted = match known {
        None => {
            make_room(sql, instance)?;
            Admitted::New
        }
        Some((last, _)) if last < sequence => Admitted::New,
        Some((last, Some(folded_to))) if last == sequence => {
            Admitted::Behind(<[u8; 16]>::try_from(folded_to).ok().map(KeyId::from_bytes))
        }
        Some(_) => return Ok(Admitted::Counted),
    };
    let Round(round) = match *round {
        Some(begun) => begun,
        None => *round.insert(begin(sql)?),
    };
    sql.prepare(
        "INSERT INTO usage_workers (instance, worker, sequence, round, noted_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (instance, worker) DO UPDATE SET sequence = ?3, round = ?4, noted_at = ?5",
    )?
    .execute(params![instance, worker, sequence, round, now.0])?;
    Ok(admitted)
}

fn begin(sql: Sql<'_>) -> Result<Round, StoreError> {
    let mut begin = sql.prepare("INSERT INTO usage_rounds (folded_to) VALUES (?1) RETURNING id")?;
    Ok(begin.query_row(params![[0_u8; 0]], |row| row.get(0).map(Round))?)
}

/// An instance whose VMs break again and again has ever new workers.
fn make_room(sql: Sql<'_>, instance: &str) -> Result<(), StoreError> {
    let count: i64 = sql
        .prepare("SELECT count(*) FROM usage_workers WHERE instance = ?1")?
        .query_row(params![instance], |row| row.get(0))?;
    if count >= WORKERS {
        sql.prepare(
            "DELETE FROM usage_workers WHERE instance = ?1 AND worker = (
                 SELECT worker FROM usage_workers WHERE instance = ?1 ORDER BY noted_at, sequence LIMIT 1)",
        )?
        .execute(params![instance])?;
    }
    Ok(())
}

/// What a key's row says of its secrets and their last use.
struct Known {
    last_at: Option<i64>,
    secret: SecretMark,
    secret_at: Option<i64>,
    previous: Option<SecretMark>,
    previous_at: Option<i64>,
}

/// Adds to one key; nothing where there is no such key.
fn fold(sql: Sql<'_>, key: KeyId, delta: &KeyDelta, now: UnixSeconds) -> Result<(), StoreError> {
    let known = sql
        .prepare(
            "SELECT last_used_at, secret, secret_last_used_at, previous_secret, previous_secret_last_used_at
             FROM key_usage WHERE key_id = ?1",
        )?
        .query_row(params![key.as_bytes()], |row| {
            Ok(Known {
                last_at: row.get(0)?,
                secret: SecretMark(row.get(1)?),
                secret_at: row.get(2)?,
                previous: row.get::<Option<[u8; 4]>>(3)?.map(SecretMark),
                previous_at: row.get(4)?,
            })
        })
        .optional()?;
    let Some(known) = known else { return Ok(()) };
    if let Some(last) = delta.used.iter().map(|(_, at)| at.0).max() {
        // An edge's clock may be ahead.
        let used = |mark: SecretMark| delta.used.iter().find(|(own, _)| *own == mark).map(|(_, at)| at.0.min(now.0));
        let last = last.min(now.0);
        let address = delta.last.filter(|_| known.last_at.is_none_or(|known| known <= last));
        sql.prepare(
            "UPDATE key_usage SET last_used_at = ?2, last_used_ip = coalesce(?3, last_used_ip),
                 secret_last_used_at = ?4, previous_secret_last_used_at = ?5
             WHERE key_id = ?1",
        )?
        .execute(params![
            key.as_bytes(),
            known.last_at.max(Some(last)),
            address.map(|(_, address)| address.to_string()),
            known.secret_at.max(used(known.secret)),
            known.previous_at.max(known.previous.and_then(used))
        ])?;
    }
    for (hour, outcome, more) in &delta.counts {
        usage::add(sql, key, (*hour, outcome, *more), now)?;
    }
    if !delta.denials.is_empty() {
        keep_latest(sql, key, &delta.denials, now)?;
    }
    Ok(())
}

fn keep_latest(sql: Sql<'_>, key: KeyId, denials: &[Denial], now: UnixSeconds) -> Result<(), StoreError> {
    let mut latest = usage::denials(sql, key)?;
    latest.extend(denials.iter().map(|denial| Denial { at: denial.at.min(now), ..denial.clone() }));
    latest.sort_by_key(|denial| std::cmp::Reverse(denial.at));
    latest.truncate(LATEST);
    let latest = serde_json::to_string(&latest).map_err(|error| StoreError::Fault(error.to_string()))?;
    sql.prepare(
        "INSERT INTO key_denials (key_id, latest) VALUES (?1, ?2) ON CONFLICT (key_id) DO UPDATE SET latest = excluded.latest",
    )?
    .execute(params![key.as_bytes(), latest])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use policy::Epoch;

    use super::*;
    use crate::config::Config;
    use crate::store::{Acting, Database, NewKey, NewSecret, NewWorkspace, databases};
    use crate::usage::ALLOWED;

    const NOW: UnixSeconds = UnixSeconds(1_795_420_800);

    async fn open(folder: &Path) -> Store {
        let acting = Acting::system(NOW);
        let database: Database = databases::of(folder).parse().unwrap();
        Store::open(database, Epoch::from_bytes([1; 16]), &Config::default(), acting).await.unwrap()
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
        (key(byte), KeyDelta { counts: vec![(NOW, ALLOWED, 5)], ..KeyDelta::default() })
    }

    async fn counted(store: &Store, byte: u8) -> u64 {
        let usage = store.usage(workspace(), key(byte), NOW).await.unwrap();
        usage.hours.iter().flat_map(|hour| &hour.counts).map(|(_, count)| count).sum()
    }

    async fn with_keys(folder: &Path, keys: u8) -> Store {
        let store = open(folder).await;
        let new = NewWorkspace { id: workspace(), slug: "acme".to_owned(), name: "Acme".to_owned() };
        store.create_workspace(new, Acting::system(NOW)).await.unwrap();
        for byte in 1..=keys {
            let secret = NewSecret {
                digest: policy::Digest([byte; 32]),
                last_characters: crate::secret::LastCharacters("abcd".to_owned()),
            };
            let new = NewKey {
                id: key(byte),
                name: "key".to_owned(),
                environment: policy::Environment::default(),
                scopes: policy::Scopes::default(),
                allowlist: policy::Allowlist::Any,
                expires_at: None,
                metadata: serde_json::Map::new(),
                secret,
            };
            store.create_key(workspace(), new, Acting::system(NOW)).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn a_round_that_broke_off_is_finished_when_its_batches_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_keys(folder.path(), 3).await;
        let names = || vec![name("w1", 7), name("w2", 1)];
        let (round, admitted) = store.begin_usage_round(None, names(), NOW).await.unwrap();
        assert_eq!(admitted, [Admitted::New, Admitted::New]);
        let round = round.unwrap();
        store.fold_usage(round, vec![delta(1)], Then::GoOn, NOW).await.unwrap();
        store.fold_usage(round, vec![delta(2)], Then::GoOn, NOW).await.unwrap();
        store.close().await;

        let store = open(folder.path()).await;
        let (again, admitted) = store.begin_usage_round(None, vec![name("w1", 7)], NOW).await.unwrap();
        assert_eq!(admitted, [Admitted::Behind(Some(key(2)))]);
        assert_ne!(again, Some(round));
        store.fold_usage(again.unwrap(), vec![delta(3)], Then::End, NOW).await.unwrap();
        for byte in 1..=3 {
            assert_eq!(counted(&store, byte).await, 5, "key {byte}");
        }
        let (none, admitted) = store.begin_usage_round(None, vec![name("w1", 7)], NOW).await.unwrap();
        assert_eq!((none, admitted), (None, vec![Admitted::Counted]));
        // The other batch of the round that broke off didn't come again yet, and is still owed the rest.
        let (_, admitted) = store.begin_usage_round(None, vec![name("w2", 1)], NOW).await.unwrap();
        assert_eq!(admitted, [Admitted::Behind(Some(key(2)))]);
        store.close().await;
    }

    #[tokio::test]
    async fn a_round_that_broke_off_before_its_first_key_is_all_new() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_keys(folder.path(), 0).await;
        store.begin_usage_round(None, vec![name("w1", 1)], NOW).await.unwrap();
        let (_, admitted) = store.begin_usage_round(None, vec![name("w1", 1)], NOW).await.unwrap();
        assert_eq!(admitted, [Admitted::Behind(None)]);
        store.close().await;
    }

    #[tokio::test]
    async fn the_sequences_of_an_instance_are_bounded_and_those_long_silent_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_keys(folder.path(), 0).await;
        let before = store.usage_rows().await.unwrap();
        for worker in 0..WORKERS + 50 {
            let at = NOW.saturating_add_secs(worker);
            let (round, _) = store.begin_usage_round(None, vec![name(&worker.to_string(), 1)], at).await.unwrap();
            store.fold_usage(round.unwrap(), Vec::new(), Then::End, at).await.unwrap();
        }
        assert_eq!(store.usage_rows().await.unwrap(), before + u64::try_from(WORKERS).unwrap());
        // A round that broke off goes with the last worker that could finish it.
        store.begin_usage_round(None, vec![name("last", 1)], NOW).await.unwrap();
        store.sweep(Acting::system(NOW.saturating_add_secs(32 * 86_400))).await.unwrap();
        assert_eq!(store.usage_rows().await.unwrap(), before);
        store.close().await;
    }
}
