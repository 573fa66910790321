//! Each fact of a request: what passes, and what just fails.

use super::*;
use crate::fixtures::{LIVE, STAGING, test};

#[test]
fn a_key_with_the_required_rights_passes() {
    let rows: [(&str, Cause); 12] = [
        ("any key", |case| case.route = rule(Rule::AnyKey)),
        ("any key, without scopes", |case| {
            case.route = rule(Rule::AnyKey);
            case.record.grants.clear();
        }),
        ("write on a route that writes", |case| case.method = "DELETE"),
        ("write on a route that reads", |case| case.method = "GET"),
        ("read on a route that reads", |case| {
            case.record.grants = vec![(REVIEWS, Level::Read)];
            case.method = "HEAD";
        }),
        ("read where the rule requires read, with a method that writes", |case| {
            case.record.grants = vec![(REVIEWS, Level::Read)];
            case.route = scope("reviews", NeededLevel::Fixed(Level::Read));
        }),
        ("another scope, by its own number", |case| {
            case.route = scope("webhooks", NeededLevel::Fixed(Level::Read));
        }),
        ("the workspace by its slug", |case| case.route = in_workspace("acme")),
        ("the workspace by its id", |case| case.route = in_workspace("ws_acacacacacacacacacacacacacacacac")),
        ("no allowlist, unknown address", |case| {
            case.record.allowlist = Allowlist::Any;
            case.source = None;
        }),
        ("an imported key", |case| {
            case.credential = Credential::One(FOREIGN.as_bytes());
            case.foreign_keys = ForeignKeys::LookedUp;
            case.record.digest = Digest::of(FOREIGN.as_bytes());
        }),
        ("our own key where imported ones are looked up too", |case| case.foreign_keys = ForeignKeys::LookedUp),
    ];
    for (name, cause) in rows {
        assert_eq!(Case::with(cause).code(), "allowed", "{name}");
    }
}

#[test]
fn a_credential_that_is_no_key_of_this_edge_is_refused() {
    let rows: [(&str, &str, Cause); 8] = [
        ("malformed-key", "an empty key", |case| case.credential = Credential::One(b"")),
        ("malformed-key", "bytes that are no text", |case| case.credential = Credential::One(&[0xff, 0xfe])),
        ("malformed-key", "64 KiB", |case| case.credential = Credential::One(&[b'k'; 65_536])),
        ("malformed-key", "64 KiB where imported keys are looked up", |case| {
            case.credential = Credential::One(&[b'k'; 65_536]);
            case.foreign_keys = ForeignKeys::LookedUp;
        }),
        ("malformed-key", "an imported key where none is looked up", |case| {
            case.credential = Credential::One(FOREIGN.as_bytes());
            case.record.digest = Digest::of(FOREIGN.as_bytes());
        }),
        ("unknown-key", "an imported key of another environment", |case| {
            case.credential = Credential::One(FOREIGN.as_bytes());
            case.foreign_keys = ForeignKeys::LookedUp;
            case.record.digest = Digest::of(FOREIGN.as_bytes());
            case.record.environment = STAGING;
        }),
        ("unknown-key", "a record of another environment than its text", |case| case.record.environment = STAGING),
        ("unknown-key", "a record of an environment without a name", |case| case.record.environment = LIVE + 9),
    ];
    for (code, name, cause) in rows {
        assert_eq!(Case::with(cause).decided(), (code, None), "{name}");
    }
}

#[test]
fn an_end_counts_from_its_own_second() {
    let second = |offset: i64| NOW.saturating_add_secs(offset);
    for (name, superseded_at, expires_at, expected) in [
        ("overlap runs", second(1), UnixSeconds::DISTANT_FUTURE, "allowed"),
        ("overlap ends now", second(0), UnixSeconds::DISTANT_FUTURE, "rotated-key"),
        ("overlap has ended", second(-1), UnixSeconds::DISTANT_FUTURE, "rotated-key"),
        ("rotated out immediately", UnixSeconds::DISTANT_PAST, UnixSeconds::DISTANT_FUTURE, "rotated-key"),
        ("expires in a second", UnixSeconds::DISTANT_FUTURE, second(1), "allowed"),
        ("expires now", UnixSeconds::DISTANT_FUTURE, second(0), "expired-key"),
        ("has expired", UnixSeconds::DISTANT_FUTURE, second(-1), "expired-key"),
        ("rotated, then expired", second(-1), second(-1), "rotated-key"),
    ] {
        let case = Case::with(|case| {
            case.record.superseded_at = superseded_at;
            case.record.expires_at = expires_at;
        });
        assert_eq!(case.code(), expected, "{name}");
    }
}

#[test]
fn no_clock_revives_a_secret_that_was_ended_immediately() {
    for now in [i64::MIN, -1, 0, 1, i64::MAX] {
        let case = Case::with(|case| {
            case.record.superseded_at = UnixSeconds::DISTANT_PAST;
            case.now = UnixSeconds(now);
        });
        assert_eq!(case.code(), "rotated-key", "at {now}");
    }
}

