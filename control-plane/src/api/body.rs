//! JSON bodies: media type, size, and no duplicate fields.

use std::fmt;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Method, header};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::operations::fields::{FieldError, Fields};
use crate::web::problem::Problem;

/// The maximum size of a body.
const MAX_BODY_BYTES: usize = 256 << 10;

/// The fields of a body that is a JSON object; an empty body is `{}`.
impl<S: Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body, &parts.headers).await?;
        if bytes.is_empty() {
            return Ok(Self::new(Map::new()));
        }
        let (accepted, is_patch) = match parts.method {
            Method::PATCH => ("application/merge-patch+json", true),
            _ => ("application/json", false),
        };
        if !is_json(&parts.headers, is_patch) {
            return Err(Problem::not_json_type(accepted));
        }
        object(&bytes).map_err(|error| match error {
            NotAnObject::NotJson(detail) => Problem::not_json(detail),
            NotAnObject::Other(error) => Problem::invalid(vec![error]),
        })
    }
}

/// Why a body isn't a JSON object.
pub(super) enum NotAnObject {
    /// The message names a position, and repeats no content.
    NotJson(String),
    /// JSON of another type.
    Other(FieldError),
}

/// The fields of a JSON object.
pub(super) fn object(bytes: &[u8]) -> Result<Fields, NotAnObject> {
    let StrictJson(value) = serde_json::from_slice(bytes).map_err(|error| NotAnObject::NotJson(error.to_string()))?;
    match value {
        Value::Object(object) => Ok(Fields::new(object)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let message = "must be a JSON object, in curly braces";
            Err(NotAnObject::Other(FieldError::new("", "wrong-type", message)))
        }
    }
}

async fn read(body: Body, headers: &HeaderMap) -> Result<axum::body::Bytes, Problem> {
    let too_large = || Problem::too_large(MAX_BODY_BYTES);
    if declared_length(headers).is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    // The other cause is a client that disconnected, which receives no response anyway.
    to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| too_large())
}

/// The length of the body, as the client declares it.
pub(super) fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &HeaderMap, is_patch: bool) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || is_patch && essence.eq_ignore_ascii_case("application/merge-patch+json")
}

/// JSON without duplicate fields in an object: parsers disagree on which one counts.
struct StrictJson(Value);

impl<'de> Deserialize<'de> for StrictJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(StrictJson(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let StrictJson(value) = fields.next_value()?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a field is given twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_field_is_refused_at_any_depth() {
        for (text, fits) in [
            (r#"{"a":1,"b":[null,true,-1,1.5,"x",{"a":{}}]}"#, true),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"a":{"b":1,"b":2}}"#, false),
            (r#"[{"b":1,"b":2}]"#, false),
            (r#"{"a":1"#, false),
            (r#"{"a":1} x"#, false),
        ] {
            let strict = serde_json::from_str::<StrictJson>(text);
            assert_eq!(strict.is_ok(), fits, "{text}");
            if let Ok(StrictJson(value)) = strict {
                assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
            }
        }
    }
}
