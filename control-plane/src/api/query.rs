//! The parameters of a query: as fields, and in the document.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde_json::{Map, Value};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Required};

use crate::operations::fields::Fields;
use crate::operations::request::string_schema;
use crate::operations::values::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::web::problem::Problem;

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
                return Err(Problem::bad_query("a parameter is given twice; give each parameter once"));
            }
        }
        Ok(Self(Fields::new(given)))
    }
}

/// The parameters of a page, as the document describes them.
pub(super) struct PageParams;

impl IntoParams for PageParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_LIMIT));
        let limit = limit.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)));
        vec![
            query_parameter("limit", &format!("Items of a page; {DEFAULT_LIMIT} by default"), limit).build(),
            query_parameter("cursor", "The `next_cursor` of the previous page", string_schema()).build(),
        ]
    }
}

/// A parameter that a query may have.
pub(super) fn query_parameter(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> ParameterBuilder {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
    parameter.description(Some(description)).schema(Some(schema))
}
