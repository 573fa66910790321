//! What admin tokens and edge tokens have in common: they are shown, listed, revoked, and found by digest.

use std::num::NonZeroU32;

use policy::{Digest, Revision, UnixSeconds, WorkspaceId};

use crate::store::db::sql::{Optional as _, Param, Row, Sql, SqlError, ToParam, params};
use crate::store::history::audit::{Audited, Event};
use crate::store::history::changes::{Change, Write};
use crate::store::{AtRevision, Page, Precondition, StoreError};

/// A kind of token. Its table has the columns `id`, `digest`, `last_used_at`, `revoked_at` and `revision`, and
/// `workspace_id` if its tokens can be bound to a workspace.
pub(crate) trait Token: Audited + Sized {
    type Id: ToParam + Copy;

    const TABLE: &'static str;

    /// The columns that [`Self::read`] reads, in this order.
    const COLUMNS: &'static str;

    /// The actions in the audit log.
    const CREATED: &'static str;
    const REVOKED: &'static str;

    fn read(row: &Row<'_>) -> Result<Self, SqlError>;

    fn revision(&self) -> Revision;
}

/// Which tokens to list.
#[derive(Clone, Debug)]
pub struct TokenQuery<Id> {
    pub limit: NonZeroU32,
    /// The last one of the previous page.
    pub after: Option<Id>,
}

/// Ids sort by creation. These bytes are not an id, and sort before all ids.
const BEFORE_ALL_IDS: [u8; 16] = [0; 16];

/// Records that a token was created, by a statement that inserted this many rows: none if its digest is known already.
pub(crate) fn record_created<T: Token>(
    change: &Change<'_>,
    id: T::Id,
    inserted: usize,
) -> Result<AtRevision<T>, StoreError> {
    if inserted == 0 {
        return Err(StoreError::SecretTaken);
    }
    let value: T = find(change.sql(), id, None)?;
    let revision = change.record(&Event::created(T::CREATED, &value), &[])?;
    Ok(AtRevision { value, revision })
}

/// The token with this id. `NotFound` if it was revoked, or if it isn't bound to `within`, when that is given.
pub(crate) fn find<T: Token>(sql: Sql<'_>, id: T::Id, within: Option<WorkspaceId>) -> Result<T, StoreError> {
    let (columns, table) = (T::COLUMNS, T::TABLE);
    let condition = if within.is_some() { " AND workspace_id = ?2" } else { "" };
    let statement = format!("SELECT {columns} FROM {table} WHERE id = ?1 AND revoked_at IS NULL{condition}");
    let params: Vec<_> = [id.to_param()].into_iter().chain(within.as_ref().map(ToParam::to_param)).collect();
    sql.query_row(&statement, &params, T::read).optional()?.ok_or(StoreError::NotFound)
}

/// The token with this digest, including revoked and expired ones.
pub(crate) fn find_digest<T: Token>(sql: Sql<'_>, digest: Digest) -> Result<Option<T>, StoreError> {
    let statement = format!("SELECT {} FROM {} WHERE digest = ?1", T::COLUMNS, T::TABLE);
    Ok(sql.query_row(&statement, params![digest], T::read).optional()?)
}

/// A page of the tokens that aren't revoked, oldest first: all of them, or those bound to `within`.
pub(crate) fn list<T: Token>(
    sql: Sql<'_>,
    query: &TokenQuery<T::Id>,
    within: Option<WorkspaceId>,
) -> Result<Page<T>, StoreError> {
    let (columns, table) = (T::COLUMNS, T::TABLE);
    let condition = if within.is_some() { " AND workspace_id = ?3" } else { "" };
    let statement =
        format!("SELECT {columns} FROM {table} WHERE id > ?1 AND revoked_at IS NULL{condition} ORDER BY id LIMIT ?2");
    let after = query.after.as_ref().map_or(BEFORE_ALL_IDS.to_param(), ToParam::to_param);
    let limit = Param::Integer(i64::from(query.limit.get()).saturating_add(1));
    let params: Vec<_> = [after, limit].into_iter().chain(within.as_ref().map(ToParam::to_param)).collect();
    Ok(Page::cut(sql.prepare(&statement)?.query_map(&params, T::read)?, query.limit))
}

pub(crate) fn revoke<T: Token>(
    change: &Change<'_>,
    id: T::Id,
    within: Option<WorkspaceId>,
    precondition: &Precondition,
) -> Result<AtRevision<()>, StoreError> {
    let token: T = find(change.sql(), id, within)?;
    precondition.check(token.revision())?;
    let statement = format!("UPDATE {} SET revoked_at = ?2, revision = ?3 WHERE id = ?1", T::TABLE);
    change.sql().execute(&statement, params![id, change.at(), change.revision()?])?;
    let revision = change.record(&Event::ended(T::REVOKED, &token), &[])?;
    Ok(AtRevision { value: (), revision })
}

/// Records that a token was used. This is not a change: it has no revision and no audit event.
pub(crate) fn record_use<T: Token>(write: &Write<'_>, id: T::Id, at: UnixSeconds) -> Result<(), StoreError> {
    let table = T::TABLE;
    let statement = format!("UPDATE {table} SET last_used_at = ?2 WHERE id = ?1 AND coalesce(last_used_at, ?2) <= ?2");
    write.sql().execute(&statement, params![id, at])?;
    Ok(())
}
