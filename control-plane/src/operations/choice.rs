//! Values that a request chooses by name, and a response shows by the same name.

use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::fields::InvalidValue;
use super::values;

/// A type with a fixed list of names: it is parsed, shown and documented by the one list of [`choice!`].
pub(crate) trait Choice: Copy + PartialEq + 'static {
    /// All values with their names, in the order of the document.
    const ALL: &'static [(Self, &'static str)];
    /// The code of a name that isn't in the list.
    const CODE: &'static str;
    /// What to do if none of them fits; empty if there is nothing else.
    const ELSE: &'static str;

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(own, _)| *own == self).map_or("", |(_, name)| name)
    }

    fn from_value(value: Value) -> Result<Self, InvalidValue> {
        let text = values::string(value)?;
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(own, _)| *own).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            InvalidValue::new(Self::CODE, format!("must be one of {}{}", names.join(", "), Self::ELSE))
        })
    }

    fn describe(description: &str) -> RefOr<Schema> {
        let names = Self::ALL.iter().map(|(_, name)| *name);
        let text = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        Schema::Object(text.description(Some(description)).build()).into()
    }
}

/// Gives a type the names of its values: for requests, responses and the OpenAPI document.
///
/// `choice!("what it is", Type as "its name in the document", "code-of-a-wrong-name", Self::Variant => "name", …)`.
///
/// A list that exists can be named in place of the values.
macro_rules! choice {
    ($description:literal, $choice:ty as $schema:literal, $code:literal $(or $else:literal)?, $($value:expr => $name:literal),+ $(,)?) => {
        $crate::operations::choice::choice!($description, $choice as $schema, $code $(or $else)?, [$(($value, $name)),+]);
    };
    ($description:literal, $choice:ty as $schema:literal, $code:literal $(or $else:literal)?, $names:expr $(,)?) => {
        impl $crate::operations::choice::Choice for $choice {
            const ALL: &'static [(Self, &'static str)] = &$names;
            const CODE: &'static str = $code;
            const ELSE: &'static str = concat!("" $(, "; ", $else)?);
        }

        impl serde::Serialize for $choice {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($crate::operations::choice::Choice::as_str(*self))
            }
        }

        impl utoipa::PartialSchema for $choice {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                <Self as $crate::operations::choice::Choice>::describe($description)
            }
        }

        impl utoipa::ToSchema for $choice {
            fn name() -> std::borrow::Cow<'static, str> {
                $schema.into()
            }
        }
    };
}
pub(crate) use choice;
