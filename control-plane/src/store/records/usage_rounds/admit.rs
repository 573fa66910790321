//! Admission of usage batches: each sequence of a worker counts once. Only a worker's newest sequence is stored.

use std::collections::{BTreeMap, HashMap, HashSet};

use policy::{KeyId, UnixSeconds};

use super::{BatchAdmission, Round};
use crate::store::StoreError;
use crate::store::db::sql::{Sql, params, values};
use crate::store::records::usage_delta::BatchName;

/// The most workers of an instance whose sequences are stored. A new worker replaces the one whose last batch is the
/// oldest.
pub(super) const WORKERS: usize = 1_024;

/// The newest sequence of a worker, as stored.
struct WorkerSequence {
    sequence: i64,
    /// The last key that the round of its last batch has added; `None`: the round is complete.
    folded_to: Option<Vec<u8>>,
    at: UnixSeconds,
}

/// The rows to write, and those to delete.
#[derive(Default)]
struct Writes<'a> {
    /// The newest sequence, by instance and worker.
    sequences: BTreeMap<(&'a str, &'a str), i64>,
    removed: Vec<(&'a str, String)>,
}

/// Decides which part of each of these batches counts, and records those that count as part of `round`, or of a new
/// round.
pub(super) fn admit(
    sql: Sql<'_>,
    round: &mut Option<Round>,
    names: &[BatchName],
    now: UnixSeconds,
) -> Result<Vec<BatchAdmission>, StoreError> {
    let mut known = load_workers(sql, names)?;
    let (mut admitted, mut writes) = (Vec::with_capacity(names.len()), Writes::default());
    for BatchName { instance, worker, sequence } in names {
        let sequence = i64::try_from(*sequence).unwrap_or(i64::MAX);
        let workers = known.entry(instance).or_default();
        let most = max_sequence(workers.get(worker), now);
        let admission = match workers.get(worker) {
            _ if sequence > most => BatchAdmission::SequenceTooHigh { most: u64::try_from(most).unwrap_or_default() },
            None => {
                evict_longest_silent(workers, instance, &mut writes);
                BatchAdmission::New
            }
            Some(WorkerSequence { sequence: last, .. }) if *last < sequence => BatchAdmission::New,
            Some(WorkerSequence { sequence: last, folded_to: Some(folded_to), .. }) if *last == sequence => {
                BatchAdmission::Partial(<[u8; 16]>::try_from(folded_to.as_slice()).ok().map(KeyId::from_bytes))
            }
            Some(_) => BatchAdmission::Duplicate,
        };
        admitted.push(admission);
        if matches!(admission, BatchAdmission::New | BatchAdmission::Partial(_)) {
            workers.insert(worker.clone(), WorkerSequence { sequence, folded_to: Some(Vec::new()), at: now });
            writes.sequences.insert((instance, worker), sequence);
        }
    }
    if !writes.sequences.is_empty() {
        let Round(round) = match *round {
            Some(begun) => begun,
            None => *round.insert(begin(sql)?),
        };
        write(sql, &writes, round, now)?;
    }
    Ok(admitted)
}

/// The highest sequence that a worker can have by now: one more than its last, plus one for each second since then,
/// because it may have lost batches. An unknown worker may be one whose row was deleted, so its seconds are counted
/// from 1970 on.
fn max_sequence(worker: Option<&WorkerSequence>, now: UnixSeconds) -> i64 {
    let (last, at) = worker.map_or((0, UnixSeconds(0)), |stored| (stored.sequence, stored.at));
    last.saturating_add(1).saturating_add(now.0.saturating_sub(at.0).max(0))
}

/// The stored workers of these instances.
fn load_workers<'a>(
    sql: Sql<'_>,
    names: &'a [BatchName],
) -> Result<HashMap<&'a str, HashMap<String, WorkerSequence>>, StoreError> {
    let instances: HashSet<_> = names.iter().map(|name| name.instance.as_str()).collect();
    let mut known: HashMap<_, HashMap<_, _>> = instances.iter().map(|instance| (*instance, HashMap::new())).collect();
    let statement = "SELECT w.instance, w.worker, w.sequence, r.folded_to, w.noted_at
                     FROM usage_workers w LEFT JOIN usage_rounds r ON r.id = w.round WHERE w.instance IN (?1)";
    sql.each_in(statement, instances, |row| {
        let stored = WorkerSequence { sequence: row.get(2)?, folded_to: row.get(3)?, at: row.get(4)? };
        if let Some(workers) = known.get_mut(row.text(0)?) {
            workers.insert(row.get(1)?, stored);
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(known)
}

/// Removes the worker whose last batch is the oldest if the instance has too many: one whose VMs crash repeatedly gets
/// new workers again and again.
fn evict_longest_silent<'a>(workers: &mut HashMap<String, WorkerSequence>, instance: &'a str, writes: &mut Writes<'a>) {
    if workers.len() < WORKERS {
        return;
    }
    let silent =
        workers.iter().min_by_key(|(_, stored)| (stored.at, stored.sequence)).map(|(worker, _)| worker.clone());
    if let Some(silent) = silent {
        workers.remove(&silent);
        writes.sequences.retain(|(of, worker), _| (*of, *worker) != (instance, silent.as_str()));
        writes.removed.push((instance, silent));
    }
}

fn begin(sql: Sql<'_>) -> Result<Round, StoreError> {
    let mut begin = sql.prepare("INSERT INTO usage_rounds (folded_to) VALUES (?1) RETURNING id")?;
    Ok(begin.query_row(params![[0_u8; 0]], |row| row.get(0).map(Round))?)
}

fn write(
    sql: Sql<'_>,
    Writes { sequences, removed }: &Writes<'_>,
    round: i64,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    for (instance, worker) in removed {
        sql.prepare("DELETE FROM usage_workers WHERE instance = ?1 AND worker = ?2")?
            .execute(params![instance, worker])?;
    }
    let row = |((instance, worker), sequence): (&(&str, &str), &i64)| values![instance, worker, sequence, round, now];
    sql.execute_each(
        "INSERT INTO usage_workers (instance, worker, sequence, round, noted_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (instance, worker) DO UPDATE SET sequence = excluded.sequence, round = excluded.round,
             noted_at = excluded.noted_at",
        sequences.iter().map(row),
    )?;
    Ok(())
}
