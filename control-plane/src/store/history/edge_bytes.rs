//! The bytes that each workspace's records take at an edge, counted with every change.

use std::collections::{BTreeMap, HashMap};

use policy::wire::Op;
use policy::{Digest, WorkspaceId};

use crate::store::StoreError;
use crate::store::db::sql::{Sql, params, values};

/// Counts the bytes at the edges after a change: a digest takes as many bytes as its last operation.
pub(crate) fn count_bytes(sql: Sql<'_>, ops: &[Op]) -> Result<(), StoreError> {
    let taken = |op: &Op| match op {
        Op::Upsert(record) => Some((record.digest, signed(record.bytes()))),
        Op::Remove(digest) => Some((*digest, 0)),
        Op::DefineScope { .. } | Op::DefineEnvironment { .. } => None,
    };
    let taken: HashMap<Digest, i64> = ops.iter().filter_map(taken).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let (mut differing, mut by_workspace) = (Vec::new(), BTreeMap::<WorkspaceId, i64>::new());
    sql.each_in("SELECT digest, workspace_id, edge_bytes FROM secrets WHERE digest IN (?1)", taken.keys(), |row| {
        let (digest, before) = (row.get::<Digest>(0)?, row.get::<i64>(2)?);
        let after = taken.get(&digest).copied().unwrap_or(before);
        if after != before {
            differing.push(values![digest, after]);
            let difference = by_workspace.entry(row.get(1)?).or_default();
            *difference = difference.saturating_add(after.saturating_sub(before));
        }
        Ok::<_, StoreError>(())
    })?;
    sql.execute_each(
        "UPDATE secrets SET edge_bytes = one.column2 FROM (VALUES (?1, ?2)) AS one WHERE digest = one.column1",
        differing,
    )?;
    for (workspace, difference) in by_workspace.into_iter().filter(|(_, difference)| *difference != 0) {
        sql.execute(
            "UPDATE workspaces SET edge_bytes = edge_bytes + ?2 WHERE id = ?1",
            params![workspace, difference],
        )?;
    }
    Ok(())
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
