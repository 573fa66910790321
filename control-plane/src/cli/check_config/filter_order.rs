//! The order of filters: ours, then the guard, and no filter after ours that undoes the decision.

use policy::Config;
use serde_json::Value;

use super::Finding;
use super::chain::{Chain, HttpFilter};
use super::guard::{RBAC, USE_SHIPPED_GUARD, fault};
use super::message::fields;
use super::reference::ReferenceConfig;
use super::values::may_be_true;
use crate::cli::json::string;

/// Filters that neither make Envoy choose the route again nor change what the upstream reads of a request, unless one
/// of their fields is set to do so, which is checked.
const HARMLESS: [&str; 24] = [
    "adaptive_concurrency.v3.AdaptiveConcurrency",
    "admission_control.v3.AdmissionControl",
    "api_key_auth.v3.ApiKeyAuth",
    "bandwidth_limit.v3.BandwidthLimit",
    "basic_auth.v3.BasicAuth",
    "buffer.v3.Buffer",
    "cache.v3.CacheConfig",
    "compressor.v3.Compressor",
    "cors.v3.Cors",
    "csrf.v3.CsrfPolicy",
    "decompressor.v3.Decompressor",
    "ext_authz.v3.ExtAuthz",
    "fault.v3.HTTPFault",
    "grpc_stats.v3.FilterConfig",
    "grpc_web.v3.GrpcWeb",
    "header_mutation.v3.HeaderMutation",
    "jwt_authn.v3.JwtAuthentication",
    "local_ratelimit.v3.LocalRateLimit",
    "rate_limit_quota.v3.RateLimitQuotaFilterConfig",
    "ratelimit.v3.RateLimit",
    "rbac.v3.RBAC",
    "router.v3.Router",
    "set_metadata.v3.Config",
    "stateful_session.v3.StatefulSession",
];

/// Filters that answer from a cache, without looking at the client.
const CACHES: [&str; 2] = ["cache.v3.CacheConfig", "cache_v2.v3.CacheV2Config"];

/// Filters that may change a request's path after Envoy has chosen the route.
const PATH_CHANGERS: [&str; 7] = [
    "composite.v3.Composite",
    "dynamic_modules.v3.DynamicModuleFilter",
    "ext_proc.v3.ExternalProcessor",
    "golang.v3alpha.Config",
    "grpc_json_transcoder.v3.GrpcJsonTranscoder",
    "lua.v3.Lua",
    "wasm.v3.Wasm",
];

/// Checks a chain that a request may go through. `config` is that of our filter, if it can be read.
pub(super) fn check_filter_order(
    chain: &Chain<'_>,
    config: Option<&Config>,
    shipped: &ReferenceConfig,
    findings: &mut Vec<Finding>,
) {
    let filters = &chain.filters;
    let Some(own) = filters.iter().position(HttpFilter::is_ours) else {
        let message = "is a chain of its own without our filter: its requests are not decided; remove it, so that `http_filters` run";
        findings.push(Finding::refused(&chain.place, message));
        return;
    };
    let (before, from_own) = filters.split_at(own);
    let Some((ours, behind)) = from_own.split_first() else { return };
    check_ours(ours, findings);
    for filter in behind.iter().filter(|filter| filter.is_ours()) {
        let message = "is a second Latchkey filter in one chain, which no longer finds a key and decides last: remove one of them";
        findings.push(Finding::refused(&filter.place, message));
    }
    for filter in before {
        check_before(filter, config, findings);
    }
    let guard = check_guard(ours, before, behind, shipped, findings);
    for (at, filter) in behind.iter().enumerate().filter(|(at, filter)| Some(*at) != guard && !filter.is_ours()) {
        check_behind(filter, at, guard, findings);
    }
}

fn check_ours(ours: &HttpFilter<'_>, findings: &mut Vec<Finding>) {
    let mut refuse = |message: &str| findings.push(Finding::refused(&ours.place, message));
    if ours.is_discovered() {
        refuse(
            "comes from elsewhere (`config_discovery`): what it does can't be checked, and with a default configuration Envoy runs without it; write its `typed_config` here",
        );
    }
    if ours.is_matched {
        refuse(
            "is inside an ExtensionWithMatcher, so that a request can skip it: put the filter itself here, and give routes without keys the rule `public`",
        );
    }
    if may_be_true(ours.value, "is_optional") {
        refuse("is optional: an Envoy that doesn't know its type leaves it out; remove `is_optional`");
    }
}

