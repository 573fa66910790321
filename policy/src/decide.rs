//! The decision about a request, from its facts.

use std::net::IpAddr;

use crate::deny_reason::DenyReason;
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
    pub reason: DenyReason,
    /// `Some` only for reasons after [`DenyReason::UnknownKey`]. For logs and usage; the client doesn't get it.
    pub key: Option<KeyId>,
    /// `Some` only with [`DenyReason::MissingScope`]; the client gets it.
    pub required: Option<RequiredScope<'a>>,
}

/// What a rule requires of a key, for the method of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredScope<'a> {
    /// The scope that the rule names.
    pub scope: &'a str,
    /// The level that the rule or the method needs.
    pub level: Level,
}

impl Denial<'_> {
    /// A denial of a request without a correct secret.
    pub fn anonymous(reason: DenyReason) -> Self {
        Self { reason, key: None, required: None }
    }

    /// A denial of a request with a correct secret of this key.
    fn of(key: KeyId, reason: DenyReason) -> Self {
        Self { reason, key: Some(key), required: None }
    }
}

/// Decides a request. `source` is the trusted client address; it is read only if the key has an allowlist.
///
/// Costs one SHA-256 and one look-up, whatever the number of keys, and allocates nothing.
pub fn decide<'a>(facts: &Facts<'a>, source: impl FnOnce() -> Option<IpAddr>) -> Decision<'a> {
    let anonymous = |reason| Decision::Deny(Denial::anonymous(reason));
    // First, for every rule: the upstream must read the request in the way it was decided.
    match (facts.route, facts.credential) {
        (RouteRule::BadPath, _) => return anonymous(DenyReason::BadPath),
        (_, Credential::InAuthority) => return anonymous(DenyReason::BadAuthority),
        (route, _) if route.is_public() => return Decision::Public,
        (RouteRule::Rule { .. } | RouteRule::Unknown, _) => {}
    }
    match authenticate(facts, source).and_then(|found| authorize(facts, found)) {
        Ok(permit) => Decision::Allow(permit),
        Err(denial) => Decision::Deny(denial),
    }
}

/// Authenticates: finds the record of a key that may be used now and from this address.
fn authenticate<'a>(facts: &Facts<'a>, source: impl FnOnce() -> Option<IpAddr>) -> Result<KeyLookup<'a>, Denial<'a>> {
    let anonymous = Denial::anonymous;
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
    let denied = |reason| Err(Denial::of(record.key(), reason));
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
fn authorize<'a>(facts: &Facts<'a>, found: KeyLookup<'a>) -> Result<Permit<'a>, Denial<'a>> {
    let KeyLookup { record, catalogue } = found;
    let denied = |reason| Err(Denial::of(record.key(), reason));
    let (rule, bound) = match facts.route {
        RouteRule::Rule { rule, workspace } => (rule, workspace),
        RouteRule::BadPath => return denied(DenyReason::BadPath),
        RouteRule::Unknown => return denied(DenyReason::NoRouteRule),
    };
    if rule == Rule::Deny {
        return denied(DenyReason::NoRouteRule);
    }
    // A record without a readable workspace allows nothing.
    let (Some(workspace), Some(slug)) = (record.workspace(), record.slug()) else {
        return denied(DenyReason::WrongWorkspace);
    };
    if bound.is_some_and(|bound| bound != slug && bound.parse() != Ok(workspace)) {
        return denied(DenyReason::WrongWorkspace);
    }
    match rule {
        Rule::AnyKey => {}
        Rule::Scope { scope, level } => {
            let needed = level.for_method(facts.method);
            let held = catalogue.scope_number(scope).and_then(|number| record.level(number));
            if !held.is_some_and(|held| held.includes(needed)) {
                let required = Some(RequiredScope { scope, level: needed });
                return Err(Denial { required, ..Denial::of(record.key(), DenyReason::MissingScope) });
            }
        }
        // Both were handled above; anything that reaches this line is denied.
        Rule::Public | Rule::Deny => return denied(DenyReason::NoRouteRule),
    }
    Ok(Permit { record, key: record.key(), workspace, slug, catalogue })
}

#[cfg(test)]
mod tests;
