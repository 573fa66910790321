//! Pages of the audit log, of all workspaces or one.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;
use policy::{AdminTokenId, Revision, UnixSeconds, WorkspaceId};

use crate::base::instant;
use crate::store::db::sql::{NONE, Row, Sql, SqlError, Value};
use crate::store::model::SYSTEM_ID;
use crate::store::{AuditEvent, Page, Store, StoreError, TOKEN_FILE_ID};

/// The order of a list of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Oldest,
    Newest,
}

/// An actor, by the id or the name that events contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditActor {
    Id(String),
    Name(String),
}

impl AuditActor {
    /// Text in the form of an actor's id is an id, never a name.
    pub fn new(text: String) -> Self {
        let is_id = text == SYSTEM_ID || text == TOKEN_FILE_ID || text.parse::<AdminTokenId>().is_ok();
        if is_id { Self::Id(text) } else { Self::Name(text) }
    }
}

/// Which events to list.
#[derive(Clone, Debug)]
pub struct AuditQuery {
    /// `None`: events of all workspaces, and those of none.
    pub workspace: Option<WorkspaceId>,
    pub filter: AuditFilter,
    pub order: Order,
    pub limit: NonZeroU32,
}

/// What an event must match, in all fields that are set.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only events about the object with this id.
    pub target: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only events of this actor.
    pub actor: Option<AuditActor>,
    /// Only events of requests from this network.
    pub address: Option<IpNet>,
    /// Only events after this revision.
    pub since: Option<Revision>,
    /// Only events up to this revision.
    pub until: Option<Revision>,
    /// Only events of this instant and later ones.
    pub from: Option<UnixSeconds>,
    /// Only events before this instant.
    pub before: Option<UnixSeconds>,
}

/// SQLite's indexes that end with the revision, with the columns before it. If counts are equal, the first is used.
const INDEXES: [(&str, &[&str]); 7] = [
    ("audit_events_of_target", &["target_id"]),
    ("audit_events_of_address", &["address"]),
    ("audit_events_of_actor_id", &["actor_id"]),
    ("audit_events_of_actor_name", &["actor_name"]),
    ("audit_events_of_workspace_action", &["workspace_id", "action"]),
    ("audit_events_of_workspace", &["workspace_id"]),
    ("audit_events_of_action", &["action"]),
];

/// Reading fewer events than this one by one is fast. Counting this many takes less than a millisecond.
const FEW: i64 = 10_000;

impl Store {
    /// A page of the audit log. The cost grows with the events, up to the end of the page, that match the most
    /// selective filter: each has an index in the order of revisions. Filters by time cost little after
    /// [`Store::within_time`].
    pub async fn list_audit_events(&self, query: AuditQuery) -> Result<Page<AuditEvent>, StoreError> {
        self.engine.read(move |sql| list(sql, &query)).await
    }

    /// Adds the revisions that a query by time can reach, so that no page reads all events before and after them.
    /// Revisions aren't in the order of time if a clock was set back or the control planes' clocks differ.
    ///
    /// Costs 0.1 us for each event between the instants, or only a count if another filter matches few events.
    pub async fn within_time(&self, query: AuditQuery) -> Result<AuditQuery, StoreError> {
        if query.filter.from.is_none() && query.filter.before.is_none() {
            return Ok(query);
        }
        self.engine.read(move |sql| within_time(sql, query)).await
    }
}

fn list(sql: Sql<'_>, query: &AuditQuery) -> Result<Page<AuditEvent>, StoreError> {
    let conditions = conditions(sql, query)?;
    let index = most_selective_index(sql, &conditions)?.map(|(index, _)| index);
    let (statement, values) = statement(sql, &conditions, index, query);
    let mut statement = sql.prepare(&statement)?;
    let events = statement
        .query_map(&values, |row| Ok(AuditEvent { revision: row.get(0)?, json: row.get(1)?, hash: row.get(2)? }))?;
    Ok(Page::cut(events, query.limit))
}

fn statement(sql: Sql<'_>, conditions: &[Condition], index: Option<&str>, query: &AuditQuery) -> (String, Vec<Value>) {
    let (conditions, mut values) = join(conditions);
    values.push(Value::of(i64::from(query.limit.get()).saturating_add(1)));
    let direction = match query.order {
        Order::Oldest => "",
        Order::Newest => " DESC",
    };
    let (index, limit) = (index.map_or_else(String::new, |index| sql.indexed_by(index)), values.len());
    let statement = format!(
        "SELECT revision, event, hash FROM audit_events{index} WHERE {conditions} ORDER BY revision{direction} LIMIT ?{limit}"
    );
    (statement, values)
}

/// A condition on events. Its text is made of constants only; `?` stands for the value.
#[derive(Clone)]
struct Condition {
    column: &'static str,
    text: String,
    value: Value,
}

impl Condition {
    fn new(column: &'static str, operator: &str, value: Value) -> Self {
        Self { column, text: format!("{column} {operator} ?"), value }
    }
}

/// The conditions joined by AND, with their parameters.
fn join<'a>(conditions: impl IntoIterator<Item = &'a Condition>) -> (String, Vec<Value>) {
    let (mut texts, mut values) = (Vec::new(), Vec::new());
    for condition in conditions {
        values.push(condition.value.clone());
        texts.push(condition.text.replace('?', &format!("?{}", values.len())));
    }
    (texts.join(" AND "), values)
}

