//! A request: gather the facts, decide, act.

use std::cell::{OnceCell, RefCell};

use policy::config::Forward;
use policy::decide::{Credential, Decision, Denial, DenyReason, Facts, Knowledge, Permit, decide};
use policy::key_text::PresentedKey;
use policy::{Digest, UnixSeconds};

use crate::answer::{self, Form};
use crate::client_address::client_address;
use crate::credential::{self, Removal};
use crate::edge::{Edge, Health};
use crate::host::{FilterState, Header, Host, Life};
use crate::keys::Clocks;
use crate::metadata::RouteMetadata;
use crate::metrics::Metrics;
use crate::source::{Source, clocks};
use crate::usage::{Address, Denied};

#[cfg(test)]
mod tests;

/// Headers that tell the upstream who it is; whatever a client sends under these names is removed.
pub const IDENTITY_PREFIX: &str = "x-latchkey-";

/// What the filter tells the filters behind it and the access log. The verdict and the rule must end with the pass: after an
/// internal redirect that skipped us, the guard must find none.
pub const FILTER_STATE: [FilterState; 4] = [
    FilterState { name: VERDICT, life: Life::Pass },
    FilterState { name: RULE, life: Life::Pass },
    FilterState { name: KEY_ID, life: Life::Pass },
    FilterState { name: DIGEST, life: Life::Request },
];

/// `allowed`, `public` or `denied:<code>`.
const VERDICT: &str = "latchkey_verdict";
/// The rule and path of the route that was decided by: see [`RouteMetadata::guard_text`].
const RULE: &str = "latchkey_rule";
/// Whose secret was right.
const KEY_ID: &str = "latchkey_key_id";
/// By which a pass that Envoy redirected within finds its key again, whose text was removed.
const DIGEST: &str = "latchkey_digest";

/// What Envoy is to do with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// On to the next filter.
    Passes,
    /// It has been answered.
    Answered,
}

/// A request has come to this worker: where it may have missed something, it looks before it decides.
pub fn on_request(host: &dyn Host, edge: &Edge, source: &RefCell<Source>, metrics: &Metrics) -> Outcome {
    let now = clocks(host);
    let is_current = source.try_borrow_mut().is_ok_and(|mut source| {
        source.takes_requests();
        !source.is_late(now) || source.catches_up(host)
    });
    let source = source.try_borrow().ok();
    on_request_headers(host, edge, source.as_deref(), is_current, now, metrics)
}

/// Decides a request at its headers. `source` is what this worker knows; `None` denies, and so does one that isn't current, for
/// it may have missed a change.
pub fn on_request_headers(
    host: &dyn Host,
    edge: &Edge,
    source: Option<&Source>,
    is_current: bool,
    now: Clocks,
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

    let (method, path) = (header(&headers, ":method"), header(&headers, ":path"));
    let form = Form::of(header(&headers, "content-type"));
    let knowledge = match (edge.health(), source) {
        (Health::Sound, Some(source)) if is_current => source.keys.knowledge(now, edge.config.max_staleness_secs),
        (Health::Sound | Health::DenyAll, _) => Knowledge::NotReady,
    };
    if edge.is_ready_path(path) {
        let ready =
            source.filter(|source| matches!(knowledge, Knowledge::Serving(_)) && source.is_everybody_ready(host, now));
        answer::ready(host, ready.map(|source| source.instance().unwrap_or_default()), form);
        return Outcome::Answered;
    }

    let metadata = host.route_metadata();
    let metadata = match &metadata {
        Ok(metadata) => RouteMetadata::read(metadata.as_deref()),
        Err(_) => RouteMetadata::Unusable,
    };
    host.set_filter_state(RULE, metadata.guard_text().as_bytes());
    let read = edge.config.paths.read(method, path);
    let route = edge.route_rule(metadata, method, read.as_ref());
    let facts = Facts {
        credential: match found.keys.as_slice() {
            _ if found.in_authority => Credential::InAuthority,
            [] if route.is_public() => Credential::Missing,
            [] => kept_credential(host),
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
    let address = Address { known: address.into_inner().flatten(), read: client };
    match decision {
        Decision::Public => {
            if let [key] = found.keys.as_slice() {
                keep_digest(host, edge, key);
            }
            host.set_filter_state(VERDICT, b"public");
            metrics.count("public");
            Outcome::Passes
        }
        Decision::Allow(permit) => {
            allow(host, edge, &permit);
            if let Some(source) = source {
                source.usage.allowed(permit.key, &permit.record.digest(), facts.now, address);
            }
            metrics.count("allowed");
            Outcome::Passes
        }
        Decision::Deny(denial) => {
            deny(host, &denial, form);
            if let Some(source) = source {
                let (code, secret) = (denial.reason.code(), found.keys.first().map(AsRef::as_ref));
                match denial.key {
                    Some(key) => source.usage.denied(&Denied { key, code, method, path, secret }, facts.now, address),
                    None => source.usage.denied_nobody(code),
                }
            }
            metrics.count(denial.reason.code());
            Outcome::Answered
        }
    }
}

/// Keeps a key for a pass that Envoy may redirect within, if it would be taken for one here.
fn keep_digest(host: &dyn Host, edge: &Edge, key: &[u8]) {
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

fn deny(host: &dyn Host, denial: &Denial<'_>, form: Form) {
    if let Some(key) = denial.key {
        host.set_filter_state(KEY_ID, &key.text());
    }
    host.set_filter_state(VERDICT, format!("denied:{}", denial.reason.code()).as_bytes());
    answer::deny(host, denial.reason, form);
}

/// `reviews:read webhooks:write`, sorted by the scope's name.
fn scopes(permit: &Permit<'_>) -> String {
    let named = |(number, level)| permit.catalogue.scope(number).map(|scope| format!("{scope}:{level}"));
    let mut scopes: Vec<String> = permit.record.levels().filter_map(named).collect();
    scopes.sort_unstable();
    scopes.join(" ")
}

/// The key of an earlier pass of this request, if Envoy redirected it within.
fn kept_credential<'a>(host: &dyn Host) -> Credential<'a> {
    let digest = host.filter_state(DIGEST).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    digest.map_or(Credential::Missing, |bytes| Credential::Kept(Digest(bytes)))
}

fn remove_identity(host: &dyn Host, headers: &[Header]) {
    for (name, _) in headers {
        if name.starts_with(IDENTITY_PREFIX) {
            host.remove_request_header(name);
        }
    }
}

/// A header's first value; empty where there is none, as with CONNECT's `:path`.
fn header<'a>(headers: &'a [Header], name: &str) -> &'a [u8] {
    headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice()).unwrap_or_default()
}

/// The answer of a worker that can't decide at all, because its own state is in use: it should never be seen.
pub fn refuse(host: &dyn Host) {
    answer::deny(host, DenyReason::NotReady, Form::Problem);
}
