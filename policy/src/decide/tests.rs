//! The decision table: every reason and every way to pass, in the order in which reasons are looked for.

use std::cell::Cell;

use super::*;
use crate::allowlist::Allowlist;
use crate::fixtures::{KEYS, LIVE, REVIEWS, STAGING, TEST_KEY, WEBHOOKS, only, record, table, test};
use crate::rule::NeededLevel;
use crate::wire::KeyRecord;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const SECRET: &str = KEYS[0];
/// Well-formed, and of no record.
const STRANGER: &str = KEYS[1];
/// Text from elsewhere.
const FOREIGN: &str = "sk_51H8";
const INSIDE: &str = "192.0.2.7";
const OUTSIDE: &str = "198.51.100.1";

/// A request and all that is known when it comes. [`Case::allowed`] passes; each test changes what it is about.
#[derive(Clone)]
struct Case {
    credential: Credential<'static>,
    route: RouteRule<'static>,
    method: &'static str,
    knowledge: Given,
    foreign_keys: ForeignKeys,
    now: UnixSeconds,
    source: Option<&'static str>,
    record: KeyRecord,
}

#[derive(Clone, Copy, PartialEq)]
enum Given {
    NotReady,
    Stale,
    Table,
}

impl Case {
    /// A key with an allowlist and a scope, used as it may be.
    fn allowed() -> Self {
        Self {
            credential: Credential::One(SECRET.as_bytes()),
            route: scope("reviews", NeededLevel::ByMethod),
            method: "POST",
            knowledge: Given::Table,
            foreign_keys: ForeignKeys::Refused,
            now: NOW,
            source: Some(INSIDE),
            record: KeyRecord {
                grants: vec![(WEBHOOKS, Level::Read), (REVIEWS, Level::Write)],
                allowlist: only(&["192.0.2.0/24"]),
                ..record(SECRET)
            },
        }
    }

    fn with(change: impl FnOnce(&mut Self)) -> Self {
        Self::allowed().and(change)
    }

    fn and(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// What is decided, as `public`, `allowed` or a code, and the key that the denial tells the log.
    fn decided(&self) -> (&'static str, Option<KeyId>) {
        let holding = table(std::slice::from_ref(&self.record)).into();
        let environment = Environment::default();
        let facts = Facts {
            credential: self.credential,
            route: self.route,
            method: self.method.as_bytes(),
            knowledge: match self.knowledge {
                Given::NotReady => Knowledge::NotReady,
                Given::Stale => Knowledge::Stale,
                Given::Table => Knowledge::Serving(&holding),
            },
            environment: &environment,
            foreign_keys: self.foreign_keys,
            now: self.now,
        };
        let asked = Cell::new(0);
        let decision = decide(&facts, || {
            asked.set(asked.get() + 1);
            self.source.map(|source| source.parse().unwrap())
        });
        assert!(asked.get() == 0 || self.record.allowlist != Allowlist::Any, "the address was asked for without need");
        match decision {
            Decision::Public => ("public", None),
            Decision::Allow(permit) => {
                assert_eq!((permit.workspace, permit.slug), (self.record.workspace, self.record.slug.as_str()));
                assert_eq!(permit.record.digest(), self.record.digest);
                ("allowed", Some(permit.key))
            }
            Decision::Deny(denial) => (denial.reason.code(), denial.key),
        }
    }

    fn code(&self) -> &'static str {
        self.decided().0
    }
}

