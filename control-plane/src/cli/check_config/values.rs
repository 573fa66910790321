//! Values in the forms that protobuf and Envoy's YAML accept beyond JSON's `true` and `1`.

use serde_json::Value;

use crate::cli::json::part;

/// True unless the field is certainly false: Envoy's YAML also takes `yes` and `on` for true. For fields that are
/// unsafe if true.
pub(super) fn may_be_true(value: &Value, name: &str) -> bool {
    match part(value, &[name]) {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !["false", "no", "off", "n"].contains(&text.to_ascii_lowercase().as_str()),
        Value::Bool(true) | Value::Number(_) | Value::Array(_) | Value::Object(_) => true,
    }
}

/// A number, which may be written as a string or a fraction; 0 if it is missing, `None` if it isn't a number.
pub(super) fn count(value: &Value, name: &str) -> Option<u64> {
    match part(value, &[name]) {
        Value::Null => Some(0),
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.parse().ok().or_else(|| whole(text.parse().ok()?)),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn whole(number: f64) -> Option<u64> {
    let text = format!("{number:.0}");
    (number.fract() == 0.0 && number >= 0.0).then(|| text.parse().ok()).flatten()
}

/// True if an enum's field has one of these values, by name or number.
pub(super) fn is_enum_value(value: &Value, name: &str, values: &[(&str, u64)]) -> bool {
    let own = part(value, &[name]);
    values.iter().any(|(word, number)| own.as_str() == Some(word) || own.as_u64() == Some(*number))
}

/// True for a duration that is missing or 0.
pub(super) fn is_zero(duration: &Value) -> bool {
    let text = duration.as_str().unwrap_or("0s");
    text.trim_end_matches('s').parse::<f64>().map_or(true, |seconds| seconds <= 0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{count, is_zero, may_be_true};

    #[test]
    fn each_way_to_write_a_value_is_known() {
        for (written, expected) in [
            (json!(null), false),
            (json!(false), false),
            (json!("no"), false),
            (json!(true), true),
            (json!("yes"), true),
            (json!("On"), true),
            (json!(1), true),
        ] {
            assert_eq!(may_be_true(&json!({"field": written}), "field"), expected, "{written}");
        }
        for (written, expected) in [
            (json!(null), Some(0)),
            (json!(2), Some(2)),
            (json!("2"), Some(2)),
            (json!(2.0), Some(2)),
            (json!("2.0"), Some(2)),
            (json!(2.5), None),
            (json!("x"), None),
        ] {
            assert_eq!(count(&json!({"field": written}), "field"), expected, "{written}");
        }
        for (written, expected) in [
            (json!(null), true),
            (json!("0s"), true),
            (json!("0.000s"), true),
            (json!("0.5s"), false),
            (json!("3600s"), false),
        ] {
            assert_eq!(is_zero(&written), expected, "{written}");
        }
    }
}
