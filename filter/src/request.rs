//! A request: gather the facts, decide, act.

use std::net::{IpAddr, SocketAddr};

use policy::config::Forward;
use policy::decide::{Credential, Decision, Denial, DenyReason, Facts, Knowledge, Permit, decide};
use policy::wire::Catalogue;

use crate::answer;
use crate::credential::{self, Removal};
use crate::edge::{Edge, Health};
use crate::host::{Header, Host};
use crate::metadata::RouteMetadata;
use crate::metrics::Metrics;
use crate::subscription::{Clocks, Subscription};

#[cfg(test)]
mod tests;

/// Headers that tell the upstream who it is; whatever a client sends under these names is removed.
const IDENTITY_PREFIX: &str = "x-latchkey-";

/// What Envoy is to do with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On to the next filter.
    Passes,
    /// It has been answered.
    Answered,
}

/// Decides a request at its headers. `subscription` is what this worker knows; `None` denies.
pub fn on_request_headers(
    host: &dyn Host,
    edge: &Edge,
    subscription: Option<&Subscription>,
    metrics: &Metrics,
) -> Outcome {
    let headers = host.request_headers();
    let found = credential::find(&headers, &edge.config.credentials);
    // Before any answer, so that no access log and no upstream ever has them.
    for removal in &found.removals {
        match removal {
            Removal::Header(name) => host.remove_request_header(name),
            Removal::Rewrite(name, value) => host.set_request_header(name, value),
        }
    }
    remove_identity(host, &headers);

    let path = pseudo_header(&headers, ":path");
    let clocks = Clocks { wall_ms: host.wall_clock_ms(), monotonic_ms: host.monotonic_ms() };
    let knowledge = match (edge.health(), subscription) {
        (Health::Sound, Some(subscription)) => subscription.knowledge(clocks, edge.config.max_staleness_secs),
        (Health::Sound, None) | (Health::DenyAll, _) => Knowledge::NotReady,
    };
    if edge.is_ready_path(path) {
        answer::ready(host, matches!(knowledge, Knowledge::Serving(_)));
        return Outcome::Answered;
    }

    let metadata = host.route_metadata();
    let metadata = match &metadata {
        Ok(metadata) => RouteMetadata::read(metadata.as_deref()),
        Err(_) => RouteMetadata::Unusable,
    };
    host.set_filter_state("latchkey_rule", &metadata.guard_text());
    let method = pseudo_header(&headers, ":method");
    let facts = Facts {
        credential: match found.keys.as_slice() {
            [] => Credential::Missing,
            [key] => Credential::One(key),
            [_, _, ..] => Credential::Multiple,
        },
        route: match edge.health() {
            Health::Sound => edge.route_rule(metadata, method, path),
            Health::DenyAll => policy::route::RouteRule::Unknown,
        },
        method,
        knowledge,
        environment: &edge.config.environment,
        foreign_keys: edge.config.foreign(),
        now: subscription.map_or(policy::UnixSeconds::DISTANT_FUTURE, |own| own.now(clocks)),
    };
    match decide(&facts, || client_address(host)) {
        Decision::Public => {
            host.set_filter_state("latchkey_verdict", "public");
            metrics.count(host, "public");
            Outcome::Passes
        }
        Decision::Allow(permit) => {
            allow(host, edge, knowledge, &permit);
            metrics.count(host, "allowed");
            Outcome::Passes
        }
        Decision::Deny(denial) => {
            deny(host, &denial);
            metrics.count(host, denial.reason.code());
            Outcome::Answered
        }
    }
}

fn allow(host: &dyn Host, edge: &Edge, knowledge: Knowledge<'_>, permit: &Permit<'_>) {
    let key = permit.key.to_string();
    host.set_filter_state("latchkey_key_id", &key);
    host.set_filter_state("latchkey_verdict", "allowed");
    for forward in &edge.config.forward {
        match forward {
            Forward::KeyId => host.set_request_header("x-latchkey-key-id", key.as_bytes()),
            Forward::WorkspaceId => {
                host.set_request_header("x-latchkey-workspace-id", permit.workspace.to_string().as_bytes());
            }
            Forward::Workspace => host.set_request_header("x-latchkey-workspace", permit.slug.as_bytes()),
            Forward::Scopes => {
                if let Knowledge::Serving(table) = knowledge {
                    host.set_request_header("x-latchkey-scopes", scopes(table.catalogue(), permit).as_bytes());
                }
            }
        }
    }
}

fn deny(host: &dyn Host, denial: &Denial<'_>) {
    if let Some(key) = denial.key {
        host.set_filter_state("latchkey_key_id", &key.to_string());
    }
    host.set_filter_state("latchkey_verdict", &format!("denied:{}", denial.reason.code()));
    answer::deny(host, denial.reason);
}

/// `reviews:read webhooks:write`, sorted by the scope's name.
fn scopes(catalogue: &Catalogue, permit: &Permit<'_>) -> String {
    let named = |(number, level)| catalogue.scope(number).map(|scope| format!("{scope}:{level}"));
    let mut scopes: Vec<String> = permit.record.levels().filter_map(named).collect();
    scopes.sort_unstable();
    scopes.join(" ")
}

fn remove_identity(host: &dyn Host, headers: &[Header]) {
    for (name, _) in headers {
        if name.starts_with(IDENTITY_PREFIX) {
            host.remove_request_header(name);
        }
    }
}

/// The value of a pseudo-header; empty where there is none, as with CONNECT's `:path`.
fn pseudo_header<'a>(headers: &'a [Header], name: &str) -> &'a [u8] {
    headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice()).unwrap_or_default()
}

/// The trusted client address. Anything but an IP address and a port is unknown, and fits no allowlist.
fn client_address(host: &dyn Host) -> Option<IpAddr> {
    let address = host.source_address()?;
    let address: SocketAddr = str::from_utf8(&address).ok()?.parse().ok()?;
    Some(address.ip())
}

/// The answer of a worker that can't decide at all, because its own state is in use: it should never be seen.
pub fn refuse(host: &dyn Host) {
    answer::deny(host, DenyReason::NotReady);
}
