//! Canonical JSON: equal values have equal bytes, whatever the order of members, spaces, escapes or number formats.

use serde_json::{Map, Number, Value};

/// Not every JSON parser can distinguish integers beyond this (RFC 8259, section 6).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Appends an object to `out`.
pub(super) fn write_object(object: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut members: Vec<_> = object.iter().collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    out.push(b'{');
    for (at, (name, value)) in members.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_text(name, out);
        out.push(b':');
        write(value, out);
    }
    out.push(b'}');
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Number(number) => out.extend_from_slice(number_text(number).as_bytes()),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(object) => write_object(object, out),
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}

/// `1.0` and `1e0` are `1`.
fn number_text(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(value) if value.fract() == 0.0 && value.abs() < EXACT => format!("{value:.0}").replace("-0", "0"),
        Some(_) | None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        let object: Map<String, Value> = serde_json::from_str(text).unwrap();
        let mut out = Vec::new();
        write_object(&object, &mut out);
        String::from_utf8(out).unwrap()
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
