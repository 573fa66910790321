//! The limit of digests in a snapshot page: refuses digests that were chosen to fall into the same page.
//!
//! A page contains all digests that begin with the same 16 bits. It is one message of limited size, so a page that is
//! too large would keep every new edge from loading. Digests of real secrets are spread evenly, so none of them is ever
//! refused.

use std::collections::HashMap;

use policy::{Digest, WorkspaceId};

use crate::store::StoreError;
use crate::store::db::sql::{Sql, params};

/// The most digests of one workspace that may begin with the same 16 bits. A million real ones have about 15 in each
/// page. The largest records of 1,024 keys take 2.5 MB, and a page may have 32 MiB.
const MAX_PER_PAGE: usize = if cfg!(test) { 8 } else { 1_024 };

/// The most rows to read for one page. With ten million keys a page has 150.
const MAX_ROWS: i64 = 65_536;

/// A page is checked only if it gets more than one in this many of an import's digests. Few digests
/// escape the check, even in many imports.
const CHECKED_SHARE: usize = 4_096;

/// Fails with `DigestsTaken` and the lines of digests that, together with those that the workspace already has (deleted
/// keys included), would overfill a page. Costs one query for each page that is checked, 4,096 at most.
pub(super) fn check(sql: Sql<'_>, workspace: WorkspaceId, digests: &[(Digest, usize)]) -> Result<(), StoreError> {
    let mut pages: HashMap<[u8; 2], Vec<usize>> = HashMap::new();
    for (digest, line) in digests {
        if let Some(page) = digest.0.first_chunk() {
            pages.entry(*page).or_default().push(*line);
        }
    }
    let mut refused = Vec::new();
    for (page, lines) in pages {
        let is_crowded = lines.len() > MAX_PER_PAGE
            || (lines.len() > digests.len() / CHECKED_SHARE
                && lines.len().saturating_add(count_in_page(sql, workspace, page)?) > MAX_PER_PAGE);
        if is_crowded {
            refused.extend(lines.into_iter().map(|line| (line, Some(workspace))));
        }
    }
    refused.sort_unstable();
    if refused.is_empty() { Ok(()) } else { Err(StoreError::DigestsTaken { lines: refused }) }
}

/// The number of a workspace's digests in this page.
fn count_in_page(sql: Sql<'_>, workspace: WorkspaceId, page: [u8; 2]) -> Result<usize, StoreError> {
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
    let count = sql.query_row(statement, params![params.0, params.1, MAX_ROWS, workspace], |row| row.get::<i64>(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}
