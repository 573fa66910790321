//! Our filters in an Envoy file, wherever it has them.

use crate::cli::json::part;
use serde_json::Value;

const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";

/// One of our filters.
pub struct Filter<'a> {
    /// Where its `config` stands.
    pub place: String,
    /// The `PluginConfig`.
    pub config: &'a Value,
    /// The plugin configuration in it.
    pub plugin: Option<Vec<u8>>,
}

/// All of our filters in the file.
pub fn filters(file: &Value) -> Vec<Filter<'_>> {
    let mut found = Vec::new();
    walk(file, "", &mut |place, value| found.extend(ours(place, value)));
    found
}

/// Calls `visit` with each value and the path of fields that leads there.
pub fn walk<'a>(value: &'a Value, place: &str, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(place, value);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let below = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
                walk(value, &below, visit);
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                walk(value, &format!("{place}[{at}]"), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// True for a message of this type, by its own name or in a `TypedStruct`.
pub fn is_a(value: &Value, kind: &str) -> bool {
    ["@type", "type_url"].iter().any(|name| value[*name].as_str().is_some_and(|own| own.ends_with(kind)))
}

/// The filter that this value configures, if it is one of ours.
fn ours<'a>(place: &str, value: &'a Value) -> Option<Filter<'a>> {
    if !is_a(value, WASM) {
        return None;
    }
    let (config, below) = match (value.get("config"), part(value, &["value"]).get("config")) {
        (Some(config), _) => (config, "config"),
        (None, Some(config)) => (config, "value.config"),
        (None, None) => return None,
    };
    let plugin = plugin(part(config, &["configuration"]));
    let is_named = [part(config, &["name"]), part(config, &["root_id"]), part(config, &["vm_config", "vm_id"])]
        .iter()
        .any(|name| name.as_str().is_some_and(|name| name.contains("latchkey")));
    let is_ours = is_named
        || part(config, &["vm_config", "code"]).to_string().contains("latchkey_filter")
        || plugin.as_ref().is_some_and(|plugin| {
            serde_json::from_slice::<Value>(plugin).is_ok_and(|p| p.get("control_plane").is_some())
        });
    is_ours.then(|| Filter { place: format!("{place}.{below}"), config, plugin })
}

/// The bytes that the filter is handed: a `StringValue`'s text, or a `Struct` as JSON.
fn plugin(configuration: &Value) -> Option<Vec<u8>> {
    match part(configuration, &["value"]) {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(fields) => serde_json::to_vec(fields).ok(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}
