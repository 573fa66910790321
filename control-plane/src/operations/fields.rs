//! Request fields, parsed one by one, so that one error reports all invalid fields.

use policy::allowlist::AllowlistError;
use policy::{Digest, key_text};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{OperationError, canonical};

/// The fields of a body or a query that aren't parsed yet. Fields that remain at the end are unknown, and refused.
pub(crate) struct Fields {
    remaining: Map<String, Value>,
    errors: Vec<FieldError>,
}

/// The length of a secret's random part and checksum together.
const SHORTEST_SECRET: usize = key_text::RANDOM_SYMBOLS + key_text::CHECKSUM_SYMBOLS;

/// Why a value is refused. The field's name is the message's subject: `` `name` must be … ``.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidValue {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// What is wrong with an allowlist, for pages that word it in their own way.
    pub(crate) allowlist: Option<AllowlistError>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    pub field: String,
    pub code: &'static str,
    pub message: String,
    /// As in [`InvalidValue`].
    #[serde(skip)]
    pub allowlist: Option<AllowlistError>,
}

impl InvalidValue {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), allowlist: None }
    }
}

impl FieldError {
    pub fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, message: message.into(), allowlist: None }
    }

    /// A digest that is refused. Gives no reason, so that nobody learns whether the control plane stores it.
    pub fn refused_digest() -> Self {
        Self::new("digest", "refused", "is refused")
    }
}

impl Fields {
    pub(crate) fn new(fields: Map<String, Value>) -> Self {
        Self { remaining: fields, errors: Vec::new() }
    }

    /// The digest of the fields that aren't parsed yet. Equal JSON values have equal digests, whatever their format.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(canonical::object_text(&self.remaining).as_bytes())
    }

    /// The value of a required field; `None` if it was refused.
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        if self.remaining.contains_key(name) {
            return self.optional(name, parse);
        }
        self.refuse(name, InvalidValue::new("required", "is required"));
        None
    }

    /// The value of an optional field; `None` if it is absent or was refused.
    pub(crate) fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        match parse(self.remaining.remove(name)?) {
            Ok(value) => Some(value),
            Err(refused) => {
                self.refuse(name, refused);
                None
            }
        }
    }

    /// A field that was sent and isn't parsed yet.
    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.remaining.get(name)
    }

    /// True if the field was sent and isn't parsed yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.remaining.contains_key(name)
    }

    /// True if a field was refused.
    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Refuses a field that isn't allowed here, if it was sent.
    pub(crate) fn forbid(&mut self, name: &str, refused: InvalidValue) {
        if self.remaining.remove(name).is_some() {
            self.refuse(name, refused);
        }
    }

    pub(crate) fn refuse(&mut self, name: &str, refused: InvalidValue) {
        let InvalidValue { code, message, allowlist } = refused;
        self.errors.push(FieldError { field: name.to_owned(), code, message, allowlist });
    }

    /// The result of `build`, if no field was refused and none remains. `build` returns `None` only if it lacks a value
    /// that was refused.
    pub(crate) fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, OperationError> {
        match self.errors() {
            errors if errors.is_empty() => build().ok_or(OperationError::Incomplete),
            errors => Err(OperationError::Invalid(errors)),
        }
    }

    /// All refused fields, including those that remain.
    pub(crate) fn errors(mut self) -> Vec<FieldError> {
        for (name, _) in std::mem::take(&mut self.remaining) {
            self.refuse(&redacted(&name), InvalidValue::new("unknown-field", "is not a known field"));
        }
        self.errors
    }
}

/// A client's text for a message: shortened, or replaced if it may be a secret in the wrong place. No response repeats
/// a secret.
pub(crate) fn redacted(text: &str) -> String {
    let may_be_a_secret = text.len() >= SHORTEST_SECRET && text.contains("lk");
    if may_be_a_secret { "(possibly a secret)".to_owned() } else { text.chars().take(100).collect() }
}
