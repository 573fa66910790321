//! The decision about a request, from its facts.

use std::net::IpAddr;

use crate::digest::Digest;
use crate::environment::Environment;
use crate::id::{KeyId, WorkspaceId};
use crate::key_text::{ForeignKeys, PresentedKey};
use crate::live_table::{KeyLookup, LiveTable};
use crate::route::RouteRule;
use crate::rule::Rule;
use crate::scope::Level;
use crate::time::UnixSeconds;
use crate::wire::{Catalogue, RecordView};

/// What a request has in the places that may carry a key.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// None in any of the configured places.
    Missing,
    /// The request's host contains a key, which can't be removed from there.
    InAuthority,
    /// More than one, equal or not.
    Multiple,
    /// The only one: its bytes after the prefix, decoded. Untrusted; [`decide`] checks their shape.
    One(&'a [u8]),
    /// The key of the pass before an internal redirect of Envoy. Its text has already been removed from the request.
    FromRedirect(Digest),
}

/// What this worker knows about keys.
#[derive(Clone, Copy)]
pub enum Knowledge<'a> {
    /// Nothing yet.
    NotReady,
    /// Keys whose last confirmation from the control plane is older than the operator allows.
    Stale,
    /// Keys that are fresh enough to decide by.
    Serving(&'a LiveTable),
}

/// The facts for a decision. The client's address isn't among them, because reading it costs a host call.
pub struct Facts<'a> {
    /// What the edge found in the places of [`Config::credentials`](crate::Config::credentials).
    pub credential: Credential<'a>,
    /// What the request's route requires, from its metadata, `routes` or `unmatched`.
    pub route: RouteRule<'a>,
    /// The request method as it was sent: `get` is not `GET`. It selects the level where the rule names none.
    pub method: &'a [u8],
    /// The table to find the key in, or why there is none to decide by.
    pub knowledge: Knowledge<'a>,
    /// The edge's own environment; a key for another one is refused.
    pub environment: &'a Environment,
    /// Whether a text that doesn't begin with `lk_` is looked up as an imported key, or is malformed.
    pub foreign_keys: ForeignKeys,
    /// The instant that ends of keys and secrets are compared with. The edge passes the later of its own clock and the
    /// control plane's, so that a clock that was set back revives no key.
    pub now: UnixSeconds,
}

/// The decision about a request. Everything except `Public` and `Allow` is a denial.
pub enum Decision<'a> {
    /// Passes without a key.
    Public,
    /// Passes with this key's rights.
    Allow(Permit<'a>),
    /// Doesn't pass. The client gets the status, code and sentence of the reason.
    Deny(Denial<'a>),
}

/// A key that may make the request.
pub struct Permit<'a> {
    /// The record of the secret that was presented; a key has one for each of its secrets.
    pub record: RecordView<'a>,
    /// The id in the record, for the identity headers and for usage.
    pub key: KeyId,
    /// The workspace that the key belongs to. Where the path names one, it is this one.
    pub workspace: WorkspaceId,
    /// The slug of that workspace.
    pub slug: &'a str,
    /// What the record's numbers mean.
    pub catalogue: &'a Catalogue,
}

/// A denial, and the key whose secret was correct, if one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    /// The first check that failed.
    pub reason: DenyReason<'a>,
    /// `Some` only for reasons after [`DenyReason::UnknownKey`]. For logs and usage; the client doesn't get it.
    pub key: Option<KeyId>,
}

/// Why a request is denied, in the order of the checks: the first reason that holds is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyReason<'a> {
    /// 400. The path can be read in more than one way. Comes first, also on public routes.
    BadPath,
    /// 400. The host contains a key. Also on public routes.
    BadAuthority,
    /// 401. None of the configured places has a key.
    MissingKey,
    /// 401. More than one key, equal or not.
    MultipleKeys,
    /// 401. Not the text of a key: wrong shape or checksum, or an imported key where these are refused.
    MalformedKey,
    /// 401. The text names another environment. An imported key's text names none: it gets [`DenyReason::UnknownKey`].
    WrongEnvironment,
    /// 503. The worker has no keys that it may decide by yet.
    NotReady,
    /// 503. The control plane last confirmed the keys longer ago than `max_staleness_secs`.
    Stale,
    /// 401. No record of this digest in the edge's environment.
    UnknownKey,
    /// 401. A newer secret of the key has replaced this one, and their overlap is over.
    RotatedKey,
    /// 401. An admin deactivated the key.
    InactiveKey,
    /// 401. The key's end is reached, its own second included.
    ExpiredKey,
    /// 403. The client's address is not on the key's allowlist, or not known.
    AddressNotAllowed,
    /// 403. No rule for this path and method, a text that isn't a rule, or the rule `deny`.
    NoRouteRule,
    /// 403. The path names another workspace, or the record's workspace can't be read.
    WrongWorkspace,
    /// 403. The key lacks the scope, or has it only for reading where write is needed.
    MissingScope {
        /// The scope that the rule names; the client gets it.
        scope: &'a str,
        /// The level that the rule or the method needs; the client gets it.
        level: Level,
    },
}

