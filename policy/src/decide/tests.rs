//! The decision table: every reason, in the order of the checks.

mod facts;

use std::cell::Cell;

use super::*;
use crate::allowlist::Allowlist;
use crate::fixtures::{KEYS, REVIEWS, TEST_KEY, WEBHOOKS, only, record, table, test};
use crate::rule::NeededLevel;
use crate::wire::KeyRecord;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const SECRET: &str = KEYS[0];
/// Well-formed, but without a record.
const STRANGER: &str = KEYS[1];
/// The text of an imported key.
const FOREIGN: &str = "sk_51H8";
const INSIDE: &str = "192.0.2.7";
const OUTSIDE: &str = "198.51.100.1";

/// A request, and all that is known when it arrives. [`Case::allowed`] passes; each test changes what it tests.
#[derive(Clone)]
struct Case {
    credential: Credential<'static>,
    route: RouteRule<'static>,
    method: &'static str,
    knowledge: TestKnowledge,
    foreign_keys: ForeignKeys,
    now: UnixSeconds,
    source: Option<&'static str>,
    record: KeyRecord,
}

#[derive(Clone, Copy, PartialEq)]
enum TestKnowledge {
    NotReady,
    Stale,
    Table,
}

impl Case {
    /// A permitted use of a key with an allowlist and scopes.
    fn allowed() -> Self {
        Self {
            credential: Credential::One(SECRET.as_bytes()),
            route: scope("reviews", NeededLevel::ByMethod),
            method: "POST",
            knowledge: TestKnowledge::Table,
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

    /// The decision as `public`, `allowed` or a code, and the key that it names.
    fn decided(&self) -> (&'static str, Option<KeyId>) {
        let live_table = table(std::slice::from_ref(&self.record)).into();
        let environment = Environment::default();
        let facts = Facts {
            credential: self.credential,
            route: self.route,
            method: self.method.as_bytes(),
            knowledge: match self.knowledge {
                TestKnowledge::NotReady => Knowledge::NotReady,
                TestKnowledge::Stale => Knowledge::Stale,
                TestKnowledge::Table => Knowledge::Serving(&live_table),
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
        assert!(asked.get() == 0 || self.record.allowlist != Allowlist::Any, "the address was read without need");
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

/// Makes a reason hold and, where possible, changes nothing that another reason depends on.
type Cause = fn(&mut Case);

/// Who may learn a reason.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Audience {
    Anyone,
    HolderOfASecret,
}

use Audience::{Anyone, HolderOfASecret};

/// All reasons in their documented order: code, status, who may learn it, and what makes it hold.
const REASONS: [(&str, u16, Audience, Cause); 16] = [
    ("bad-path", 400, Anyone, |case| case.route = RouteRule::BadPath),
    ("bad-authority", 400, Anyone, |case| case.credential = Credential::InAuthority),
    ("missing-key", 401, Anyone, |case| case.credential = Credential::Missing),
    ("multiple-keys", 401, Anyone, |case| case.credential = Credential::Multiple),
    ("malformed-key", 401, Anyone, |case| case.credential = Credential::One(b"lk_live_")),
    ("wrong-environment", 401, Anyone, |case| case.credential = Credential::One(TEST_KEY.as_bytes())),
    ("not-ready", 503, Anyone, |case| case.knowledge = TestKnowledge::NotReady),
    ("stale", 503, Anyone, |case| case.knowledge = TestKnowledge::Stale),
    ("unknown-key", 401, Anyone, |case| case.credential = Credential::One(STRANGER.as_bytes())),
    ("rotated-key", 401, HolderOfASecret, |case| case.record.superseded_at = NOW),
    ("inactive-key", 401, HolderOfASecret, |case| case.record.active = false),
    ("expired-key", 401, HolderOfASecret, |case| case.record.expires_at = NOW),
    ("address-not-allowed", 403, HolderOfASecret, |case| case.source = Some(OUTSIDE)),
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

/// True for two reasons about the same fact, of which only one can hold.
fn exclude_each_other(earlier: &str, later: &str) -> bool {
    let credential =
        ["bad-authority", "missing-key", "multiple-keys", "malformed-key", "wrong-environment", "unknown-key"];
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
fn a_denial_names_the_key_only_if_its_secret_was_correct() {
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
    let expected = REASONS.map(|(code, status, ..)| (code, status));
    assert_eq!(DenyReason::ALL.map(|reason| (reason.code(), reason.status())), expected);
}

#[test]
fn of_two_reasons_the_earlier_one_answers() {
    for (at, (earlier, .., first)) in REASONS.iter().enumerate() {
        for (later, .., second) in REASONS.iter().skip(at + 1) {
            if exclude_each_other(earlier, later) {
                continue;
            }
            // The earlier cause is applied last, so that it holds whatever the later one did.
            let case = Case::with(second).and(first);
            assert_eq!(case.code(), *earlier, "{earlier} and {later} both hold");
        }
    }
}

#[test]
fn where_everything_is_wrong_each_fixed_reason_uncovers_the_next() {
    // Of the credential's reasons, and of the route's, only the last one: they exclude each other.
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
fn a_public_route_passes_before_any_reason_but_what_an_upstream_would_misread() {
    for (code, .., cause) in REASONS {
        let case = Case::with(cause).and(|case| match code {
            "bad-path" => {}
            _ => case.route = rule(Rule::Public),
        });
        let expected = if code.starts_with("bad-") { code } else { "public" };
        assert_eq!(case.decided(), (expected, None), "{code}");
    }
}
