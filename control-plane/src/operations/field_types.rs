//! The types of fields in bodies, each with its limits for the document.

use policy::allowlist::MAX_NETWORKS;
use policy::{Allowlist, Environment, Scopes};
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};

use super::fields::InvalidValue;
use super::request::{BodyValue, NamedSchemas, OrNull, RequestContext, or_null, string_schema};
use super::values::{MAX_NAME, allowlist, edge, environment, metadata, metadata_patch, name, scopes, slug};
use crate::store::Metadata;

/// A [`name`].
pub(crate) struct Name(pub(crate) String);

/// A [`slug`].
pub(crate) struct Slug(pub(crate) String);

/// The name of an [`edge`].
pub(crate) struct EdgeName(pub(crate) String);

/// A [`metadata_patch`].
pub(crate) struct MetadataPatch(pub(crate) Value);

/// The level of access in a scope.
pub(crate) struct ScopeLevel;

impl BodyValue for Name {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        name(value).map(Self)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(string_schema().min_length(Some(1)).max_length(Some(MAX_NAME)).build()).into()
    }
}

impl BodyValue for Slug {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        slug(value).map(Self)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(string_schema().pattern(Some("^[a-z][a-z0-9-]{1,38}$")).build()).into()
    }
}

impl BodyValue for EdgeName {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        edge(value).map(Self)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(string_schema().pattern(Some("^[A-Za-z0-9._-]{1,64}$")).build()).into()
    }
}

impl BodyValue for Scopes {
    fn parse(value: Value, context: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        scopes(value, context.config)
    }

    fn schema() -> RefOr<Schema> {
        scopes_schema()
    }

    fn schemas(schemas: &mut NamedSchemas) {
        schemas.push(("ScopeLevel".to_owned(), ScopeLevel::schema()));
    }
}

/// Scopes in requests and responses.
pub(crate) fn scopes_schema() -> RefOr<Schema> {
    let levels = RefOr::<Schema>::Ref(utoipa::openapi::Ref::from_schema_name("ScopeLevel"));
    let names = Schema::Object(string_schema().build());
    let scopes =
        ObjectBuilder::new().schema_type(Type::Object).property_names(Some(names)).additional_properties(Some(levels));
    Schema::Object(scopes.build()).into()
}

impl ScopeLevel {
    fn schema() -> RefOr<Schema> {
        let levels = string_schema().enum_values(Some(["read", "write"]));
        let text = "The level of access in a scope; write includes read.";
        Schema::Object(levels.description(Some(text)).build()).into()
    }
}

impl BodyValue for Allowlist {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        allowlist(value)
    }

    fn schema() -> RefOr<Schema> {
        let networks = ArrayBuilder::new().items(string_schema());
        let mut networks = networks.min_items(Some(1)).max_items(Some(MAX_NETWORKS)).build();
        networks.schema_type = or_null(networks.schema_type);
        Schema::Array(networks).into()
    }
}

impl BodyValue for Environment {
    fn parse(value: Value, context: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        environment(value, context.config)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(string_schema().build()).into()
    }
}

impl BodyValue for Map<String, Value> {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        metadata(value)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(ObjectBuilder::new().schema_type(Type::Object).build()).into()
    }
}

impl BodyValue for MetadataPatch {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        metadata_patch(value).map(Self)
    }

    fn schema() -> RefOr<Schema> {
        <OrNull<Metadata> as BodyValue>::schema()
    }
}
