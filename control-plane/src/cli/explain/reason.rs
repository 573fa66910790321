//! The reason for a request's outcome, with details that only operators may know.

use std::net::IpAddr;

use policy::decide::{Denial, RequiredScope};
use policy::route::RouteRule;
use policy::rule::{NeededLevel, Rule};
use policy::{Config, DenyReason, UnixSeconds};

use super::record::ExplainedKey;
use crate::base::instant;

/// The request to explain.
pub(super) struct ExplainedRequest<'a> {
    pub(super) route: RouteRule<'a>,
    pub(super) method: &'a str,
    pub(super) address: Option<IpAddr>,
    pub(super) now: UnixSeconds,
}

/// The rule as it is written, and what it requires for this method.
pub(super) fn rule(request: &ExplainedRequest<'_>) -> String {
    match request.route {
        RouteRule::BadPath => "none: the path can be read in more than one way".to_owned(),
        RouteRule::Unknown => "none for this path and method, or not a rule".to_owned(),
        RouteRule::Rule { rule: Rule::Public, .. } => "public".to_owned(),
        RouteRule::Rule { rule: Rule::Deny, .. } => "deny".to_owned(),
        RouteRule::Rule { rule: Rule::AnyKey, workspace } => format!("key{}", bound(workspace)),
        RouteRule::Rule { rule: Rule::Scope { scope, level }, workspace } => {
            let needed = level.for_method(request.method.as_bytes());
            let by = match level {
                NeededLevel::ByMethod => format!(" (by the method {})", request.method),
                NeededLevel::Fixed(_) => String::new(),
            };
            format!("{scope}:{needed}{by}{}", bound(workspace))
        }
    }
}

fn bound(workspace: Option<&str>) -> String {
    workspace.map(|workspace| format!(", for keys of workspace {workspace}")).unwrap_or_default()
}

pub(super) fn allowed(request: &ExplainedRequest<'_>, config: &Config) -> String {
    format!("the key is valid for `{}` and has what the rule requires: {}", config.environment, rule(request))
}

pub(super) fn denied(
    denial: &Denial<'_>,
    request: &ExplainedRequest<'_>,
    config: &Config,
    key: Option<&ExplainedKey>,
) -> String {
    let reason = denial.reason;
    if reason == DenyReason::BadPath {
        return format!("{} `paths.allow` lists what else this edge allows", reason.detail());
    }
    let Some(key) = key else {
        return format!("{} (give --key or --record for a request with a key)", reason.detail());
    };
    let environment = &key.environment;
    match reason {
        DenyReason::WrongEnvironment => {
            format!("the key is for `{environment}`, the edge for `{}`", config.environment)
        }
        DenyReason::RotatedKey => "this secret of the key was rotated out; only the newest is valid".to_owned(),
        DenyReason::InactiveKey => "the key is deactivated".to_owned(),
        DenyReason::ExpiredKey => {
            let at = key.expires_at.map(instant::text).unwrap_or_default();
            format!("the key expired at {at}, and it is {}", instant::text(request.now))
        }
        DenyReason::AddressNotAllowed => {
            let networks: Vec<String> = Option::from(key.record.allowlist.clone()).unwrap_or_default();
            let from = match request.address {
                Some(address) => format!("{address} is in none of them"),
                None => "no --address was given, and an unknown address is in none of them".to_owned(),
            };
            format!("the key may be used from {} only: {from}", networks.join(", "))
        }
        DenyReason::MissingScope => {
            let Some(RequiredScope { scope, level }) = denial.required else { return reason.detail().to_owned() };
            let held = key.scopes.iter().find(|(own, _)| own.as_str() == scope);
            let held = held.map_or_else(|| format!("nothing of {scope}"), |(own, level)| format!("{own}:{level}"));
            format!("the rule needs {scope}:{level}; the key has {held}")
        }
        DenyReason::WrongWorkspace => {
            let own = match key.record.slug.as_str() {
                "" => key.record.workspace.to_string(),
                slug => format!("{slug} ({})", key.record.workspace),
            };
            let hint = if key.record.slug.is_empty() { "; give its slug with --workspace" } else { "" };
            format!("the path names another workspace than the key's own, {own}{hint}")
        }
        DenyReason::NoRouteRule => match request.route {
            RouteRule::Rule { rule: Rule::Deny, .. } => "the rule is `deny`: nothing passes".to_owned(),
            RouteRule::Rule { .. } | RouteRule::BadPath | RouteRule::Unknown => {
                "this path and method have no rule, the stated rule isn't valid, or the path doesn't match its template"
                    .to_owned()
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
