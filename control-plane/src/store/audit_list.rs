//! Pages of the audit log, over all workspaces or of one.

use std::num::NonZeroU32;

use policy::{ChainHash, Revision, WorkspaceId};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::{AuditEvent, Page, Store, StoreError, changes};

/// The order of a list of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Oldest,
    Newest,
}

/// Which events to list.
#[derive(Clone, Debug)]
pub struct AuditQuery {
    /// `None`: of all workspaces and of none.
    pub workspace: Option<WorkspaceId>,
    /// Only events about the thing with this id.
    pub target: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only events after this revision.
    pub since: Option<Revision>,
    /// Only events up to this revision.
    pub until: Option<Revision>,
    pub order: Order,
    pub limit: NonZeroU32,
}

impl Store {
    /// A page of the audit log. Costs as much as it has events, but with `action`, which passes over others one by one.
    pub async fn list_audit_events(&self, query: AuditQuery) -> Result<Page<AuditEvent>, StoreError> {
        self.engine.read(move |sql| list(sql, &query)).await
    }
}

fn list(sql: &Connection, query: &AuditQuery) -> Result<Page<AuditEvent>, StoreError> {
    let bound = |revision: Option<Revision>, else_: i64| revision.map_or(Ok(else_), changes::number);
    let mut values = vec![Value::Integer(bound(query.since, 0)?), Value::Integer(bound(query.until, i64::MAX)?)];
    let mut conditions = String::from("revision > ?1 AND revision <= ?2");
    let asked = [
        ("workspace_id", query.workspace.map(|id| id.to_string())),
        ("target_id", query.target.clone()),
        ("action", query.action.clone()),
    ];
    // Constants make the text, parameters the values.
    for (column, value) in asked {
        if let Some(value) = value {
            values.push(Value::Text(value));
            conditions.push_str(&format!(" AND {column} = ?{}", values.len()));
        }
    }
    values.push(Value::Integer(i64::from(query.limit.get()).saturating_add(1)));
    let direction = match query.order {
        Order::Oldest => "",
        Order::Newest => " DESC",
    };
    let statement = format!(
        "SELECT revision, event, hash FROM audit_events WHERE {conditions} ORDER BY revision{direction} LIMIT ?{}",
        values.len()
    );
    let mut statement = sql.prepare_cached(&statement)?;
    let events = statement.query_map(params_from_iter(values), |row| {
        let (revision, hash) = (changes::revision(row.get(0)?), ChainHash(row.get(2)?));
        Ok(AuditEvent { revision, json: row.get(1)?, hash })
    })?;
    Ok(Page::cut(events.collect::<Result<_, _>>()?, query.limit))
}
