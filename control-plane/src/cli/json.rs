//! Access to JSON by field: a missing field is null.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The value at the end of these fields.
pub(super) fn part<'a>(value: &'a Value, fields: &[&str]) -> &'a Value {
    fields.iter().fold(value, |value, name| value.get(*name).unwrap_or(&NULL))
}

/// The items of a list; empty if it isn't a list.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The items of the list in a field; empty if there is no list.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    items(part(value, &[name]))
}

/// A string; empty if there is none.
pub(super) fn string<'a>(value: &'a Value, name: &str) -> &'a str {
    part(value, &[name]).as_str().unwrap_or_default()
}

/// A number; 0 if there is none.
pub(super) fn number(value: &Value, name: &str) -> u64 {
    part(value, &[name]).as_u64().unwrap_or_default()
}

/// True only for a `true`.
pub(super) fn is_true(value: &Value, name: &str) -> bool {
    part(value, &[name]) == &Value::Bool(true)
}

/// The value of an option, if it was given.
pub(super) fn given<T: Clone + Into<Value>>(option: &Option<T>) -> Option<Value> {
    option.clone().map(Into::into)
}

/// An object of the fields that have a value.
pub(super) fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    given.collect::<Map<_, _>>().into()
}
