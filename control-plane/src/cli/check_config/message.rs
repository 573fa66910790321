//! Envoy's messages in a file, each with its type and its place.

use serde_json::Value;

use crate::cli::json::part;

/// A `google.protobuf.Any`, or one within a `TypedStruct`.
#[derive(Clone)]
pub(super) struct Message<'a> {
    /// The place of its fields.
    pub place: String,
    /// The full name of its type, without the part before the slash.
    pub kind: &'a str,
    pub fields: &'a Value,
}

impl<'a> Message<'a> {
    pub(super) fn read(place: &str, value: &'a Value) -> Option<Self> {
        let named = |name: &str| {
            let url = value.get(name).and_then(Value::as_str)?;
            Some(url.rsplit_once('/').map_or(url, |(_, kind)| kind))
        };
        match (named("@type"), named("type_url")) {
            (Some(kind), None) => Some(Self { place: place.to_owned(), kind, fields: value }),
            // A `TypedStruct`, with or without its own type.
            (_, Some(kind)) => Some(Self { place: format!("{place}.value"), kind, fields: part(value, &["value"]) }),
            (None, None) => None,
        }
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// True if it contains this text anywhere.
    pub(super) fn contains_text(&self, text: &str) -> bool {
        self.fields.to_string().contains(text)
    }
}

/// Calls `visit` with each value and the path of fields that leads there.
pub(super) fn walk<'a>(value: &'a Value, place: &str, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(place, value);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                walk(value, &below(place, name), visit);
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

/// The place of a field.
pub(super) fn below(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

/// All messages of a file.
pub(super) fn messages<'a>(file: &'a Value) -> Vec<Message<'a>> {
    let mut found = Vec::new();
    walk(file, "", &mut |place, value| found.extend(Message::read(place, value)));
    found
}

/// All values of fields with this name in the file, each with its place.
pub(super) fn fields<'a>(file: &'a Value, name: &str) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    walk(file, "", &mut |place, value| {
        if let Some(field) = value.get(name) {
            found.push((below(place, name), field));
        }
    });
    found
}
