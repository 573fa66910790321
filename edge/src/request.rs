//! The request path: gathers the facts, decides, acts.

use std::cell::{OnceCell, RefCell};

use policy::config::Forward;
use policy::decide::{Credential, Decision, Denial, Facts, Knowledge, Permit, decide};
use policy::key_text::PresentedKey;
use policy::{DenyReason, Digest, UnixSeconds};

use crate::client_address::client_address;
use crate::credential::{self, HeaderEdit};
use crate::edge::{Edge, Health};
use crate::host::{FilterState, Header, Host, LifeSpan};
use crate::keys::Clocks;
use crate::metadata::RouteMetadata;
use crate::metrics::Metrics;
use crate::response::{self, DenialFormat};
use crate::source::{Source, clocks};
use crate::usage::{DeniedRequest, LazyAddress};

#[cfg(test)]
mod tests;

/// The prefix of the identity headers for the upstream. Headers of a client with this prefix are removed.
pub const IDENTITY_PREFIX: &str = "x-latchkey-";

/// The filter state for the filters after this one and for the access log. The verdict and the rule must end with the
/// pass: after an internal redirect that skipped this filter, the guard must find none.
pub const FILTER_STATE: [FilterState; 4] = [
    FilterState { name: VERDICT, life_span: LifeSpan::Pass },
    FilterState { name: RULE, life_span: LifeSpan::Pass },
    FilterState { name: KEY_ID, life_span: LifeSpan::Pass },
    FilterState { name: DIGEST, life_span: LifeSpan::Request },
];

/// `allowed`, `public` or `denied:<code>`.
const VERDICT: &str = "latchkey_verdict";
/// The rule and path of the route that was decided by: see [`RouteMetadata::guard_text`].
const RULE: &str = "latchkey_rule";
/// The id of the key whose secret was valid.
const KEY_ID: &str = "latchkey_key_id";
/// The key's digest, by which a pass after an internal redirect finds the key again: its text was removed.
const DIGEST: &str = "latchkey_digest";

/// What Envoy does with the request next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It continues to the next filter.
    Passes,
    /// The filter has sent a response.
    Answered,
}

/// Decides a request. A worker that may have missed a change catches up first.
pub fn on_request(host: &dyn Host, edge: &Edge, source: &RefCell<Source>, metrics: &Metrics) -> RequestOutcome {
    let now = clocks(host);
    let is_current = source.try_borrow_mut().is_ok_and(|mut source| {
        source.record_request();
        !source.is_late(now) || source.catch_up(host)
    });
    let source = source.try_borrow().ok();
    on_request_headers(host, edge, source.as_deref(), is_current, now, metrics)
}

/// Decides a request at its headers. Without `source`, this worker's keys, it is denied; also if `source` isn't
/// current, so that it may have missed a change.
pub fn on_request_headers(
    host: &dyn Host,
    edge: &Edge,
    source: Option<&Source>,
    is_current: bool,
    now: Clocks,
    metrics: &Metrics,
) -> RequestOutcome {
    let headers = host.request_headers();
    let scan = credential::find(&headers, &edge.config.credentials);
    // Before any response, so that no access log and no upstream ever contains a key.
    for edit in &scan.header_edits {
        match edit {
            HeaderEdit::Remove(name) => host.remove_request_header(name),
            HeaderEdit::Rewrite(name, value) => host.set_request_header(name, value),
        }
    }
    remove_identity(host, &headers);

    let (method, path) = (header(&headers, ":method"), header(&headers, ":path"));
    let format = DenialFormat::of(header(&headers, "content-type"));
    let knowledge = match (edge.health(), source) {
        (Health::Healthy, Some(source)) if is_current => source.keys.knowledge(now, edge.config.max_staleness_secs),
        (Health::Healthy | Health::DenyAll, _) => Knowledge::NotReady,
    };
    if edge.is_ready_path(path) {
        let ready = source
            .filter(|source| matches!(knowledge, Knowledge::Serving(_)) && source.are_all_workers_ready(host, now));
        response::ready(host, ready.map(|source| source.instance().unwrap_or_default()), format);
        return RequestOutcome::Answered;
    }

    let metadata = host.route_metadata();
    let metadata = match &metadata {
        Ok(metadata) => RouteMetadata::read(metadata.as_deref()),
        Err(_) => RouteMetadata::Unusable,
    };
    host.set_filter_state(RULE, metadata.guard_text().as_bytes());
    let request_path = edge.config.paths.read(method, path);
    let route = edge.route_rule(metadata, method, request_path.as_ref());
    let facts = Facts {
        credential: match scan.keys.as_slice() {
            _ if scan.in_authority => Credential::InAuthority,
            [] if route.is_public() => Credential::Missing,
            [] => redirected_credential(host),
            [key] => Credential::One(key),
            [_, _, ..] => Credential::Multiple,
        },
        route,
        method,
        knowledge,
        environment: &edge.config.environment,
        foreign_keys: edge.config.foreign(),
        now: source.map_or(UnixSeconds::DISTANT_FUTURE, |own| own.keys.now(now)),
    };
    let address = OnceCell::new();
    let client = || client_address(host, &headers, edge.config.trusted_hops);
    let decision = decide(&facts, || *address.get_or_init(client));
    let address = LazyAddress { known: address.into_inner().flatten(), read: client };
    match decision {
        Decision::Public => {
            if let [key] = scan.keys.as_slice() {
                store_digest(host, edge, key);
            }
            host.set_filter_state(VERDICT, b"public");
            metrics.count("public");
            RequestOutcome::Passes
        }
        Decision::Allow(permit) => {
            allow(host, edge, &permit);
            if let Some(source) = source {
                source.usage.count_allowed(permit.key, &permit.record.digest(), facts.now, address);
            }
            metrics.count("allowed");
            RequestOutcome::Passes
        }
        Decision::Deny(denial) => {
            deny(host, &denial, format);
            if let Some(source) = source {
                let (reason, secret) = (denial.reason, scan.keys.first().map(AsRef::as_ref));
                match denial.key {
                    Some(key) => source.usage.count_denied(
                        &DeniedRequest { key, reason, method, path, secret },
                        facts.now,
                        address,
                    ),
                    None => source.usage.count_denied_without_key(reason),
                }
            }
            metrics.count(denial.reason.code());
            RequestOutcome::Answered
        }
    }
}

