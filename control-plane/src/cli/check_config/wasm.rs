//! How Envoy runs our filter: its configuration, its capabilities, and who shares its memory.

use policy::Config;
use policy::config::FeedMode;
use serde_json::Value;

use super::capabilities::NEEDED;
use super::latchkey_filter::{LatchkeyFilter, Plugin};
use super::message::walk;
use super::rules::Catalogue;
use super::values::may_be_true;
use super::{Finding, check_plugin_config};
use crate::cli::json::{part, string};

/// Returns the plugin configuration, if the filter would accept it.
pub(super) fn check_filter(
    file: &Value,
    filter: &LatchkeyFilter<'_>,
    catalogue: Option<&Catalogue>,
    findings: &mut Vec<Finding>,
) -> Option<Config> {
    let LatchkeyFilter { place, config: wasm, plugin: json } = filter;
    let below = |field: &str| format!("{place}.{field}");
    let policy = part(wasm, &["failure_policy"]);
    match policy.as_str().or_else(|| policy.as_u64().map(numbered)) {
        _ if may_be_true(wasm, "fail_open") => findings.push(Finding::refused(
            below("fail_open"),
            "lets everything through when the filter breaks; remove it, and set failure_policy: FAIL_RELOAD",
        )),
        Some("FAIL_RELOAD") => {}
        Some("FAIL_OPEN") => findings.push(Finding::refused(
            below("failure_policy"),
            "FAIL_OPEN lets everything through when the filter breaks; FAIL_RELOAD is needed",
        )),
        _ => findings.push(Finding::warning(
            below("failure_policy"),
            "without FAIL_RELOAD a worker whose VM broke denies until Envoy is restarted",
        )),
    }
    check_capabilities(wasm, place, findings);
    let json = match json {
        Plugin::Bytes(json) => json,
        Plugin::Unreadable(why) => {
            findings.push(Finding::refused(below("configuration"), *why));
            return None;
        }
    };
    let config = check_plugin_config(&below("configuration.value"), json, catalogue, findings)?;
    let shares = part(wasm, &["vm_config", "vm_id"]).as_str().is_some_and(|id| !id.is_empty());
    if !shares && config.feed == FeedMode::Process {
        let message = "is empty, so any plugin could write what workers share: each worker polls the control plane by itself; set vm_id: latchkey";
        findings.push(Finding::warning(below("vm_config.vm_id"), message));
    }
    check_token(wasm, &config, &below("vm_config.environment_variables"), findings);
    check_cluster(file, &config, &below("configuration.value"), findings);
    check_memory(file, wasm, place, findings);
    Some(config)
}

/// The name of a failure policy's number.
fn numbered(number: u64) -> &'static str {
    match number {
        1 => "FAIL_RELOAD",
        3 => "FAIL_OPEN",
        _ => "FAIL_CLOSED",
    }
}

/// Any module with the same `vm_id` can read and write what our workers share: the keys.
fn check_memory(file: &Value, wasm: &Value, place: &str, findings: &mut Vec<Finding>) {
    let own = part(wasm, &["vm_config"]);
    let id = string(own, "vm_id");
    walk(file, "", &mut |other_place, value| {
        let other = part(value, &["vm_config"]);
        let shares = !id.is_empty() && other.is_object() && string(other, "vm_id") == id;
        if shares && other.get("code") != own.get("code") {
            let message = format!(
                "has the `vm_id` of the filter at {place} and other code, which can write the keys that workers share: give it a `vm_id` of its own"
            );
            findings.push(Finding::refused(format!("{other_place}.vm_config.vm_id"), message));
        }
    });
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
            let message = format!("the filter needs capabilities that this list lacks: {}", missing.join(", "));
            findings.push(Finding::refused(format!("{place}.{below}.allowed_capabilities"), message));
        }
    }
}

fn check_token(wasm: &Value, config: &Config, place: &str, findings: &mut Vec<Finding>) {
    let Some(name) = &config.control_plane.token_env else { return };
    let environment = part(wasm, &["vm_config", "environment_variables"]);
    let in_keys =
        part(environment, &["host_env_keys"]).as_array().is_some_and(|keys| keys.iter().any(|key| key == name));
    if !in_keys && part(environment, &["key_values"]).get(name).is_none() {
        let message =
            format!("`control_plane.token_env` is `{name}`, which the VM is not given: list it under `host_env_keys`");
        findings.push(Finding::refused(place, message));
    } else if !in_keys {
        let message = format!("`{name}` is in the file itself, and so in every config dump: use `host_env_keys`");
        findings.push(Finding::warning(place, message));
    }
}

/// If all clusters are in the file, the control plane's must be among them.
fn check_cluster(file: &Value, config: &Config, place: &str, findings: &mut Vec<Finding>) {
    let is_dynamic = part(file, &["dynamic_resources"]).get("cds_config").is_some()
        || part(file, &["dynamic_resources"]).get("ads_config").is_some();
    let Some(clusters) = part(file, &["static_resources", "clusters"]).as_array().filter(|_| !is_dynamic) else {
        return;
    };
    let name = &config.control_plane.cluster;
    if !clusters.iter().any(|cluster| string(cluster, "name") == name) {
        findings.push(Finding::refused(
            place,
            format!("`control_plane.cluster`: no cluster `{name}` is under static_resources.clusters"),
        ));
    }
}
