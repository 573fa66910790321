//! What Envoy itself must be told, so that nothing passes our filter by.

use policy::Config;
use policy::config::Feed;
use serde_json::Value;

use super::capabilities::NEEDED;
use super::find::{Filter, filters, is_a, walk};
use super::rules::{Catalogue, check_route};
use super::{Finding, plugin};
use crate::cli::json::{is, part, word};
use crate::cli::output::counted;

const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const CONNECTION_MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// All that is found in an Envoy file, and what was looked at.
pub fn check(file: &Value, catalogue: Option<&Catalogue>) -> (Vec<Finding>, String) {
    let mut findings = Vec::new();
    let found = filters(file);
    let mut edges = Vec::new();
    for filter in &found {
        edges.extend(check_filter(file, filter, catalogue, &mut findings));
    }
    check_guard_elsewhere(file, &found, &mut findings);
    walk(file, "", &mut |place, value| {
        if is_a(value, CONNECTION_MANAGER) {
            check_connection_manager(place, value, &mut findings);
        }
    });
    let (mut routes, mut stated) = (0_u64, 0_u64);
    walk(file, "", &mut |place, value| {
        let is_route = part(value, &["match"]).is_object()
            && ["route", "redirect", "direct_response", "metadata"].iter().any(|name| value.get(name).is_some());
        if is_route {
            routes = routes.saturating_add(1);
            stated = stated.saturating_add(u64::from(check_route(place, value, catalogue, &mut findings)));
        }
        check_overrides(place, value, &mut findings);
    });
    let edges = edges.iter().map(|edge| format!("`{edge}`")).collect::<Vec<_>>().join(", ");
    let checked = format!(
        "{} of the edge {edges}; {stated} of {} state a rule, the others are `routes`' and `unmatched`'s",
        counted(found.len() as u64, "filter"),
        counted(routes, "route"),
    );
    (findings, checked)
}

/// Answers with the edge's name, if its configuration would be taken.
fn check_filter(
    file: &Value,
    filter: &Filter<'_>,
    catalogue: Option<&Catalogue>,
    findings: &mut Vec<Finding>,
) -> Option<String> {
    let Filter { place, config: wasm, plugin: json } = filter;
    let below = |field: &str| format!("{place}.{field}");
    match part(wasm, &["failure_policy"]).as_str() {
        Some("FAIL_RELOAD") => {}
        Some("FAIL_OPEN") => findings.push(Finding::refused(
            below("failure_policy"),
            "FAIL_OPEN lets everything through when the filter breaks; FAIL_RELOAD is needed",
        )),
        _ if is(wasm, "fail_open") => findings.push(Finding::refused(
            below("fail_open"),
            "lets everything through when the filter breaks; take it out, and set failure_policy: FAIL_RELOAD",
        )),
        _ => findings.push(Finding::warning(
            below("failure_policy"),
            "without FAIL_RELOAD a worker whose VM broke denies until Envoy is restarted",
        )),
    }
    check_capabilities(wasm, place, findings);
    let Some(json) = json else {
        findings.push(Finding::refused(
            below("configuration"),
            "a google.protobuf.StringValue with the plugin configuration is expected",
        ));
        return None;
    };
    let config = plugin(&below("configuration.value"), json, catalogue, findings)?;
    let shares = part(wasm, &["vm_config", "vm_id"]).as_str().is_some_and(|id| !id.is_empty());
    if !shares && config.feed == Feed::Process {
        let message = "is empty, so any plugin could write what workers share: each worker asks the control plane by itself; set vm_id: latchkey";
        findings.push(Finding::warning(below("vm_config.vm_id"), message));
    }
    check_token(wasm, &config, &below("vm_config.environment_variables"), findings);
    check_cluster(file, &config, &below("configuration.value"), findings);
    Some(config.edge)
}

fn check_capabilities(wasm: &Value, place: &str, findings: &mut Vec<Finding>) {
    let lists = [
        (part(wasm, &["capability_restriction_config"]), "capability_restriction_config"),
        (part(wasm, &["vm_config", "capability_restriction_config"]), "vm_config.capability_restriction_config"),
    ];
    for (restriction, below) in lists {
        // An empty list restricts nothing.
        let Some(allowed) =
            part(restriction, &["allowed_capabilities"]).as_object().filter(|allowed| !allowed.is_empty())
        else {
            continue;
        };
        let missing: Vec<_> = NEEDED.iter().filter(|name| !allowed.contains_key(**name)).copied().collect();
        if !missing.is_empty() {
            let message = format!("the filter needs what this withholds: {}", missing.join(", "));
            findings.push(Finding::refused(format!("{place}.{below}.allowed_capabilities"), message));
        }
    }
}