/// The position of the guard in `behind`, if it is as strict as the shipped one.
fn check_guard(
    ours: &HttpFilter<'_>,
    before: &[HttpFilter<'_>],
    behind: &[HttpFilter<'_>],
    shipped: &ReferenceConfig,
    findings: &mut Vec<Finding>,
) -> Option<usize> {
    let router = behind.iter().position(is_router).unwrap_or(behind.len());
    let mut faults = Vec::new();
    for (at, filter) in behind.iter().enumerate().filter(|(_, filter)| is_guard(filter)) {
        let fault = guard_fault(filter, shipped)
            .or_else(|| (at > router).then(|| "is behind the router, which answers before it".to_owned()));
        match fault {
            None => return Some(at),
            Some(fault) => faults.push((filter, fault)),
        }
    }
    if let Some(filter) = before.iter().find(|filter| is_guard(filter)) {
        faults.push((
            filter,
            "is before our filter, and so before there is a verdict: put it directly behind".to_owned(),
        ));
    }
    if faults.is_empty() {
        let message = format!(
            "no guard is behind it: Envoy skips a wasm filter that failed to start, and then nothing is decided; {USE_SHIPPED_GUARD}"
        );
        findings.push(Finding::refused(&ours.place, message));
    }
    for (filter, fault) in faults {
        findings.push(Finding::refused(&filter.place, format!("the guard {fault}; {USE_SHIPPED_GUARD}")));
    }
    None
}

/// True for a filter that is meant as the guard, whether or not it works as one.
fn is_guard(filter: &HttpFilter<'_>) -> bool {
    let is_rbac =
        filter.kind() == RBAC || (filter.is_discovered() && filter.value.to_string().contains("rbac.v3.RBAC"));
    let is_named = filter.name.contains("latchkey");
    let names_latchkey = filter.message.as_ref().is_some_and(|message| message.contains_text("latchkey"));
    (is_rbac && (is_named || names_latchkey)) || (filter.is_discovered() && filter.name.contains("latchkey-guard"))
}

fn guard_fault(filter: &HttpFilter<'_>, shipped: &ReferenceConfig) -> Option<String> {
    if filter.is_disabled() {
        return Some("is disabled: remove `disabled`".to_owned());
    }
    if filter.is_matched {
        return Some("is inside an ExtensionWithMatcher, so that a request can skip it".to_owned());
    }
    if may_be_true(filter.value, "is_optional") {
        return Some("is optional: an Envoy that doesn't know its type leaves it out".to_owned());
    }
    match &filter.message {
        None => Some("comes from elsewhere (`config_discovery`), so it can't be checked".to_owned()),
        Some(message) => fault(message.fields, shipped),
    }
}

fn check_before(filter: &HttpFilter<'_>, config: Option<&Config>, findings: &mut Vec<Finding>) {
    if is_one_of(filter, &CACHES) {
        let message = "answers from its cache before a key is checked: put it behind the guard";
        findings.push(Finding::refused(&filter.place, message));
    } else if is_one_of(filter, &PATH_CHANGERS) {
        let message = "is before our filter and may change the path after Envoy has chosen the route: if it does, it must make Envoy choose the route again";
        findings.push(Finding::warning(&filter.place, message));
    }
    let Some(config) = config else { return };
    let Some(message) = &filter.message else { return };
    for place in super::headers::added_credentials(message.fields, &message.place, config) {
        findings.push(Finding::refused(place, super::headers::ADDS_CREDENTIAL));
    }
}

/// Between our filter and the router, no filter may choose the route again or change the decided request.
fn check_behind(filter: &HttpFilter<'_>, at: usize, guard: Option<usize>, findings: &mut Vec<Finding>) {
    let is_before_guard = guard.is_some_and(|guard| at < guard);
    let gap = if is_before_guard { "between our filter and the guard" } else { "between our filter and the router" };
    let mut refuse = |message: String| findings.push(Finding::refused(&filter.place, message));
    let name = if filter.name.is_empty() { filter.kind() } else { filter.name };
    if !is_one_of(filter, &HARMLESS) || filter.is_matched {
        let what = if filter.message.is_none() {
            "comes from elsewhere, so that what it does can't be checked"
        } else {
            "may change the request that was decided, or make Envoy choose another route for it"
        };
        refuse(format!("`{name}` is {gap} and {what}: put it before our filter"));
        return;
    }
    if filter.kind().ends_with("router.v3.Router") && is_before_guard {
        refuse(format!("`{name}` is {gap}, so that the guard is never reached: put the guard before it"));
    }
    let Some(message) = &filter.message else { return };
    for (place, _) in
        fields(message.fields, "clear_route_cache").iter().filter(|(_, value)| **value != Value::Bool(false))
    {
        refuse(format!(
            "`{name}` is {gap} and makes Envoy choose the route again (`{place}`): remove that, or put it before our filter"
        ));
    }
}

fn is_router(filter: &HttpFilter<'_>) -> bool {
    filter.kind().ends_with("router.v3.Router")
}

fn is_one_of(filter: &HttpFilter<'_>, kinds: &[&str]) -> bool {
    let kind = filter.kind().strip_prefix("envoy.extensions.filters.http.").unwrap_or_default();
    kinds.contains(&kind)
}

/// The filter names by which a route could disable or override what protects this chain.
pub(super) fn protected_names<'a>(chain: &Chain<'a>) -> Vec<(&'a str, FilterRole)> {
    let role = |filter: &HttpFilter<'a>| {
        if filter.is_ours() {
            Some(FilterRole::Filter)
        } else if is_guard(filter) {
            Some(FilterRole::Guard)
        } else {
            let cleans = filter.message.as_ref().is_some_and(|message| {
                message.kind.ends_with("header_mutation.v3.HeaderMutation") && message.contains_text("latchkey")
            });
            cleans.then_some(FilterRole::Mutation)
        }
    };
    chain.filters.iter().filter_map(|filter| Some((string(filter.value, "name"), role(filter)?))).collect()
}

/// A filter's part in the protection of a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FilterRole {
    Filter,
    Guard,
    /// Removes a client's identity headers, so that they don't reach the upstream.
    Mutation,
}
