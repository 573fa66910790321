//! Tests of which index a list of events uses, and which revisions lie between two instants.

use policy::Epoch;
use rusqlite::{Connection, params_from_iter};
use tempfile::TempDir;

use super::*;
use crate::store::db::lock::Lock;
use crate::store::db::sqlite_schema::open_writer;

fn query(workspace: Option<WorkspaceId>, filter: AuditFilter) -> AuditQuery {
    AuditQuery { workspace, filter, order: Order::Newest, limit: NonZeroU32::MIN }
}

/// All events.
fn all() -> AuditFilter {
    AuditFilter::default()
}

fn database() -> (TempDir, Lock, Connection) {
    let directory = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(&directory.path().join("latchkey.db")).unwrap();
    let sql = open_writer(&lock, Epoch::from_bytes([1; 16])).unwrap();
    (directory, lock, sql)
}

/// Adds an event for each revision of a range: by this actor, in this workspace, this many seconds after 10:00. The
/// address alternates.
fn add(sql: &Connection, revisions: std::ops::Range<u32>, actor: &str, workspace: Option<WorkspaceId>, second: u32) {
    let workspace = workspace.map(|id| id.to_string());
    let statement = "INSERT INTO audit_events (revision, event, hash) VALUES (?1, ?2, zeroblob(32))";
    for revision in revisions {
        let (at, address) = (format!("2026-11-23T10:00:{second:02}Z"), format!("192.0.2.{}", revision % 2));
        let event = serde_json::json!({
            "at": at, "action": "key.update", "address": address, "workspace_id": workspace,
            "actor": {"id": "system", "name": actor},
        });
        sql.prepare_cached(statement).unwrap().execute((revision, event.to_string())).unwrap();
    }
}

fn index_of(sql: &Connection, query: &AuditQuery) -> Option<&'static str> {
    let sql = Sql::Sqlite(sql);
    most_selective_index(sql, &conditions(sql, query).unwrap()).unwrap().map(|(index, _)| index)
}

#[test]
fn each_filter_uses_an_index_in_the_order_of_the_answer() {
    let (_directory, _lock, sql) = database();
    let (workspace, text) = (Some(WorkspaceId::from_bytes([1; 16])), Some("x".to_owned()));
    let (id, name) = (Some(AuditActor::new("system".to_owned())), Some(AuditActor::new("x".to_owned())));
    let address = Some("192.0.2.1/32".parse().unwrap());
    for (workspace, filter, expected) in [
        (None, all(), "INTEGER PRIMARY KEY "),
        (workspace, all(), "audit_events_of_workspace "),
        (None, AuditFilter { action: text.clone(), ..all() }, "audit_events_of_action "),
        (workspace, AuditFilter { action: text.clone(), ..all() }, "audit_events_of_workspace_action "),
        (None, AuditFilter { target: text.clone(), ..all() }, "audit_events_of_target "),
        (workspace, AuditFilter { target: text.clone(), ..all() }, "audit_events_of_target "),
        (workspace, AuditFilter { target: text.clone(), action: text, ..all() }, "audit_events_of_target "),
        (None, AuditFilter { actor: id, ..all() }, "audit_events_of_actor_id "),
        (None, AuditFilter { actor: name, ..all() }, "audit_events_of_actor_name "),
        (None, AuditFilter { address, ..all() }, "audit_events_of_address "),
    ] {
        let query = query(workspace, filter);
        let (index, wrapped) = (index_of(&sql, &query), Sql::Sqlite(&sql));
        let (statement, values) = statement(wrapped, &conditions(wrapped, &query).unwrap(), index, &query);
        let mut plan = sql.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
        let plan: Vec<String> =
            plan.query_map(params_from_iter(&values), |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        // One step, so there is no separate sort.
        assert!(plan.len() == 1 && plan[0].contains(expected), "{statement}: {plan:?}");
    }
}

#[test]
fn the_filter_that_matches_the_fewest_events_chooses_the_index() {
    let (_directory, _lock, sql) = database();
    let [small, large] = [1, 2].map(|byte| Some(WorkspaceId::from_bytes([byte; 16])));
    add(&sql, 1..4, "busy", small, 0);
    add(&sql, 4..7, "idle", large, 1);
    add(&sql, 7..200, "busy", large, 2);
    let [busy, idle] = ["busy", "idle"].map(|name| Some(AuditActor::new(name.to_owned())));
    let [network, one]: [Option<IpNet>; 2] = ["192.0.2.0/24", "192.0.2.7/32"].map(|text| text.parse().ok());
    for (workspace, filter, expected) in [
        (small, AuditFilter { actor: busy.clone(), ..all() }, "audit_events_of_workspace"),
        (large, AuditFilter { actor: idle, ..all() }, "audit_events_of_actor_name"),
        (small, AuditFilter { address: network, ..all() }, "audit_events_of_workspace"),
        (None, AuditFilter { actor: busy.clone(), address: one, ..all() }, "audit_events_of_address"),
        (small, AuditFilter { since: Some(Revision(196)), actor: busy, ..all() }, "audit_events_of_workspace"),
    ] {
        let query = query(workspace, filter);
        assert_eq!(index_of(&sql, &query), Some(expected), "{query:?}");
    }
}

#[test]
fn instants_become_the_revisions_between_them_even_if_a_clock_was_set_back() {
    let (_directory, _lock, sql) = database();
    let at = |second: i64| Some(UnixSeconds(1_795_428_000 + second));
    add(&sql, 1..5, "a", None, 10);
    add(&sql, 5..9, "a", None, 30);
    add(&sql, 9..12, "a", None, 20);
    add(&sql, 12..15, "a", None, 40);
    for (from, before, expected) in [
        (at(10), at(11), Some((0, 4))),
        (at(20), at(21), Some((8, 11))),
        (at(20), at(31), Some((4, 11))),
        (at(30), None, Some((4, 14))),
        (None, at(30), Some((0, 11))),
        (at(31), at(40), None),
        (at(41), None, None),
    ] {
        let query = query(None, AuditFilter { from, before, ..all() });
        let AuditFilter { since, until, .. } = within_time(Sql::Sqlite(&sql), query).unwrap().filter;
        let found = (since.map_or(0, |revision| revision.0), until.unwrap().0);
        assert_eq!(found, expected.unwrap_or((0, 0)), "{from:?} {before:?}");
    }
    // The other filters stay.
    let filter = AuditFilter { from: at(10), since: Some(Revision(2)), until: Some(Revision(3)), ..all() };
    let filter = within_time(Sql::Sqlite(&sql), query(None, filter)).unwrap().filter;
    assert_eq!((filter.since, filter.until), (Some(Revision(2)), Some(Revision(3))));
}