fn check_token(wasm: &Value, config: &Config, place: &str, findings: &mut Vec<Finding>) {
    let Some(name) = &config.control_plane.token_env else { return };
    let given = part(wasm, &["vm_config", "environment_variables"]);
    let in_keys = part(given, &["host_env_keys"]).as_array().is_some_and(|keys| keys.iter().any(|key| key == name));
    if !in_keys && part(given, &["key_values"]).get(name).is_none() {
        let message =
            format!("`control_plane.token_env` is `{name}`, which the VM is not given: list it under `host_env_keys`");
        findings.push(Finding::refused(place, message));
    } else if !in_keys {
        let message = format!("`{name}` stands in the file itself, and so in every config dump: use `host_env_keys`");
        findings.push(Finding::warning(place, message));
    }
}

/// Where all clusters stand in the file, the control plane's must be among them.
fn check_cluster(file: &Value, config: &Config, place: &str, findings: &mut Vec<Finding>) {
    let is_dynamic = part(file, &["dynamic_resources"]).get("cds_config").is_some()
        || part(file, &["dynamic_resources"]).get("ads_config").is_some();
    let Some(clusters) = part(file, &["static_resources", "clusters"]).as_array().filter(|_| !is_dynamic) else {
        return;
    };
    let name = &config.control_plane.cluster;
    if !clusters.iter().any(|cluster| word(cluster, "name") == name) {
        findings.push(Finding::refused(
            place,
            format!("`control_plane.cluster`: no cluster `{name}` is under static_resources.clusters"),
        ));
    }
}

/// A filter that requires our verdict.
fn is_guard(config: &Value) -> bool {
    is_a(config, RBAC) && config.to_string().contains("wasm.latchkey_verdict")
}

/// Where a file has our filter without the chain that it goes into, as a patch does, the guard is somewhere in it, or
/// somewhere else.
fn check_guard_elsewhere(file: &Value, found: &[Filter<'_>], findings: &mut Vec<Finding>) {
    let mut has_guard = false;
    walk(file, "", &mut |_, value| has_guard |= is_guard(value));
    for filter in found.iter().filter(|filter| !has_guard && !filter.place.contains("http_filters[")) {
        let message = "no guard is in this file: see that the RBAC filter of envoy/demo.yaml is behind this one";
        findings.push(Finding::warning(&filter.place, message));
    }
}

/// What stands around our filter: the guard behind it, and paths that can be read in one way only.
fn check_connection_manager(place: &str, manager: &Value, findings: &mut Vec<Finding>) {
    let Some(chain) = part(manager, &["http_filters"]).as_array() else { return };
    let Some(own) = chain.iter().position(|filter| !filters(filter).is_empty()) else { return };
    let here = format!("{place}.http_filters[{own}]");
    if chain.get(own).is_some_and(|filter| is(filter, "disabled")) {
        findings.push(Finding::refused(&here, "is disabled: routes that need no key have the rule `public` instead"));
    }
    let behind = chain.get(own..).unwrap_or_default();
    let guard = behind.iter().find(|filter| is_guard(part(filter, &["typed_config"])));
    match guard {
        None => findings.push(Finding::refused(&here, "no guard is behind it: Envoy skips a wasm filter that failed to start, and then nothing is decided; see envoy/demo.yaml for the RBAC filter")),
        Some(guard) if !guard.to_string().contains("wasm.latchkey_rule") => {
            findings.push(Finding::warning(&here, "the guard behind it doesn't compare `wasm.latchkey_rule`: a route that matches on the key's header could lend its rule to another"));
        }
        Some(_) => {}
    }
    let is_true = |name: &str| manager[name] == Value::Bool(true);
    for (name, why) in [
        ("use_remote_address", "is not true: a client can name any address, and be on any allowlist"),
        ("normalize_path", "is not true: `/v1/reviews/../x` falls under the rule of `/v1/reviews`"),
        ("merge_slashes", "is not true: `//` can lead past a route"),
    ] {
        if !is_true(name) {
            findings.push(Finding::warning(format!("{place}.{name}"), why));
        }
    }
    if !matches!(
        part(manager, &["path_with_escaped_slashes_action"]).as_str(),
        Some("REJECT_REQUEST" | "UNESCAPE_AND_REDIRECT" | "UNESCAPE_AND_FORWARD")
    ) {
        let message = "is not set: `%2F` can lead past a route; REJECT_REQUEST refuses it";
        findings.push(Finding::warning(format!("{place}.path_with_escaped_slashes_action"), message));
    }
    if !part(manager, &["early_header_mutation_extensions"]).to_string().contains("x-latchkey-") {
        let message = "don't remove `x-latchkey-` headers: a route could be chosen by those that a client sends";
        findings.push(Finding::warning(format!("{place}.early_header_mutation_extensions"), message));
    }
}

/// A route, or a host, that switches our filter off.
fn check_overrides(place: &str, value: &Value, findings: &mut Vec<Finding>) {
    let Some(overrides) = part(value, &["typed_per_filter_config"]).as_object() else { return };
    for (name, own) in overrides {
        if name.contains("latchkey") && is(own, "disabled") {
            let message = "is disabled here, and the guard denies what was not decided: a route without keys has the rule `public`";
            findings.push(Finding::refused(format!("{place}.typed_per_filter_config.{name}"), message));
        }
    }
}
