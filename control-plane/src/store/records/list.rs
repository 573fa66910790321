//! Pagination: each page begins after the last item of the previous one, so that writes in between shift nothing.

use std::num::NonZeroU32;

use policy::{KeyId, UnixSeconds, WorkspaceId};

use super::keys::{COLUMNS, TABLES, key};
use super::names::{FOLDED_NAME, fold_case};
use crate::store::db::sql::{Sql, Value, values};
use crate::store::{Key, KeyFilter, Store, StoreError};

/// Items, and whether more follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl<T> Page<T> {
    /// Truncates `limit` + 1 queried items to `limit`: the last one only shows that there are more.
    pub(crate) fn cut(mut items: Vec<T>, limit: NonZeroU32) -> Self {
        let limit = usize::try_from(limit.get()).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }
}

/// Which workspaces to list.
#[derive(Clone, Debug)]
pub struct WorkspaceQuery {
    pub limit: NonZeroU32,
    /// The last one of the previous page.
    pub after: Option<WorkspaceId>,
    /// Only this one; `None`: all.
    pub within: Option<WorkspaceId>,
}

/// The order of a list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Oldest,
    Newest,
    Name,
    NameDescending,
}

/// Which keys of a workspace to list.
#[derive(Clone, Debug)]
pub struct KeyQuery {
    pub limit: NonZeroU32,
    pub sort: Sort,
    /// Name and id of the last one of the previous page.
    pub after: Option<(String, KeyId)>,
    pub filter: KeyFilter,
    /// Part of the name, the whole id, or the secret's last characters.
    pub search: Option<String>,
    pub now: UnixSeconds,
}

impl Store {
    /// A page of a workspace's keys. Without filters the cost grows with the items on the page. With one, keys that
    /// don't match are skipped one by one, so a filter that few keys match costs a pass over the workspace's keys.
    pub async fn list_keys(&self, workspace: WorkspaceId, query: KeyQuery) -> Result<Page<Key>, StoreError> {
        self.engine.read(move |sql| list(sql, workspace, &query)).await
    }
}

fn list(sql: Sql<'_>, workspace: WorkspaceId, query: &KeyQuery) -> Result<Page<Key>, StoreError> {
    let by_name = sql.by_name();
    // The text is made of constants; values are parameters.
    let mut conditions = String::from("k.workspace_id = ?1 AND k.deleted_at IS NULL");
    let mut values = values![workspace];
    if let Some((name, id)) = &query.after {
        conditions.push_str(&match query.sort {
            Sort::Oldest => " AND k.id > ?2".to_owned(),
            Sort::Newest => " AND k.id < ?2".to_owned(),
            Sort::Name => format!(" AND ({by_name}, k.id) > (?3, ?2)"),
            Sort::NameDescending => format!(" AND ({by_name}, k.id) < (?3, ?2)"),
        });
        values.extend(values![id, name.to_ascii_lowercase()]);
    } else {
        values.extend(values![None::<KeyId>, None::<String>]);
    }
    if let Some(search) = &query.search {
        conditions.push_str(&format!(
            " AND ({FOLDED_NAME} LIKE ?4 ESCAPE '\\' OR k.id = ?5
               OR k.id IN (SELECT s.key_id FROM secrets s WHERE s.workspace_id = ?1
                           AND s.superseded_at IS NULL AND s.last_characters = ?6))"
        ));
        let pattern = fold_case(search).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        values.extend(values![format!("%{pattern}%"), search.parse::<KeyId>().ok(), search]);
    } else {
        values.extend(values![None::<String>, None::<KeyId>, None::<String>]);
    }
    values.push(Value::of(i64::from(query.limit.get()).saturating_add(1)));
    let (filter, more) = query.filter.conditions(values.len().saturating_add(1), query.now);
    conditions.push_str(&filter);
    values.extend(more);
    let order = match query.sort {
        Sort::Oldest => "k.id".to_owned(),
        Sort::Newest => "k.id DESC".to_owned(),
        Sort::Name => format!("{by_name}, k.id"),
        Sort::NameDescending => format!("{by_name} DESC, k.id DESC"),
    };
    let statement = format!("SELECT {COLUMNS} FROM {TABLES} WHERE {conditions} ORDER BY {order} LIMIT ?7");
    let mut statement = sql.prepare(&statement)?;
    Ok(Page::cut(statement.query_map(&values, key)?, query.limit))
}
