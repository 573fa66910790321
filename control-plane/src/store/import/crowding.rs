//! Refuses digests that were chosen so that all of them fall into one page of a snapshot.
//!
//! A page contains all digests that begin with the same 16 bits. It is one message of limited size, so a page that is
//! too large would keep every new edge from loading. Digests of real secrets are spread evenly, so none of them is ever
//! refused.

use std::collections::HashMap;

use policy::{Digest, WorkspaceId};

use super::super::StoreError;
use super::super::sql::{Sql, params};

/// The most digests of one workspace that may begin with the same 16 bits. A million real ones have about 15 in each
/// page. The largest records of 1,024 keys take 2.5 MB, and a page may have 32 MiB.
const MOST: usize = if cfg!(test) { 8 } else { 1_024 };

/// The most rows to read for one page. With ten million keys a page has 150.
const ROWS: i64 = 65_536;

/// A page is checked only if it gets more than one in this many of an import's digests. What escapes is little, even of
/// many imports.
const LOOKED_AT: usize = 4_096;

/// Fails with `DigestsTaken` and the lines of digests that, together with those that the workspace already has (deleted
/// keys included), would overfill a page. Costs one query for each page that is checked, 4,096 at most.
pub(super) fn refuse(sql: Sql<'_>, workspace: WorkspaceId, digests: &[(Digest, usize)]) -> Result<(), StoreError> {
    let mut pages: HashMap<[u8; 2], Vec<usize>> = HashMap::new();
    for (digest, line) in digests {
        if let Some(page) = digest.0.first_chunk() {
            pages.entry(*page).or_default().push(*line);
        }
    }
    let mut refused = Vec::new();
    for (page, lines) in pages {
        let is_crowded = lines.len() > MOST
            || (lines.len() > digests.len() / LOOKED_AT
                && lines.len().saturating_add(known(sql, workspace, page)?) > MOST);
        if is_crowded {
            refused.extend(lines.into_iter().map(|line| (line, Some(workspace))));
        }
    }
    refused.sort_unstable();
    if refused.is_empty() { Ok(()) } else { Err(StoreError::DigestsTaken { lines: refused }) }
}

/// How many of a workspace's digests are in this page.
fn known(sql: Sql<'_>, workspace: WorkspaceId, page: [u8; 2]) -> Result<usize, StoreError> {
    let end = |fill: u8| {
        let mut digest = [fill; 32];
        if let Some(first) = digest.first_chunk_mut() {
            *first = page;
        }
        digest
    };
    let statement = "SELECT count(*) FROM (
            SELECT workspace_id FROM secrets WHERE digest BETWEEN ?1 AND ?2 LIMIT ?3) AS page
        WHERE page.workspace_id = ?4";
    let params = (end(0), end(0xff));
    let count =
        sql.query_row(statement, params![params.0, params.1, ROWS, workspace.as_bytes()], |row| row.get::<i64>(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}
