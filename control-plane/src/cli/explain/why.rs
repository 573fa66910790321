//! The reason for a request's outcome, with details that only operators may know.

use std::net::IpAddr;

use policy::decide::DenyReason;
use policy::route::RouteRule;
use policy::rule::{NeededLevel, Rule};
use policy::{Config, UnixSeconds};

use super::record::Known;
use crate::instant;

/// The request to explain.
pub(super) struct Asked<'a> {
    pub(super) route: RouteRule<'a>,
    pub(super) method: &'a str,
    pub(super) address: Option<IpAddr>,
    pub(super) now: UnixSeconds,
}

/// The rule as it is written, and what it requires for this method.
pub(super) fn rule(asked: &Asked<'_>) -> String {
    match asked.route {
        RouteRule::BadPath => "none: the path can be read in more than one way".to_owned(),
        RouteRule::Unknown => "none for this path and method, or not a rule".to_owned(),
        RouteRule::Rule { rule: Rule::Public, .. } => "public".to_owned(),
        RouteRule::Rule { rule: Rule::Deny, .. } => "deny".to_owned(),
        RouteRule::Rule { rule: Rule::AnyKey, workspace } => format!("key{}", bound(workspace)),
        RouteRule::Rule { rule: Rule::Scope { scope, level }, workspace } => {
            let needed = level.for_method(asked.method.as_bytes());
            let by = match level {
                NeededLevel::ByMethod => format!(" (by the method {})", asked.method),
                NeededLevel::Fixed(_) => String::new(),
            };
            format!("{scope}:{needed}{by}{}", bound(workspace))
        }
    }
}

fn bound(workspace: Option<&str>) -> String {
    workspace.map(|workspace| format!(", for keys of workspace {workspace}")).unwrap_or_default()
}

pub(super) fn allowed(asked: &Asked<'_>, config: &Config) -> String {
    format!("the key is valid for `{}` and has what the rule asks for: {}", config.environment, rule(asked))
}

pub(super) fn denied(reason: &DenyReason<'_>, asked: &Asked<'_>, config: &Config, known: Option<&Known>) -> String {
    if matches!(reason, DenyReason::BadPath) {
        return format!("{} `paths.allow` says what else this edge admits", reason.detail());
    }
    let Some(known) = known else {
        return format!("{} (give --key or --record for a request with a key)", reason.detail());
    };
    let environment = &known.environment;
    match reason {
        DenyReason::WrongEnvironment => {
            format!("the key is for `{environment}`, the edge for `{}`", config.environment)
        }
        DenyReason::RotatedKey => "this secret of the key has ended; only the newest works".to_owned(),
        DenyReason::InactiveKey => "the key is deactivated".to_owned(),
        DenyReason::ExpiredKey => {
            let at = known.expires_at.map(instant::text).unwrap_or_default();
            format!("the key expired at {at}, and it is {}", instant::text(asked.now))
        }
        DenyReason::AddressNotAllowed => {
            let networks: Vec<String> = Option::from(known.record.allowlist.clone()).unwrap_or_default();
            let from = match asked.address {
                Some(address) => format!("{address} is in none of them"),
                None => "no --address was given, and an unknown one fits none".to_owned(),
            };
            format!("the key may be used from {} only: {from}", networks.join(", "))
        }
        DenyReason::MissingScope { scope, level } => {
            let held = known.scopes.iter().find(|(own, _)| own.as_str() == *scope);
            let held = held.map_or_else(|| format!("nothing of {scope}"), |(own, level)| format!("{own}:{level}"));
            format!("the rule needs {scope}:{level}; the key has {held}")
        }
        DenyReason::WrongWorkspace => {
            let own = match known.record.slug.as_str() {
                "" => known.record.workspace.to_string(),
                slug => format!("{slug} ({})", known.record.workspace),
            };
            let hint = if known.record.slug.is_empty() { "; --workspace says its slug" } else { "" };
            format!("the path names another workspace than the key's own, {own}{hint}")
        }
        DenyReason::NoRouteRule => match asked.route {
            RouteRule::Rule { rule: Rule::Deny, .. } => "the rule is `deny`: nothing passes".to_owned(),
            RouteRule::Rule { .. } | RouteRule::BadPath | RouteRule::Unknown => {
                "no rule is known for this path and method, what is stated isn't a rule, or the path doesn't fit its template".to_owned()
            }
        },
        DenyReason::MalformedKey => {
            "the secret doesn't begin with `lk_`, and the edge's `foreign_keys` is false".to_owned()
        }
        DenyReason::MissingKey
        | DenyReason::MultipleKeys
        | DenyReason::NotReady
        | DenyReason::Stale
        | DenyReason::UnknownKey
        | DenyReason::BadPath
        | DenyReason::BadAuthority => reason.detail().to_owned(),
    }
}