/// The codes of all reasons, in their order.
pub const CODES: [&str; 16] = [
    "bad-path",
    "bad-authority",
    "missing-key",
    "multiple-keys",
    "malformed-key",
    "wrong-environment",
    "not-ready",
    "stale",
    "unknown-key",
    "rotated-key",
    "inactive-key",
    "expired-key",
    "address-not-allowed",
    "no-route-rule",
    "wrong-workspace",
    "missing-scope",
];

impl DenyReason<'_> {
    /// The code in responses, metrics and logs; one of [`CODES`].
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadPath => "bad-path",
            Self::BadAuthority => "bad-authority",
            Self::MissingKey => "missing-key",
            Self::MultipleKeys => "multiple-keys",
            Self::MalformedKey => "malformed-key",
            Self::WrongEnvironment => "wrong-environment",
            Self::NotReady => "not-ready",
            Self::Stale => "stale",
            Self::UnknownKey => "unknown-key",
            Self::RotatedKey => "rotated-key",
            Self::InactiveKey => "inactive-key",
            Self::ExpiredKey => "expired-key",
            Self::AddressNotAllowed => "address-not-allowed",
            Self::NoRouteRule => "no-route-rule",
            Self::WrongWorkspace => "wrong-workspace",
            Self::MissingScope { .. } => "missing-scope",
        }
    }

    /// The HTTP status of the response.
    pub fn status(&self) -> u16 {
        match self {
            Self::MissingKey
            | Self::MultipleKeys
            | Self::MalformedKey
            | Self::WrongEnvironment
            | Self::UnknownKey
            | Self::RotatedKey
            | Self::InactiveKey
            | Self::ExpiredKey => 401,
            Self::NotReady | Self::Stale => 503,
            Self::BadPath | Self::BadAuthority => 400,
            Self::AddressNotAllowed | Self::NoRouteRule | Self::WrongWorkspace | Self::MissingScope { .. } => 403,
        }
    }

    /// A sentence for the client: what is wrong, and what to do next.
    pub fn detail(&self) -> &'static str {
        match self {
            Self::BadPath => {
                "The path can be read in more than one way. Send it without dot segments, `//`, `;`, backslashes, blanks at the ends of a segment, and needless or broken percent-encoding."
            }
            Self::BadAuthority => {
                "The host of the request contains an API key. Send the key in the header that this API names, and replace it: hosts are logged on the way."
            }
            Self::MissingKey => "The request has no API key. Send one in the header that this API names.",
            Self::MultipleKeys => "The request has more than one API key. Send exactly one.",
            Self::MalformedKey => {
                "This is not the text of an API key. Compare it with the key as it was shown: a character is wrong, missing or added."
            }
            Self::WrongEnvironment => "This API key is for another environment. Use a key made for this one.",
            Self::NotReady => "This gateway has not received its keys yet. Try again in a few seconds.",
            Self::Stale => "This gateway has had no contact with its control plane for too long. Try again later.",
            Self::UnknownKey => {
                "This API key is not known here. Check that it is the current one, or ask for a new one."
            }
            Self::RotatedKey => "This API key's secret was replaced by a newer one. Use the newest secret of the key.",
            Self::InactiveKey => "This API key is deactivated. Ask an admin of its workspace to activate it.",
            Self::ExpiredKey => "This API key has expired. Ask an admin of its workspace for a new one.",
            Self::AddressNotAllowed => {
                "This API key may not be used from this address. Ask an admin of its workspace to add it to the key's allowlist."
            }
            Self::NoRouteRule => "No API key gives access to this path with this method. Check both.",
            Self::WrongWorkspace => "This API key belongs to another workspace than the one in the path.",
            Self::MissingScope { .. } => {
                "This API key lacks the scope that this request needs. Ask an admin of its workspace to add it."
            }
        }
    }
}

