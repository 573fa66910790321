//! Digests that were chosen so that all of them fall into one page of a snapshot.
//!
//! A page has all digests that begin with the same 16 bits, and is a message with a bound in bytes: one that is full would keep
//! every new edge from loading. Digests of secrets are spread evenly, so none of this ever refuses a real one.

use std::collections::HashMap;

use policy::{Digest, WorkspaceId};

use super::super::StoreError;
use super::super::sql::{Sql, params};

/// Digests of one workspace that may begin with the same 16 bits. A million real ones have some 15; the largest records of so
/// many take 2.5 MB, of 32 MiB that a page may have.
const MOST: usize = if cfg!(test) { 8 } else { 1_024 };

/// Rows that are looked at for one page: of ten million keys it has 150.
const ROWS: i64 = 65_536;

/// Of an import so large only pages are looked at that get more than one digest for each so many: what escapes is little, even of
/// many imports.
const LOOKED_AT: usize = 4_096;

/// `DigestsTaken` with the lines of digests that would crowd a page beside those that the workspace has, deleted keys' included.
/// Costs one question for each page that is looked at, 4,096 at most.
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

/// How many digests of a workspace begin so.
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
