//! Resources of Istio and Envoy Gateway that become filters and settings, as in envoy/istio.yaml.

use serde_json::{Map, Value};

use super::message::walk;
use super::rules::Catalogue;
use super::values::may_be_true;
use super::{Finding, check_plugin_config};
use crate::cli::json::{list, part, string};
use policy::Config;
use policy::config::FeedMode;

/// A resource that a mesh turns into our filter.
struct Resource<'a> {
    place: String,
    /// The object that contains the plugin configuration.
    value: &'a Value,
    plugin: &'a Value,
    mesh: Mesh,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mesh {
    Istio,
    EnvoyGateway,
}

/// The resources of a mesh that contain our filter.
fn resources(file: &Value) -> Vec<Resource<'_>> {
    let mut found = Vec::new();
    walk(file, "", &mut |place, value| {
        let spec = part(value, &["spec"]);
        match string(value, "kind") {
            "WasmPlugin" => {
                let place = format!("{place}.spec").trim_start_matches('.').to_owned();
                found.push(Resource { place, value: spec, plugin: part(spec, &["pluginConfig"]), mesh: Mesh::Istio });
            }
            "EnvoyExtensionPolicy" => found.extend(list(spec, "wasm").iter().enumerate().map(|(at, wasm)| Resource {
                place: format!("{place}.spec.wasm[{at}]").trim_start_matches('.').to_owned(),
                value: wasm,
                plugin: part(wasm, &["config"]),
                mesh: Mesh::EnvoyGateway,
            })),
            _ => {}
        }
    });
    found.retain(|resource| part(resource.plugin, &["control_plane"]).is_object());
    found
}

/// True for a file with such a resource.
pub(super) fn has_ours(file: &Value) -> bool {
    !resources(file).is_empty()
}

/// Checks them, and returns their plugin configurations and places.
pub(super) fn check_resources(
    file: &Value,
    catalogue: Option<&Catalogue>,
    findings: &mut Vec<Finding>,
) -> Vec<(String, Config)> {
    let mut configs = Vec::new();
    for Resource { place, value, plugin: json, mesh } in resources(file) {
        let (field, below) = match mesh {
            Mesh::Istio => ("failStrategy", "pluginConfig"),
            Mesh::EnvoyGateway => ("failOpen", "config"),
        };
        let lets_pass = match mesh {
            Mesh::Istio => string(value, field) == "FAIL_OPEN",
            Mesh::EnvoyGateway => may_be_true(value, field),
        };
        if lets_pass {
            let message =
                "lets everything through when the filter breaks; Istio takes FAIL_RELOAD, Envoy Gateway `false`";
            findings.push(Finding::refused(format!("{place}.{field}"), message));
        } else if mesh == Mesh::Istio && string(value, field) != "FAIL_RELOAD" {
            let message = "without FAIL_RELOAD a worker whose VM broke denies until Envoy is restarted";
            findings.push(Finding::warning(format!("{place}.{field}"), message));
        }
        let below = format!("{place}.{below}");
        let Some(config) = check_plugin_config(&below, json.to_string().as_bytes(), catalogue, findings) else {
            continue;
        };
        if mesh == Mesh::Istio && config.feed == FeedMode::Process {
            let message = "Istio gives the VM no id, so any plugin could write what workers share: each worker polls by itself; write `feed: worker`";
            findings.push(Finding::warning(below, message));
        }
        configs.push((place, config));
    }
    configs
}

/// The plugin configuration of the one filter in such a file.
pub(super) fn plugins(file: &Value) -> Vec<Vec<u8>> {
    resources(file).iter().map(|resource| resource.plugin.to_string().into_bytes()).collect()
}

/// The fields that Envoy Gateway's patches set in the connection manager, and their place.
pub(super) fn patched_manager(file: &Value) -> Option<(String, Value)> {
    let mut manager = Map::new();
    let mut first = None;
    walk(file, "", &mut |place, value| {
        let is_manager = string(value, "jsonPath").contains("http_connection_manager");
        let field = string(value, "path").trim_start_matches('/');
        if is_manager && !field.is_empty() && !field.contains('/') && string(value, "op") != "remove" {
            first.get_or_insert_with(|| place.to_owned());
            manager.insert(field.to_owned(), part(value, &["value"]).clone());
        }
    });
    first.map(|place| (place, Value::Object(manager)))
}