/// Decides a request. `source` is the trusted client address; it is read only if the key has an allowlist.
///
/// Costs one SHA-256 and one look-up, whatever the number of keys, and allocates nothing.
pub fn decide<'a>(facts: &Facts<'a>, source: impl FnOnce() -> Option<IpAddr>) -> Decision<'a> {
    let anonymous = |reason| Decision::Deny(Denial { reason, key: None });
    // First, for every rule: the upstream must read the request in the way it was decided.
    match (facts.route, facts.credential) {
        (RouteRule::BadPath, _) => return anonymous(DenyReason::BadPath),
        (_, Credential::InAuthority) => return anonymous(DenyReason::BadAuthority),
        (route, _) if route.is_public() => return Decision::Public,
        (RouteRule::Rule { .. } | RouteRule::Unknown, _) => {}
    }
    match authenticate(facts, source) {
        Ok(found) => match authorize(facts, found) {
            Ok(permit) => Decision::Allow(permit),
            Err(reason) => Decision::Deny(Denial { reason, key: Some(found.record.key()) }),
        },
        Err(denial) => Decision::Deny(denial),
    }
}

/// Authenticates: finds the record of a key that may be used now and from this address.
fn authenticate<'a>(facts: &Facts<'a>, source: impl FnOnce() -> Option<IpAddr>) -> Result<KeyLookup<'a>, Denial<'a>> {
    let anonymous = |reason| Denial { reason, key: None };
    // What the text itself reveals is checked before the table is read.
    let digest = match facts.credential {
        Credential::InAuthority => return Err(anonymous(DenyReason::BadAuthority)),
        Credential::Missing => return Err(anonymous(DenyReason::MissingKey)),
        Credential::Multiple => return Err(anonymous(DenyReason::MultipleKeys)),
        Credential::One(text) => {
            let key = PresentedKey::parse(text, facts.foreign_keys).map_err(|_| anonymous(DenyReason::MalformedKey))?;
            if key.is_for_another(facts.environment) {
                return Err(anonymous(DenyReason::WrongEnvironment));
            }
            Digest::of(key.text())
        }
        Credential::FromRedirect(digest) => digest,
    };
    let live_table = match facts.knowledge {
        Knowledge::NotReady => return Err(anonymous(DenyReason::NotReady)),
        Knowledge::Stale => return Err(anonymous(DenyReason::Stale)),
        Knowledge::Serving(live_table) => live_table,
    };
    let is_in_environment =
        |found: &KeyLookup<'_>| found.catalogue.is_environment(found.record.environment(), facts.environment);
    let Some(found) = live_table.find(&digest).filter(is_in_environment) else {
        return Err(anonymous(DenyReason::UnknownKey));
    };
    let record = found.record;
    let denied = |reason| Err(Denial { reason, key: Some(record.key()) });
    if record.superseded_at().is_reached(facts.now) {
        return denied(DenyReason::RotatedKey);
    }
    if !record.is_active() {
        return denied(DenyReason::InactiveKey);
    }
    if record.expires_at().is_reached(facts.now) {
        return denied(DenyReason::ExpiredKey);
    }
    if record.has_allowlist() && !record.permits(source()) {
        return denied(DenyReason::AddressNotAllowed);
    }
    Ok(found)
}

/// Authorizes: checks the record's rights against the route's rule.
fn authorize<'a>(facts: &Facts<'a>, found: KeyLookup<'a>) -> Result<Permit<'a>, DenyReason<'a>> {
    let KeyLookup { record, catalogue } = found;
    let (rule, bound) = match facts.route {
        RouteRule::Rule { rule, workspace } => (rule, workspace),
        RouteRule::BadPath => return Err(DenyReason::BadPath),
        RouteRule::Unknown => return Err(DenyReason::NoRouteRule),
    };
    if rule == Rule::Deny {
        return Err(DenyReason::NoRouteRule);
    }
    // A record without a readable workspace allows nothing.
    let (Some(workspace), Some(slug)) = (record.workspace(), record.slug()) else {
        return Err(DenyReason::WrongWorkspace);
    };
    if bound.is_some_and(|bound| bound != slug && bound.parse() != Ok(workspace)) {
        return Err(DenyReason::WrongWorkspace);
    }
    match rule {
        Rule::AnyKey => {}
        Rule::Scope { scope, level } => {
            let needed = level.for_method(facts.method);
            let held = catalogue.scope_number(scope).and_then(|number| record.level(number));
            if !held.is_some_and(|held| held.includes(needed)) {
                return Err(DenyReason::MissingScope { scope, level: needed });
            }
        }
        // Both were handled above; anything that reaches this line is denied.
        Rule::Public | Rule::Deny => return Err(DenyReason::NoRouteRule),
    }
    Ok(Permit { record, key: record.key(), workspace, slug, catalogue })
}

#[cfg(test)]
mod tests;
