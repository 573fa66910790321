//! Pages of the audit log, over all workspaces or of one.

use std::num::NonZeroU32;

use policy::{ChainHash, Revision, WorkspaceId};

use super::sql::{Sql, Value, bound};
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
    /// A page of the audit log. Costs as much as it has events: each filter has an index in the order of revisions. With `target`,
    /// that thing's other events are passed over.
    pub async fn list_audit_events(&self, query: AuditQuery) -> Result<Page<AuditEvent>, StoreError> {
        self.engine.read(move |sql| list(sql, &query)).await
    }
}

fn list(sql: Sql<'_>, query: &AuditQuery) -> Result<Page<AuditEvent>, StoreError> {
    let (statement, values) = statement(sql, query)?;
    let mut statement = sql.prepare(&statement)?;
    let events = statement.query_map(&bound(&values), |row| {
        let (revision, hash) = (changes::revision(row.get(0)?), ChainHash(row.get(2)?));
        Ok(AuditEvent { revision, json: row.get(1)?, hash })
    })?;
    Ok(Page::cut(events, query.limit))
}

fn statement(sql: Sql<'_>, query: &AuditQuery) -> Result<(String, Vec<Value>), StoreError> {
    let limited = |revision: Option<Revision>, else_: i64| revision.map_or(Ok(else_), changes::number);
    let mut values = vec![Value::Integer(limited(query.since, 0)?), Value::Integer(limited(query.until, i64::MAX)?)];
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
    // Without statistics SQLite would take any index that has one of the columns. A thing's events are few.
    let index = match (&query.target, query.workspace, &query.action) {
        (Some(_), _, _) => sql.indexed_by("audit_events_of_target"),
        (None, Some(_), Some(_)) => sql.indexed_by("audit_events_of_workspace_action"),
        (None, Some(_), None) => sql.indexed_by("audit_events_of_workspace"),
        (None, None, Some(_)) => sql.indexed_by("audit_events_of_action"),
        (None, None, None) => String::new(),
    };
    let statement = format!(
        "SELECT revision, event, hash FROM audit_events{index} WHERE {conditions} ORDER BY revision{direction} LIMIT ?{}",
        values.len()
    );
    Ok((statement, values))
}

#[cfg(test)]
mod tests {
    use policy::Epoch;
    use rusqlite::params_from_iter;

    use super::super::lock::Lock;
    use super::super::schema::open_writer;
    use super::*;

    #[test]
    fn each_filter_is_looked_up_in_the_order_of_the_answer() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(&directory.path().join("latchkey.db")).unwrap();
        let sql = open_writer(&lock, Epoch::from_bytes([1; 16])).unwrap();
        let (workspace, text) = (Some(WorkspaceId::from_bytes([1; 16])), Some("x".to_owned()));
        for (workspace, target, action, expected) in [
            (None, None, None, "INTEGER PRIMARY KEY "),
            (workspace, None, None, "audit_events_of_workspace "),
            (None, None, text.clone(), "audit_events_of_action "),
            (workspace, None, text.clone(), "audit_events_of_workspace_action "),
            (None, text.clone(), None, "audit_events_of_target "),
            (workspace, text.clone(), None, "audit_events_of_target "),
            (workspace, text.clone(), text.clone(), "audit_events_of_target "),
        ] {
            let limit = NonZeroU32::MIN;
            let query = AuditQuery { workspace, target, action, since: None, until: None, order: Order::Newest, limit };
            let (statement, values) = statement(Sql::Sqlite(&sql), &query).unwrap();
            let mut plan = sql.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
            let plan: Vec<String> = plan
                .query_map(params_from_iter(bound(&values)), |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            // One step: no sorting behind it.
            assert!(plan.len() == 1 && plan[0].contains(expected), "{statement}: {plan:?}");
        }
    }
}