fn conditions(sql: Sql<'_>, query: &AuditQuery) -> Result<Vec<Condition>, StoreError> {
    let filter = &query.filter;
    let mut all = vec![
        Condition::new("revision", ">", Value::of(filter.since.unwrap_or(Revision(0)))),
        Condition::new("revision", "<=", Value::of(filter.until.unwrap_or(Revision(u64::MAX)))),
    ];
    let (actor_id, actor_name) = match filter.actor.clone() {
        None => (None, None),
        Some(AuditActor::Id(id)) => (Some(id), None),
        Some(AuditActor::Name(name)) => (None, Some(name)),
    };
    let equal = [
        ("workspace_id", query.workspace.map(|id| id.to_string())),
        ("target_id", filter.target.clone()),
        ("action", filter.action.clone()),
        ("actor_id", actor_id),
        ("actor_name", actor_name),
    ];
    let equal = equal.into_iter().filter_map(|(column, value)| Some(Condition::new(column, "=", Value::of(value?))));
    all.extend(equal);
    all.extend(time_conditions(filter));
    if let Some(network) = filter.address {
        all.push(network_condition(sql, network)?);
    }
    Ok(all)
}

/// All instants in events have one format, whose alphabetical order is the order of time.
fn time_conditions(filter: &AuditFilter) -> impl Iterator<Item = Condition> {
    let bounds = [(">=", filter.from), ("<", filter.before)];
    let condition = |(operator, at): (&str, Option<UnixSeconds>)| {
        Some(Condition::new("happened_at", operator, Value::of(instant::text(at?))))
    };
    bounds.into_iter().filter_map(condition)
}

fn network_condition(sql: Sql<'_>, network: IpNet) -> Result<Condition, StoreError> {
    if network.prefix_len() == network.max_prefix_len() {
        return Ok(Condition::new("address", "=", Value::of(network.addr())));
    }
    let list = serde_json::to_string(&addresses_in(sql, network)?);
    let value = Value::of(list.map_err(|error| StoreError::Fault(error.to_string()))?);
    Ok(Condition { column: "address", text: format!("address IN {}", sql.items_of_json("?")), value })
}

/// The addresses of the network from which the log has events. Costs a few us for each address in the log.
fn addresses_in(sql: Sql<'_>, network: IpNet) -> Result<Vec<String>, SqlError> {
    // Each step seeks the next address, and skips all events of the previous one.
    let mut statement = sql.prepare(
        "WITH RECURSIVE seen (address) AS (
             SELECT (SELECT address FROM audit_events WHERE address IS NOT NULL ORDER BY address LIMIT 1)
             UNION ALL
             SELECT (SELECT next.address FROM audit_events AS next WHERE next.address > seen.address ORDER BY next.address LIMIT 1)
             FROM seen WHERE seen.address IS NOT NULL
         )
         SELECT address FROM seen WHERE address IS NOT NULL",
    )?;
    let mut all = statement.query_map(NONE, |row| row.get::<String>(0))?;
    all.retain(|text| text.parse::<IpAddr>().is_ok_and(|address| network.contains(&address)));
    Ok(all)
}

/// The index with the fewest events that may match, and their number up to [`FEW`]; SQLite has no statistics to choose
/// by. `None`: no index has these columns, or PostgreSQL chooses.
fn most_selective_index(sql: Sql<'_>, conditions: &[Condition]) -> Result<Option<(&'static str, i64)>, SqlError> {
    if sql.has_statistics() {
        return Ok(None);
    }
    let mut narrowest: Option<(&str, i64)> = None;
    for (index, columns) in INDEXES {
        if !columns.iter().all(|column| conditions.iter().any(|condition| condition.column == *column)) {
            continue;
        }
        let is_of_index =
            |condition: &&Condition| condition.column == "revision" || columns.contains(&condition.column);
        let (conditions, values) = join(conditions.iter().filter(is_of_index));
        let index_clause = sql.indexed_by(index);
        let count = sql
            .prepare(&format!(
                "SELECT count(*) FROM (SELECT 1 FROM audit_events{index_clause} WHERE {conditions} LIMIT {FEW})"
            ))?
            .query_row(&values, |row| row.get(0))?;
        if narrowest.is_none_or(|(_, fewest)| count < fewest) {
            narrowest = Some((index, count));
        }
    }
    Ok(narrowest)
}

fn within_time(sql: Sql<'_>, mut query: AuditQuery) -> Result<AuditQuery, StoreError> {
    if most_selective_index(sql, &conditions(sql, &query)?)?.is_some_and(|(_, count)| count < FEW) {
        return Ok(query);
    }
    let (between, values) = join(&time_conditions(&query.filter).collect::<Vec<_>>());
    let index = sql.indexed_by("audit_events_of_time");
    let statement = format!("SELECT min(revision), max(revision) FROM audit_events{index} WHERE {between}");
    let ends = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (first, last): (Option<Revision>, Option<Revision>) = sql.prepare(&statement)?.query_row(&values, ends)?;
    // If there is no event, no revision matches.
    let last = last.unwrap_or(Revision(0));
    let filter = &mut query.filter;
    filter.since = filter.since.max(first.map(|first| Revision(first.0.saturating_sub(1))));
    filter.until = Some(filter.until.map_or(last, |until| until.min(last)));
    Ok(query)
}

#[cfg(test)]
mod tests;
