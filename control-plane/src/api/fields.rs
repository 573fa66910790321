//! Fields taken one by one, so that one answer reports all errors of a request, each with its field's name.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use policy::{Digest, key_text};
use serde_json::{Map, Value};

use super::canonical;
use crate::problem::{FieldError, Problem};

/// The fields of a body or of a query. Fields that are left at the end are unknown, and refused.
pub(crate) struct Fields {
    given: Map<String, Value>,
    errors: Vec<FieldError>,
}

/// The length of a secret's random part and checksum together.
const SHORTEST_SECRET: usize = key_text::RANDOM_SYMBOLS + key_text::CHECKSUM_SYMBOLS;

/// Why a value is refused. The field's name is the message's subject: `` `name` must be … ``.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Fields {
    pub(crate) fn new(given: Map<String, Value>) -> Self {
        Self { given, errors: Vec::new() }
    }

    /// The digest of the fields that aren't taken yet. Equal for equal JSON, however it is written.
    pub(crate) fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        canonical::write_object(&self.given, &mut bytes);
        Digest::of(&bytes)
    }

    /// The value of a required field; `None` if it was refused.
    pub(crate) fn required<T>(&mut self, name: &str, parse: impl FnOnce(Value) -> Result<T, Refused>) -> Option<T> {
        if self.given.contains_key(name) {
            return self.optional(name, parse);
        }
        self.refuse(name, Refused::new("required", "is required"));
        None
    }

    /// The value of an optional field; `None` if it is absent or was refused.
    pub(crate) fn optional<T>(&mut self, name: &str, parse: impl FnOnce(Value) -> Result<T, Refused>) -> Option<T> {
        match parse(self.given.remove(name)?) {
            Ok(value) => Some(value),
            Err(refused) => {
                self.refuse(name, refused);
                None
            }
        }
    }

    /// A field that was given and isn't taken yet.
    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.given.get(name)
    }

    /// True if the field was given and isn't taken yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// True once something was refused.
    pub(crate) fn has_refused(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Takes a field that isn't allowed here, and refuses it.
    pub(crate) fn never(&mut self, name: &str, refused: Refused) {
        if self.given.remove(name).is_some() {
            self.refuse(name, refused);
        }
    }

    pub(crate) fn refuse(&mut self, name: &str, refused: Refused) {
        let Refused { code, message } = refused;
        self.errors.push(FieldError { field: name.to_owned(), code, message });
    }

    /// The result of `made`, if nothing was refused and no field is left. `made` returns `None` only if it lacks a
    /// value that was refused.
    pub(crate) fn finish<T>(self, made: impl FnOnce() -> Option<T>) -> Result<T, Problem> {
        match self.errors() {
            errors if errors.is_empty() => made().ok_or_else(Problem::fault),
            errors => Err(Problem::invalid(errors)),
        }
    }

    /// All refused fields, including those that are left.
    pub(crate) fn errors(mut self) -> Vec<FieldError> {
        for (name, _) in std::mem::take(&mut self.given) {
            self.refuse(&shown(&name), Refused::new("unknown-field", "is not a field that is known here"));
        }
        self.errors
    }
}

/// A given text, for a message: shortened, or replaced if it may be a secret in the wrong place. No answer repeats a
/// secret.
pub(crate) fn shown(given: &str) -> String {
    let may_be_a_secret = given.len() >= SHORTEST_SECRET && given.contains("lk");
    if may_be_a_secret { "(what may be a secret)".to_owned() } else { given.chars().take(100).collect() }
}

/// The parameters of a query.
pub(crate) struct QueryFields(pub(crate) Fields);

impl<S: Sync> FromRequestParts<S> for QueryFields {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) else {
            return Err(Problem::bad_query("write it as `name=value&name=value`"));
        };
        let mut given = Map::new();
        for (name, value) in pairs {
            if given.insert(name, Value::String(value)).is_some() {
                return Err(Problem::bad_query("a parameter stands there twice; name each once"));
            }
        }
        Ok(Self(Fields::new(given)))
    }
}