/// Stores a key's digest in the filter state, for a pass after an internal redirect, if this edge accepts such keys.
fn store_digest(host: &dyn Host, edge: &Edge, key: &[u8]) {
    let presented = PresentedKey::parse(key, edge.config.foreign());
    if presented.is_ok_and(|key| !key.is_for_another(&edge.config.environment)) {
        host.set_filter_state(DIGEST, &Digest::of(key).0);
    }
}

fn allow(host: &dyn Host, edge: &Edge, permit: &Permit<'_>) {
    let key = permit.key.text();
    host.set_filter_state(DIGEST, &permit.record.digest().0);
    host.set_filter_state(KEY_ID, &key);
    host.set_filter_state(VERDICT, b"allowed");
    for forward in &edge.config.forward {
        match forward {
            Forward::KeyId => host.set_request_header("x-latchkey-key-id", &key),
            Forward::WorkspaceId => {
                host.set_request_header("x-latchkey-workspace-id", &permit.workspace.text());
            }
            Forward::Workspace => host.set_request_header("x-latchkey-workspace", permit.slug.as_bytes()),
            Forward::Scopes => host.set_request_header("x-latchkey-scopes", scopes(permit).as_bytes()),
        }
    }
}

fn deny(host: &dyn Host, denial: &Denial<'_>, format: DenialFormat) {
    if let Some(key) = denial.key {
        host.set_filter_state(KEY_ID, &key.text());
    }
    host.set_filter_state(VERDICT, format!("denied:{}", denial.reason.code()).as_bytes());
    response::deny(host, denial, format);
}

/// `reviews:read webhooks:write`, sorted by the scope's name.
fn scopes(permit: &Permit<'_>) -> String {
    let named = |(number, level)| permit.catalogue.scope(number).map(|scope| format!("{scope}:{level}"));
    let mut scopes: Vec<String> = permit.record.levels().filter_map(named).collect();
    scopes.sort_unstable();
    scopes.join(" ")
}

/// The key of an earlier pass of this request, if there was an internal redirect.
fn redirected_credential<'a>(host: &dyn Host) -> Credential<'a> {
    let digest = host.filter_state(DIGEST).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    digest.map_or(Credential::Missing, |bytes| Credential::FromRedirect(Digest(bytes)))
}

fn remove_identity(host: &dyn Host, headers: &[Header]) {
    for (name, _) in headers {
        if name.starts_with(IDENTITY_PREFIX) {
            host.remove_request_header(name);
        }
    }
}

/// A header's first value; empty if there is none, as with CONNECT's `:path`.
fn header<'a>(headers: &'a [Header], name: &str) -> &'a [u8] {
    headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice()).unwrap_or_default()
}

/// The response of a worker that can't decide at all, because its own state is in use. This should never happen.
pub fn refuse(host: &dyn Host) {
    response::deny(host, &Denial::anonymous(DenyReason::NotReady), DenialFormat::Problem);
}
