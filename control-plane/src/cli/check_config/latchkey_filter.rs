//! Finds our filters anywhere in an Envoy file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::message::{Message, messages};
use crate::cli::json::{part, string};

const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";

/// One of our filters.
pub(super) struct LatchkeyFilter<'a> {
    /// The place of its `config`.
    pub place: String,
    /// The `PluginConfig`.
    pub config: &'a Value,
    /// The plugin configuration in it.
    pub plugin: Plugin,
}

/// The configuration that Envoy passes to the filter.
pub(super) enum Plugin {
    Bytes(Vec<u8>),
    /// A configuration that Envoy doesn't pass on, with the reason.
    Unreadable(&'static str),
}

impl Plugin {
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Unreadable(_) => None,
        }
    }
}

/// All of our filters in the file.
pub(super) fn latchkey_filters(file: &Value) -> Vec<LatchkeyFilter<'_>> {
    messages(file).iter().filter_map(as_latchkey_filter).collect()
}

/// The filter that this message configures, if it is one of ours.
pub(super) fn as_latchkey_filter<'a>(message: &Message<'a>) -> Option<LatchkeyFilter<'a>> {
    let config = message.fields.get("config").filter(|_| message.is(WASM))?;
    let configuration = part(config, &["configuration"]);
    let is_named = [part(config, &["name"]), part(config, &["root_id"]), part(config, &["vm_config", "vm_id"])]
        .iter()
        .any(|name| name.as_str().is_some_and(|name| name.contains("latchkey")));
    let plugin = plugin(configuration);
    let is_ours = is_named
        || part(config, &["vm_config", "code"]).to_string().contains("latchkey_filter")
        || part(configuration, &["value", "control_plane"]).is_object()
        || plugin.bytes().is_some_and(|plugin| {
            serde_json::from_slice::<Value>(plugin).is_ok_and(|p| p.get("control_plane").is_some())
        });
    is_ours.then(|| LatchkeyFilter { place: format!("{}.config", message.place), config, plugin })
}

/// The type decides: Envoy passes on strings and bytes, and refuses to start with a `Struct`.
fn plugin(configuration: &Value) -> Plugin {
    let kind = string(configuration, "@type");
    let text = part(configuration, &["value"]).as_str();
    let is = |name: &str| kind.ends_with(name);
    match text {
        Some(text) if is("/google.protobuf.StringValue") => Plugin::Bytes(text.as_bytes().to_vec()),
        Some(text) if is("/google.protobuf.BytesValue") => STANDARD.decode(text).map_or(
            Plugin::Unreadable("`value` is not base64, as a google.protobuf.BytesValue is written"),
            Plugin::Bytes,
        ),
        _ if is("/google.protobuf.Struct") => Plugin::Unreadable(
            "is a google.protobuf.Struct, with which Envoy does not start: write the plugin configuration as the text of a google.protobuf.StringValue",
        ),
        _ => Plugin::Unreadable("a google.protobuf.StringValue with the plugin configuration is expected"),
    }
}
