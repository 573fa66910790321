//! The filter that finds unneeded keys, in a query and in a body.

use policy::UnixSeconds;
use serde_json::Value;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};

use crate::operations::choice::Choice as _;
use crate::operations::fields::{Fields, InvalidValue};
use crate::operations::request::{BodyField, NamedSchemas, string_schema};
use crate::operations::values;
use crate::store::{KeyFilter, Status};

const DAY: i64 = 86_400;

/// A hundred years.
const MAX_DAYS: i64 = 36_500;

/// The maximum length of a pattern, in characters.
const MAX_PATTERN: usize = 100;

/// Parses the fields of a filter. A refused field counts as absent here; `Fields::finish` reports it.
pub(crate) fn read(fields: &mut Fields, now: UnixSeconds) -> KeyFilter {
    let ago = |days: i64| now.saturating_add_secs(days.saturating_mul(-DAY));
    KeyFilter {
        status: fields.optional("status", Status::from_value),
        unused_since: fields.optional("unused_days", days).map(ago),
        unrotated_since: fields.optional("unrotated_days", days).map(ago),
        expiring_by: fields.optional("expiring_days", days).map(|days| ago(days.saturating_neg())),
        name: fields.optional("name", pattern),
    }
}

/// Adds the fields to the schema of a body.
pub(crate) fn describe(body: ObjectBuilder) -> ObjectBuilder {
    let format = Some(SchemaFormat::KnownFormat(KnownFormat::Int32));
    let days = ObjectBuilder::new().schema_type(Type::Integer).format(format).minimum(Some(1)).maximum(Some(MAX_DAYS));
    let days = Schema::Object(days.build());
    let pattern = string_schema().min_length(Some(1)).max_length(Some(MAX_PATTERN)).build();
    <Option<Status> as BodyField>::describe("status", None, body)
        .property("unused_days", days.clone())
        .property("unrotated_days", days.clone())
        .property("expiring_days", days)
        .property("name", Schema::Object(pattern))
}

/// As [`BodyField::schemas`].
pub(crate) fn schemas(schemas: &mut NamedSchemas) {
    <Status as BodyField>::schemas(schemas);
}

/// A number of days, which is text in a query.
fn days(value: Value) -> Result<i64, InvalidValue> {
    let number = match &value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let message = || InvalidValue::new("out-of-range", format!("must be a number of days from 1 to {MAX_DAYS}"));
    number.filter(|days| (1..=MAX_DAYS).contains(days)).ok_or_else(message)
}

fn pattern(value: Value) -> Result<String, InvalidValue> {
    let text = values::string(value)?;
    if text.is_empty() {
        return Err(InvalidValue::new("empty", "must have at least one character; `*` stands for any text"));
    }
    if text.chars().count() > MAX_PATTERN {
        return Err(InvalidValue::new("too-long", format!("must have at most {MAX_PATTERN} characters")));
    }
    Ok(text)
}
