//! Snapshots of refusals as a client reads them, for review: `snapshots/`.

use policy::Revision;

use super::{FieldError, Limit, LineErrors, Problem};
use crate::store::StoreError;

/// Files whose constructors of problems must all have an example.
const SOURCES: [&str; 5] = [
    include_str!("../problem.rs"),
    include_str!("body.rs"),
    include_str!("edges.rs"),
    include_str!("imports.rs"),
    include_str!("limits.rs"),
];

/// The limits of connections.
const LIMITS: [Limit; 2] =
    [Limit { name: "connections_per_address", maximum: 1_024 }, Limit { name: "connections", maximum: 20_000 }];

fn field(code: &'static str, message: &str) -> FieldError {
    FieldError::new("name", code, message)
}

/// Examples: the constructor's name, and its problem.
fn examples() -> Vec<(&'static str, Problem)> {
    let limit = |name, maximum| Limit { name, maximum };
    let lines = vec![LineErrors { line: 7, errors: vec![FieldError::refused_digest()] }];
    vec![
        ("too_many_imports", Problem::too_many_imports(limit("imports_per_workspace", 1))),
        ("too_many_imports", Problem::too_many_imports(limit("imports_per_workspace", 2))),
        ("too_many_imports", Problem::too_many_imports(limit("imports_at_once", 4))),
        ("too_many_bodies", Problem::too_many_bodies(limit("import_spool_bytes", 1 << 30))),
        ("spool_unwritable", Problem::spool_unwritable()),
        ("spool_unreadable", Problem::spool_unreadable()),
        ("limit_of_workspace", Problem::limit_of_workspace(limit("keys_per_workspace", 1_000_000))),
        ("not_json", Problem::not_json("expected value at line 1 column 1")),
        ("bad_query", Problem::bad_query("`limit` is given twice")),
        ("unauthenticated", Problem::unauthenticated("missing-token", "send `Authorization: Bearer <token>`")),
        ("unknown_path", Problem::unknown_path()),
        ("unknown_workspace", Problem::unknown_workspace()),
        ("unknown_key", Problem::unknown_key()),
        ("unknown_token", Problem::unknown_token()),
        ("unknown_secret", Problem::unknown_secret()),
        ("forbidden", Problem::forbidden("manage keys")),
        ("token_address_not_allowed", Problem::token_address_not_allowed(Some("203.0.113.9".parse().unwrap()))),
        ("forbidden_in_workspace", Problem::forbidden_in_workspace("manage edges")),
        ("role_not_included", Problem::role_not_included()),
        ("unknown_revision", Problem::unknown_revision(Revision(7))),
        ("method_not_allowed", Problem::method_not_allowed()),
        ("slug_taken", Problem::from(StoreError::SlugTaken)),
        ("foreign_form", Problem::foreign_form(&"https://keys.example.com".parse().unwrap())),
        ("stale_form", Problem::stale_form()),
        ("not_form_type", Problem::not_form_type()),
        ("invalid_idempotency_key", Problem::invalid_idempotency_key("too-long", "has more than 128 characters")),
        ("in_progress", Problem::in_progress()),
        ("idempotency_key_reused", Problem::idempotency_key_reused()),
        ("made_before", Problem::made_before()),
        ("too_large", Problem::too_large(65_536)),
        ("too_many_lines", Problem::too_many_lines(100_000)),
        ("too_long_line", Problem::too_long_line(7, 65_536)),
        ("not_json_type", Problem::not_json_type("application/json")),
        ("invalid", Problem::invalid(vec![field("too-long", "may have at most 80 characters"), field("x", "y")])),
        ("invalid", Problem::invalid(vec![field("expiration-immutable", "can't be changed")])),
        ("refused_lines", Problem::refused_lines(lines.clone(), 1)),
        ("refused_lines", Problem::refused_lines(lines, 2)),
        ("refused_digests", Problem::refused_digests()),
        ("too_many_refused_imports", Problem::too_many_refused_imports(1_800)),
        ("too_many_attempts", Problem::too_many_attempts(60)),
        ("fault", Problem::fault()),
        ("slow_body", Problem::slow_body()),
        ("too_many_connections", Problem::too_many_connections(LIMITS[0])),
        ("too_many_connections", Problem::too_many_connections(LIMITS[1])),
        ("panicked", Problem::panicked()),
        ("timeout", Problem::timeout()),
        ("wrong_edge", Problem::wrong_edge("edge-1")),
        ("foreign_instance", Problem::foreign_instance()),
        ("unknown_instance", Problem::unknown_instance()),
        ("edge_connected", Problem::edge_connected()),
        ("unknown_epoch", Problem::unknown_epoch()),
        ("revision_ahead", Problem::revision_ahead(Revision(7))),
        ("missing_worker", Problem::missing_worker("w1")),
        ("retired_instance", Problem::retired_instance()),
        ("bad_acknowledgement", Problem::bad_acknowledgement("`workers` is empty")),
        ("bad_usage", Problem::bad_usage("`sequence` is missing")),
        ("too_much_usage", Problem::too_much_usage()),
        ("too_many_instances", Problem::too_many_instances(limit("instances_per_edge_token", 1_000))),
        ("too_many_workers", Problem::too_many_workers(limit("workers_per_instance", 256))),
        ("unknown_format", Problem::unknown_format(1)),
        ("snapshot_gone", Problem::snapshot_gone()),
        ("store", StoreError::ExpiredKey.into()),
        ("store", StoreError::Stale { current: Revision(7) }.into()),
        ("store", StoreError::MetadataTooLarge { bytes: 5_000 }.into()),
        ("store", StoreError::Unavailable("disk full".to_owned()).into()),
        ("store", StoreError::Damaged("page 7".to_owned()).into()),
    ]
}

/// The names of the constructors of problems in the sources.
fn constructors() -> Vec<&'static str> {
    let name = |line: &'static str| line.strip_prefix("    pub fn ")?.split_once(['(', '<']).map(|(name, _)| name);
    let is_constructor = |line: &&str| line.ends_with("-> Self {");
    // `refused_digest` makes a field's error, which is only a part of a problem.
    let names = SOURCES.into_iter().flat_map(str::lines).filter(is_constructor).filter_map(name);
    names.filter(|name| *name != "refused_digest").collect()
}

#[test]
fn each_refusal_says_what_is_wrong_and_what_to_do() {
    let examples = examples();
    for name in constructors() {
        assert!(examples.iter().any(|(constructor, _)| *constructor == name), "no example of `Problem::{name}`");
    }
    let render = |(_, problem): &(_, Problem)| {
        let header = problem.header().map(|(name, value)| format!("\n  {name}: {}", value.to_str().unwrap()));
        let (status, code) = (problem.status().as_u16(), problem.code());
        format!("{status} {code}: {}\n  {}{}\n", problem.title(), problem.detail(), header.unwrap_or_default())
    };
    insta::assert_snapshot!(examples.iter().map(render).collect::<String>());
}