#[test]
fn an_allowlist_permits_its_networks_and_nothing_else() {
    for (networks, source, expected) in [
        (&["192.0.2.7"][..], "192.0.2.7", true),
        (&["192.0.2.7"], "192.0.2.6", false),
        (&["192.0.2.7"], "192.0.2.8", false),
        (&["192.0.2.0/24"], "192.0.1.255", false),
        (&["192.0.2.0/24"], "192.0.2.0", true),
        (&["192.0.2.0/24"], "192.0.2.255", true),
        (&["192.0.2.0/24"], "192.0.3.0", false),
        (&["192.0.2.4/31"], "192.0.2.5", true),
        (&["192.0.2.4/31"], "192.0.2.6", false),
        (&["192.0.2.0/24"], "::ffff:192.0.2.7", true),
        (&["192.0.2.0/24"], "::ffff:192.0.3.7", false),
        (&["::ffff:192.0.2.0/120"], "192.0.2.7", true),
        (&["::ffff:192.0.2.0/120"], "::ffff:192.0.2.7", true),
        (&["2001:db8::/32"], "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false),
        (&["2001:db8::/32"], "2001:db8::", true),
        (&["2001:db8::/32"], "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
        (&["2001:db8::/32"], "2001:db9::", false),
        (&["2001:db8::1"], "2001:db8::1", true),
        (&["2001:db8::1"], "2001:db8::2", false),
        (&["0.0.0.0/0"], "255.255.255.255", true),
        (&["0.0.0.0/0"], "::ffff:10.0.0.1", true),
        (&["0.0.0.0/0"], "2001:db8::1", false),
        (&["0.0.0.0/0"], "::", false),
        (&["::/0"], "2001:db8::1", true),
        (&["::/0"], "192.0.2.7", false),
        (&["::/0"], "::ffff:192.0.2.7", false),
        // The first four bytes of an IPv6 address aren't an IPv4 address.
        (&["32.1.13.184"], "2001:db8::", false),
        (&["10.0.0.0/8", "2001:db8::/32"], "10.1.2.3", true),
        (&["10.0.0.0/8", "2001:db8::/32"], "2001:db8::7", true),
    ] {
        let case = Case::with(|case| {
            case.record.allowlist = only(networks);
            case.source = Some(source);
        });
        let expected = if expected { "allowed" } else { "address-not-allowed" };
        assert_eq!(case.code(), expected, "{source} with {networks:?}");
    }
}

#[test]
fn an_unknown_address_is_on_no_allowlist() {
    for networks in [&["192.0.2.7"][..], &["0.0.0.0/0", "::/0"]] {
        let case = Case::with(|case| {
            case.record.allowlist = only(networks);
            case.source = None;
        });
        assert_eq!(case.code(), "address-not-allowed", "{networks:?}");
    }
}

#[test]
fn a_route_gives_no_more_than_its_rule() {
    let rows: [(&str, &str, Cause); 11] = [
        ("no-route-rule", "the rule deny", |case| case.route = rule(Rule::Deny)),
        ("no-route-rule", "the rule deny comes before a wrong workspace", |case| {
            case.route = RouteRule::Rule { rule: Rule::Deny, workspace: Some("other") };
        }),
        ("wrong-workspace", "another slug", |case| case.route = in_workspace("acme2")),
        ("wrong-workspace", "a slug in capitals", |case| case.route = in_workspace("ACME")),
        ("wrong-workspace", "an empty one", |case| case.route = in_workspace("")),
        ("wrong-workspace", "another id", |case| {
            case.route = in_workspace("ws_acacacacacacacacacacacacacacacad");
        }),
        ("wrong-workspace", "the id without its prefix", |case| {
            case.route = in_workspace("acacacacacacacacacacacacacacacac");
        }),
        ("missing-scope", "read on a route that writes", |case| {
            case.record.grants = vec![(REVIEWS, Level::Read), (WEBHOOKS, Level::Write)];
        }),
        ("missing-scope", "another scope", |case| case.record.grants = vec![(WEBHOOKS, Level::Write)]),
        ("missing-scope", "a scope without a number", |case| {
            case.route = scope("billing", NeededLevel::ByMethod);
        }),
        ("missing-scope", "write where the rule requires write, with a method that reads", |case| {
            case.record.grants = vec![(REVIEWS, Level::Read)];
            case.route = scope("reviews", NeededLevel::Fixed(Level::Write));
            case.method = "GET";
        }),
    ];
    for (code, name, cause) in rows {
        assert_eq!(Case::with(cause).code(), code, "{name}");
    }
}

#[test]
fn only_known_methods_need_just_the_read_level() {
    for (method, expected) in [
        ("GET", "allowed"),
        ("HEAD", "allowed"),
        ("OPTIONS", "allowed"),
        ("POST", "missing-scope"),
        ("PUT", "missing-scope"),
        ("PATCH", "missing-scope"),
        ("DELETE", "missing-scope"),
        ("CONNECT", "missing-scope"),
        ("TRACE", "missing-scope"),
        ("get", "missing-scope"),
        ("", "missing-scope"),
    ] {
        let case = Case::with(|case| {
            case.record.grants = vec![(REVIEWS, Level::Read)];
            case.method = method;
        });
        assert_eq!(case.code(), expected, "{method:?}");
    }
}

#[test]
fn a_missing_scope_is_named_with_the_level_that_is_needed() {
    let live_table = table(&[record(SECRET)]).into();
    let environment = Environment::default();
    let facts = Facts {
        credential: Credential::One(SECRET.as_bytes()),
        route: scope("webhooks", NeededLevel::ByMethod),
        method: b"PUT",
        knowledge: Knowledge::Serving(&live_table),
        environment: &environment,
        foreign_keys: ForeignKeys::Refused,
        now: NOW,
    };
    let Decision::Deny(denial) = decide(&facts, || None) else { panic!("it was allowed") };
    let required = Some(RequiredScope { scope: "webhooks", level: Level::Write });
    assert_eq!((denial.reason, denial.required), (DenyReason::MissingScope, required));
}
