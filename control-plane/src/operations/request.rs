//! Bodies of requests: one declaration is what is parsed, limited and documented.

use policy::{UnixSeconds, WorkspaceId};
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::OperationError;
use super::choice::Choice;
use super::fields::{Fields, InvalidValue};
use super::principal::Principal;
use crate::base::config::Config;
use crate::store::Workspace;

/// Schemas that a document has by name.
pub(crate) type NamedSchemas = Vec<(String, RefOr<Schema>)>;

/// What values are checked against.
#[derive(Clone, Copy)]
pub(crate) struct RequestContext<'a> {
    pub(crate) config: &'a Config,
    pub(crate) now: UnixSeconds,
    /// Who acts.
    pub(crate) principal: &'a Principal,
    pub(crate) workspace: WorkspaceOfRequest<'a>,
}

/// The workspace that a request is about.
#[derive(Clone, Copy)]
pub(crate) enum WorkspaceOfRequest<'a> {
    /// The one of its path.
    Path(&'a Workspace),
    /// The one that its body names; `None` if it names none, or none within the principal's reach.
    Body(Option<WorkspaceId>),
}

/// A field of a body, or several fields that only make sense together.
pub(crate) trait BodyField: Sized {
    /// The field's value; `None` if it was refused, which `fields` reports.
    fn take(fields: &mut Fields, name: &str, context: &RequestContext<'_>) -> Option<Self>;

    /// Adds the field to the schema of its body.
    fn describe(name: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder;

    /// Adds the schemas that the field's own schema refers to.
    fn schemas(schemas: &mut NamedSchemas);
}

/// The type of a single field. A field of this type is required, one of `Option` is not.
pub(crate) trait BodyValue: Sized {
    fn parse(value: Value, context: &RequestContext<'_>) -> Result<Self, InvalidValue>;

    /// The schema, with its limits.
    fn schema() -> RefOr<Schema>;

    /// As [`BodyField::schemas`].
    fn schemas(_: &mut NamedSchemas) {}
}

/// A value that may be `null`.
pub(crate) struct OrNull<T>(pub(crate) Option<T>);

/// The body of a request. [`request_body!`] implements it.
pub(crate) trait RequestBody: Sized {
    /// Takes the fields of this body; `None` if one was refused, which `fields` reports.
    fn take(fields: &mut Fields, context: &RequestContext<'_>) -> Option<Self>;

    /// The body that these fields are, or all that is wrong with it.
    fn parse(mut fields: Fields, context: &RequestContext<'_>) -> Result<Self, OperationError> {
        let body = Self::take(&mut fields, context);
        fields.finish(|| body)
    }
}

/// Declares the body of a request. Each field's type parses it, limits it and describes it in the document; comments become descriptions. Fields that aren't declared are refused.
macro_rules! request_body {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $body:ident {
            $($(#[doc = $field_doc:literal])* $field_vis:vis $field:ident: $kind:ty),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        $vis struct $body {
            $($(#[doc = $field_doc])* $field_vis $field: $kind,)*
        }

        impl $crate::operations::request::RequestBody for $body {
            fn take(
                fields: &mut $crate::operations::fields::Fields,
                context: &$crate::operations::request::RequestContext<'_>,
            ) -> Option<Self> {
                // Unused in a body without fields.
                let _ = (&fields, context);
                // All fields are read before the first refused one ends this, so that all errors are reported.
                $(let $field = <$kind as $crate::operations::request::BodyField>::take(fields, stringify!($field), context);)*
                Some(Self { $($field: $field?),* })
            }
        }

        impl utoipa::PartialSchema for $body {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let body = $crate::operations::request::body_schema(&[$($doc),*]);
                $(let body = <$kind as $crate::operations::request::BodyField>::describe(
                    stringify!($field),
                    $crate::operations::request::description(&[$($field_doc),*]).as_deref(),
                    body,
                );)*
                utoipa::openapi::Schema::Object(body.build()).into()
            }
        }

        impl utoipa::ToSchema for $body {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($body).into()
            }

            fn schemas(schemas: &mut $crate::operations::request::NamedSchemas) {
                // Unused in a body without fields.
                let _ = &schemas;
                $(<$kind as $crate::operations::request::BodyField>::schemas(schemas);)*
            }
        }
    };
}
pub(crate) use request_body;

/// An object that refuses unknown fields.
pub(crate) fn body_schema(doc: &[&str]) -> ObjectBuilder {
    let refused = Some(AdditionalProperties::FreeForm(false));
    ObjectBuilder::new().schema_type(Type::Object).description(description(doc)).additional_properties(refused)
}

/// The text of doc comments, as utoipa's own macros take it.
pub(crate) fn description(lines: &[&str]) -> Option<String> {
    let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// A string with limits.
pub(crate) fn string_schema() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A reference to a schema that the document has by name.
pub(crate) fn reference<T: ToSchema>() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

/// The same schema with a description.
fn described(schema: RefOr<Schema>, description: Option<&str>) -> RefOr<Schema> {
    let Some(text) = description else { return schema };
    match schema {
        RefOr::Ref(mut reference) => {
            text.clone_into(&mut reference.description);
            RefOr::Ref(reference)
        }
        RefOr::T(Schema::Object(mut object)) => {
            object.description = Some(text.to_owned());
            Schema::Object(object).into()
        }
        RefOr::T(Schema::Array(mut array)) => {
            array.description = Some(text.to_owned());
            Schema::Array(array).into()
        }
        RefOr::T(other) => RefOr::T(other),
    }
}

impl<T: BodyValue> BodyField for T {
    fn take(fields: &mut Fields, name: &str, context: &RequestContext<'_>) -> Option<Self> {
        fields.required(name, |value| T::parse(value, context))
    }

    fn describe(name: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        body.property(name, described(T::schema(), description)).required(name)
    }

    fn schemas(schemas: &mut NamedSchemas) {
        <T as BodyValue>::schemas(schemas);
    }
}

impl<T: BodyValue> BodyField for Option<T> {
    fn take(fields: &mut Fields, name: &str, context: &RequestContext<'_>) -> Option<Self> {
        if fields.has(name) { fields.optional(name, |value| T::parse(value, context)).map(Some) } else { Some(None) }
    }

    fn describe(name: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        body.property(name, described(T::schema(), description))
    }

    fn schemas(schemas: &mut NamedSchemas) {
        <T as BodyValue>::schemas(schemas);
    }
}

impl<T: BodyValue> BodyValue for OrNull<T> {
    fn parse(value: Value, context: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        if value.is_null() { Ok(Self(None)) } else { T::parse(value, context).map(|value| Self(Some(value))) }
    }

    fn schema() -> RefOr<Schema> {
        match T::schema() {
            RefOr::T(Schema::Object(mut object)) => {
                object.schema_type = or_null(object.schema_type);
                Schema::Object(object).into()
            }
            RefOr::T(Schema::Array(mut array)) => {
                array.schema_type = or_null(array.schema_type);
                Schema::Array(array).into()
            }
            other => other,
        }
    }

    fn schemas(schemas: &mut NamedSchemas) {
        T::schemas(schemas);
    }
}

/// The type, or `null`.
pub(crate) fn or_null(kind: SchemaType) -> SchemaType {
    match kind {
        SchemaType::Type(kind) => SchemaType::Array(vec![kind, Type::Null]),
        other @ (SchemaType::Array(_) | SchemaType::AnyValue) => other,
    }
}

impl<T: Choice + ToSchema> BodyValue for T {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        T::from_value(value)
    }

    fn schema() -> RefOr<Schema> {
        reference::<T>()
    }

    fn schemas(schemas: &mut NamedSchemas) {
        schemas.push((T::name().into_owned(), <T as PartialSchema>::schema()));
    }
}

impl BodyValue for bool {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        super::values::boolean(value)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(ObjectBuilder::new().schema_type(Type::Boolean).build()).into()
    }
}

impl BodyValue for String {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        super::values::string(value)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(string_schema().build()).into()
    }
}

request_body! {
    /// A body without fields.
    pub(crate) struct Nothing {}
}

/// Calls `test` with a platform admin's context.
#[cfg(test)]
pub(crate) fn with_context<T>(now: UnixSeconds, test: impl FnOnce(&RequestContext<'_>) -> T) -> T {
    let (config, principal) = (Config::default(), Principal::token_file());
    test(&RequestContext { config: &config, now, principal: &principal, workspace: WorkspaceOfRequest::Body(None) })
}
