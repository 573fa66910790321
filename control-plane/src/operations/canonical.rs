//! Canonical JSON: equal values have equal bytes, whatever the order of members, spaces, escapes or number formats.

use serde_json::{Map, Number, Value};

/// Not every JSON parser can distinguish integers beyond this (RFC 8259, section 6).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The text of an object. Sorts explicitly, because a crate in the tree may let serde_json keep the order of members.
pub(super) fn object_text(object: &Map<String, Value>) -> String {
    let mut value = Value::Object(object.clone());
    value.sort_all_objects();
    normalize_numbers(&mut value);
    value.to_string()
}

/// `1.0` and `1e0` are `1`.
fn normalize_numbers(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => {}
        Value::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64());
            if let Some(whole) = float.filter(|float| float.fract() == 0.0 && float.abs() < EXACT) {
                *number = Number::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize_numbers),
        Value::Object(object) => object.values_mut().for_each(normalize_numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        let object: Map<String, Value> = serde_json::from_str(text).unwrap();
        object_text(&object)
    }

    #[test]
    fn equal_values_have_equal_bytes_and_others_have_not() {
        let same = r#"{"a":[1,-2,1.5,null,true,{"x":"ü\n","y":{}}],"b":""}"#;
        for text in
            [same, r#" { "b" : "" , "a" : [ 1.0 , -2e0, 15e-1, null, true, { "y": {}, "x": "\u00fc\u000a" } ] } "#]
        {
            assert_eq!(canonical(text), same, "{text}");
        }
        assert_eq!(canonical(r#"{"a":-0.0,"b":0}"#), r#"{"a":0,"b":0}"#);
        assert_eq!(canonical(r#"{"a":-0.5,"b":-10.0}"#), r#"{"a":-0.5,"b":-10}"#);
        for (one, other) in [
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"{"a":null}"#, r"{}"),
            (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#),
            (r#"{"a":"b,c"}"#, r#"{"a":"b","c":""}"#),
        ] {
            assert_ne!(canonical(one), canonical(other));
        }
    }
}
