//! Field names: protobuf accepts `use_remote_address` and `useRemoteAddress`, the checks only the first.

use anyhow::bail;
use serde_json::{Map, Value};

use crate::cli::json::part;

/// Fields whose own fields are names that an operator chose, not fields of a message.
const MAPS: [&str; 7] = [
    "typed_per_filter_config",
    "policies",
    "allowed_capabilities",
    "key_values",
    "typed_extension_protocol_options",
    "match_labels",
    "exact_match_map",
];

/// Fields whose whole value belongs to the operator.
const OPAQUE: [&str; 3] = ["filter_metadata", "json_format", "plugin_config"];

/// The file with one name for each of Envoy's fields. A field that is given under both is refused, because Envoy takes
/// only one of them.
pub(super) fn with_canonical_names(file: Value) -> anyhow::Result<Value> {
    match file {
        Value::Array(documents) => documents.into_iter().map(with_canonical_names).collect(),
        document if part(&document, &["kind"]).is_string() && !part(&document, &["spec"]).is_null() => {
            manifest(document)
        }
        document => message(document, NameKind::Fields),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NameKind {
    /// Fields of a message.
    Fields,
    /// Names that an operator chose.
    Chosen,
}

/// In a manifest, only the parts that go into Envoy have Envoy's fields.
fn manifest(value: Value) -> anyhow::Result<Value> {
    Ok(match value {
        Value::Object(fields) => {
            let mut renamed = Map::new();
            for (name, value) in fields {
                let value = if name == "value" { message(value, NameKind::Fields)? } else { manifest(value)? };
                renamed.insert(name, value);
            }
            Value::Object(renamed)
        }
        Value::Array(items) => items.into_iter().map(manifest).collect::<anyhow::Result<_>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    })
}

fn message(value: Value, kind: NameKind) -> anyhow::Result<Value> {
    Ok(match value {
        Value::Object(fields) => {
            let mut renamed = Map::new();
            for (written, value) in fields {
                let name = if kind == NameKind::Fields { snake(&written) } else { written.clone() };
                let value = if OPAQUE.contains(&name.as_str()) {
                    value
                } else {
                    let chosen = kind == NameKind::Fields && MAPS.contains(&name.as_str());
                    message(value, if chosen { NameKind::Chosen } else { NameKind::Fields })?
                };
                if renamed.insert(name.clone(), value).is_some() {
                    bail!("the field `{name}` is given twice, once as `{written}`: remove one of them");
                }
            }
            Value::Object(renamed)
        }
        Value::Array(items) => items.into_iter().map(|item| message(item, kind)).collect::<anyhow::Result<_>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    })
}

/// `useRemoteAddress` becomes `use_remote_address`; anything that isn't a field name stays as it is.
fn snake(name: &str) -> String {
    let is_camel = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().any(|byte| byte.is_ascii_uppercase());
    if !is_camel {
        return name.to_owned();
    }
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::with_canonical_names;

    #[test]
    fn fields_have_one_name_and_an_operator_s_names_stay() {
        let file = json!({"typedConfig": {"@type": "a.B", "useRemoteAddress": true, "http2ProtocolOptions": {}},
            "typedPerFilterConfig": {"myGuard": {"isOptional": true}}, "filterMetadata": {"myOwn": {"aB": 1}}});
        let expected = json!({"typed_config": {"@type": "a.B", "use_remote_address": true, "http2_protocol_options": {}},
            "typed_per_filter_config": {"myGuard": {"is_optional": true}}, "filter_metadata": {"myOwn": {"aB": 1}}});
        assert_eq!(with_canonical_names(file).unwrap(), expected);
    }

    #[test]
    fn a_manifest_keeps_its_own_names() {
        let file =
            json!([{"kind": "EnvoyFilter", "spec": {"configPatches": [{"patch": {"value": {"typedConfig": {}}}}]}}]);
        let expected =
            json!([{"kind": "EnvoyFilter", "spec": {"configPatches": [{"patch": {"value": {"typed_config": {}}}}]}}]);
        assert_eq!(with_canonical_names(file).unwrap(), expected);
    }

    #[test]
    fn a_field_under_both_of_its_names_is_refused() {
        let error = with_canonical_names(json!({"use_remote_address": true, "useRemoteAddress": false})).unwrap_err();
        assert!(error.to_string().contains("`use_remote_address` is given twice"), "{error}");
    }
}