fn rule(rule: Rule<'static>) -> RouteRule<'static> {
    RouteRule::Rule { rule, workspace: None }
}

fn scope(scope: &'static str, level: NeededLevel) -> RouteRule<'static> {
    rule(Rule::Scope { scope, level })
}

fn in_workspace(workspace: &'static str) -> RouteRule<'static> {
    RouteRule::Rule { rule: Rule::AnyKey, workspace: Some(workspace) }
}

/// What makes a reason hold, touching nothing that an earlier or later reason looks at, where that can be.
type Cause = fn(&mut Case);

/// Who could have learned a reason.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Audience {
    Anyone,
    HolderOfASecret,
}

use Audience::{Anyone, HolderOfASecret};

/// The contract: code, status, who may learn it, and what makes it hold. In the order of the contract.
const REASONS: [(&str, u16, Audience, Cause); 15] = [
    ("missing-key", 401, Anyone, |case| case.credential = Credential::Missing),
    ("multiple-keys", 401, Anyone, |case| case.credential = Credential::Multiple),
    ("malformed-key", 401, Anyone, |case| case.credential = Credential::One(b"lk_live_")),
    ("wrong-environment", 401, Anyone, |case| case.credential = Credential::One(TEST_KEY.as_bytes())),
    ("not-ready", 503, Anyone, |case| case.knowledge = Given::NotReady),
    ("stale", 503, Anyone, |case| case.knowledge = Given::Stale),
    ("unknown-key", 401, Anyone, |case| case.credential = Credential::One(STRANGER.as_bytes())),
    ("rotated-key", 401, HolderOfASecret, |case| case.record.superseded_at = NOW),
    ("inactive-key", 401, HolderOfASecret, |case| case.record.active = false),
    ("expired-key", 401, HolderOfASecret, |case| case.record.expires_at = NOW),
    ("address-not-allowed", 403, HolderOfASecret, |case| case.source = Some(OUTSIDE)),
    ("bad-path", 400, HolderOfASecret, |case| case.route = RouteRule::BadPath),
    ("no-route-rule", 403, HolderOfASecret, |case| case.route = RouteRule::Unknown),
    ("wrong-workspace", 403, HolderOfASecret, |case| {
        case.route = with_workspace(case.route, "other");
    }),
    ("missing-scope", 403, HolderOfASecret, |case| case.record.grants.clear()),
];

/// The same rule, bound to a workspace; a route without a rule stays as it is.
fn with_workspace(route: RouteRule<'static>, workspace: &'static str) -> RouteRule<'static> {
    match route {
        RouteRule::Rule { rule, workspace: _ } => RouteRule::Rule { rule, workspace: Some(workspace) },
        RouteRule::BadPath | RouteRule::Unknown => route,
    }
}

/// Where two reasons are about the same fact, only one of them can hold.
fn exclude_each_other(earlier: &str, later: &str) -> bool {
    let credential = ["missing-key", "multiple-keys", "malformed-key", "wrong-environment", "unknown-key"];
    let knowledge = ["not-ready", "stale"];
    let route = ["bad-path", "no-route-rule", "wrong-workspace"];
    [&credential[..], &knowledge, &route].iter().any(|fact| fact.contains(&earlier) && fact.contains(&later))
}

#[test]
fn the_request_that_the_tables_start_from_passes() {
    let case = Case::allowed();
    assert_eq!(case.decided(), ("allowed", Some(case.record.key)));
}

#[test]
fn each_reason_has_its_code_and_tells_the_key_only_to_who_holds_its_secret() {
    for (code, _, audience, cause) in REASONS {
        let case = Case::with(cause);
        let key = match audience {
            Anyone => None,
            HolderOfASecret => Some(case.record.key),
        };
        assert_eq!(case.decided(), (code, key));
    }
}

#[test]
fn each_reason_has_its_code_and_status() {
    let reasons = [
        DenyReason::MissingKey,
        DenyReason::MultipleKeys,
        DenyReason::MalformedKey,
        DenyReason::WrongEnvironment,
        DenyReason::NotReady,
        DenyReason::Stale,
        DenyReason::UnknownKey,
        DenyReason::RotatedKey,
        DenyReason::InactiveKey,
        DenyReason::ExpiredKey,
        DenyReason::AddressNotAllowed,
        DenyReason::BadPath,
        DenyReason::NoRouteRule,
        DenyReason::WrongWorkspace,
        DenyReason::MissingScope { scope: "reviews", level: Level::Read },
    ];
    for (reason, (code, status, ..)) in reasons.iter().zip(REASONS) {
        assert_eq!((reason.code(), reason.status()), (code, status));
        assert!(reason.detail().ends_with('.'), "{code}: {}", reason.detail());
    }
    assert_eq!(CODES, reasons.map(|reason| reason.code()));
}

#[test]
fn of_two_reasons_the_earlier_one_answers() {
    for (at, (earlier, .., first)) in REASONS.iter().enumerate() {
        for (later, .., second) in REASONS.iter().skip(at + 1) {
            if exclude_each_other(earlier, later) {
                continue;
            }
            // The earlier cause goes last, so that it holds whatever the later one did.
            let case = Case::with(second).and(first);
            assert_eq!(case.code(), *earlier, "{earlier} and {later} both hold");
        }
    }
}

#[test]
fn where_everything_is_wrong_each_mended_reason_uncovers_the_next() {
    // The last of each of the facts that exclude each other stands for all of them.
    let order = [
        "unknown-key",
        "rotated-key",
        "inactive-key",
        "expired-key",
        "address-not-allowed",
        "wrong-workspace",
        "missing-scope",
    ];
    for (at, expected) in order.iter().enumerate() {
        let mut case = Case::allowed();
        for (code, .., cause) in REASONS {
            if order.iter().skip(at).any(|left| *left == code) {
                cause(&mut case);
            }
        }
        assert_eq!(case.code(), *expected);
    }
}

#[test]
fn a_public_route_passes_before_any_reason_is_looked_for() {
    for (code, .., cause) in REASONS {
        let case = Case::with(cause).and(|case| case.route = rule(Rule::Public));
        assert_eq!(case.decided(), ("public", None), "{code}");
    }
}

#[test]
fn a_key_that_may_passes() {
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
        ("read where the rule says read, with a method that writes", |case| {
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
        ("rotated out at once", UnixSeconds::DISTANT_PAST, UnixSeconds::DISTANT_FUTURE, "rotated-key"),
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
fn no_clock_revives_what_was_ended_at_once() {
    for now in [i64::MIN, -1, 0, 1, i64::MAX] {
        let case = Case::with(|case| {
            case.record.superseded_at = UnixSeconds::DISTANT_PAST;
            case.now = UnixSeconds(now);
        });
        assert_eq!(case.code(), "rotated-key", "at {now}");
    }
}

#[test]
fn an_allowlist_takes_its_networks_and_nothing_else() {
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
        // The first four bytes of an IPv6 address are no IPv4 address.
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
fn an_unknown_address_fits_no_allowlist() {
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
        ("missing-scope", "a scope that no number stands for", |case| {
            case.route = scope("billing", NeededLevel::ByMethod);
        }),
        ("missing-scope", "write where the rule says write, with a method that reads", |case| {
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
fn a_level_by_method_takes_only_known_methods_for_reading() {
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
    let holding = table(&[record(SECRET)]).into();
    let environment = Environment::default();
    let facts = Facts {
        credential: Credential::One(SECRET.as_bytes()),
        route: scope("webhooks", NeededLevel::ByMethod),
        method: b"PUT",
        knowledge: Knowledge::Serving(&holding),
        environment: &environment,
        foreign_keys: ForeignKeys::Refused,
        now: NOW,
    };
    let Decision::Deny(denial) = decide(&facts, || None) else { panic!("it was allowed") };
    assert_eq!(denial.reason, DenyReason::MissingScope { scope: "webhooks", level: Level::Write });
}
