//! The parameters of a query, as fields.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde_json::{Map, Value};

use crate::operations::fields::Fields;
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
