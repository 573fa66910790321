//! Which batches count: each sequence of a worker once. Only a worker's newest sequence is stored.

use std::collections::{BTreeMap, HashMap, HashSet};

use policy::{KeyId, UnixSeconds};

use super::{Admitted, Round};
use crate::store::StoreError;
use crate::store::sql::{Sql, Value, params, values};
use crate::usage::BatchName;

/// The most workers of an instance whose sequences are stored. A new worker replaces the one that was silent longest.
pub(super) const WORKERS: usize = 1_024;

/// What is stored of a worker.
struct Noted {
    sequence: i64,
    /// The last key to which the round of its last batch was folded; `None`: the round is complete.
    folded_to: Option<Vec<u8>>,
    at: i64,
}

/// The rows to write, and those to delete.
#[derive(Default)]
struct Writes<'a> {
    /// The newest sequence, by instance and worker.
    noted: BTreeMap<(&'a str, &'a str), i64>,
    forgotten: Vec<(&'a str, String)>,
}

/// Decides what counts of each of these batches, and records those that count as part of `round`, or of a new round.
pub(super) fn admit(
    sql: Sql<'_>,
    round: &mut Option<Round>,
    names: &[BatchName],
    now: UnixSeconds,
) -> Result<Vec<Admitted>, StoreError> {
    let mut known = known(sql, names)?;
    let (mut admitted, mut writes) = (Vec::with_capacity(names.len()), Writes::default());
    for BatchName { instance, worker, sequence } in names {
        let sequence = i64::try_from(*sequence).unwrap_or(i64::MAX);
        let workers = known.entry(instance).or_default();
        let most = most(workers.get(worker), now);
        let one = match workers.get(worker) {
            _ if sequence > most => Admitted::Jumps { most: u64::try_from(most).unwrap_or_default() },
            None => {
                make_room(workers, instance, &mut writes);
                Admitted::New
            }
            Some(Noted { sequence: last, .. }) if *last < sequence => Admitted::New,
            Some(Noted { sequence: last, folded_to: Some(folded_to), .. }) if *last == sequence => {
                Admitted::Behind(<[u8; 16]>::try_from(folded_to.as_slice()).ok().map(KeyId::from_bytes))
            }
            Some(_) => Admitted::Counted,
        };
        admitted.push(one);
        if matches!(one, Admitted::New | Admitted::Behind(_)) {
            workers.insert(worker.clone(), Noted { sequence, folded_to: Some(Vec::new()), at: now.0 });
            writes.noted.insert((instance, worker), sequence);
        }
    }
    if !writes.noted.is_empty() {
        let Round(round) = match *round {
            Some(begun) => begun,
            None => *round.insert(begin(sql)?),
        };
        write(sql, &writes, round, now)?;
    }
    Ok(admitted)
}

/// The highest sequence that a worker can have by now: one more than its last, plus one for each second since then,
/// because it may have lost batches. The control plane may have forgotten everything about an unknown worker, but no
/// worker has counted since before 1970.
fn most(worker: Option<&Noted>, now: UnixSeconds) -> i64 {
    let (last, at) = worker.map_or((0, 0), |noted| (noted.sequence, noted.at));
    last.saturating_add(1).saturating_add(now.0.saturating_sub(at).max(0))
}

/// The stored workers of these instances.
fn known<'a>(sql: Sql<'_>, names: &'a [BatchName]) -> Result<HashMap<&'a str, HashMap<String, Noted>>, StoreError> {
    let instances: HashSet<_> = names.iter().map(|name| name.instance.as_str()).collect();
    let mut known: HashMap<_, HashMap<_, _>> = instances.iter().map(|instance| (*instance, HashMap::new())).collect();
    let statement = "SELECT w.instance, w.worker, w.sequence, r.folded_to, w.noted_at
                     FROM usage_workers w LEFT JOIN usage_rounds r ON r.id = w.round WHERE w.instance IN (?1)";
    let instances: Vec<_> = instances.into_iter().map(Value::of).collect();
    sql.each_in(statement, &instances, |row| {
        let noted = Noted { sequence: row.get(2)?, folded_to: row.get(3)?, at: row.get(4)? };
        if let Some(workers) = known.get_mut(row.text(0)?) {
            workers.insert(row.get(1)?, noted);
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(known)
}

/// An instance whose VMs crash again and again keeps getting new workers.
fn make_room<'a>(workers: &mut HashMap<String, Noted>, instance: &'a str, writes: &mut Writes<'a>) {
    if workers.len() < WORKERS {
        return;
    }
    let silent = workers.iter().min_by_key(|(_, noted)| (noted.at, noted.sequence)).map(|(worker, _)| worker.clone());
    if let Some(silent) = silent {
        workers.remove(&silent);
        writes.noted.retain(|(of, worker), _| (*of, *worker) != (instance, silent.as_str()));
        writes.forgotten.push((instance, silent));
    }
}

fn begin(sql: Sql<'_>) -> Result<Round, StoreError> {
    let mut begin = sql.prepare("INSERT INTO usage_rounds (folded_to) VALUES (?1) RETURNING id")?;
    Ok(begin.query_row(params![[0_u8; 0]], |row| row.get(0).map(Round))?)
}

fn write(
    sql: Sql<'_>,
    Writes { noted, forgotten }: &Writes<'_>,
    round: i64,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    for (instance, worker) in forgotten {
        sql.prepare("DELETE FROM usage_workers WHERE instance = ?1 AND worker = ?2")?
            .execute(params![instance, worker])?;
    }
    let row = |((instance, worker), sequence): (&(&str, &str), &i64)| values![instance, worker, sequence, round, now.0];
    sql.execute_each(
        "INSERT INTO usage_workers (instance, worker, sequence, round, noted_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (instance, worker) DO UPDATE SET sequence = excluded.sequence, round = excluded.round,
             noted_at = excluded.noted_at",
        &noted.iter().map(row).collect::<Vec<_>>(),
    )?;
    Ok(())
}
