//! `If-Match`: a change that is conditional on a revision (RFC 9110, section 13.1.1).

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use policy::Revision;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required};

use crate::operations::request::string_schema;
use crate::store::Precondition;
use crate::web::problem::Problem;

/// The revisions in `If-Match`. Without it, or with `*`, a change is unconditional.
pub(super) struct IfMatch(pub(super) Precondition);

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = "Only if the resource is still at this revision: the ETag of a response";
        vec![optional_header("If-Match", text, string_schema())]
    }
}

/// A header that a request may have.
pub(super) fn optional_header(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    let header = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
    header.description(Some(description)).schema(Some(schema)).required(Required::False).build()
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(read(&parts.headers)))
    }
}

/// A weak tag, or one that isn't a revision, matches no revision.
fn read(headers: &HeaderMap) -> Precondition {
    let mut revisions = Vec::new();
    let mut given = false;
    for value in headers.get_all(header::IF_MATCH) {
        given = true;
        for tag in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            if tag == "*" {
                return Precondition::None;
            }
            let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
            revisions.extend(number.map(Revision));
        }
    }
    if given { Precondition::OneOf(revisions) } else { Precondition::None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strong_tags_of_ours_name_a_revision() {
        let one_of = |numbers: &[u64]| Precondition::OneOf(numbers.iter().copied().map(Revision).collect());
        for (values, expected) in [
            (&[][..], Precondition::None),
            (&["*"], Precondition::None),
            (&["\"7\""], one_of(&[7])),
            (&["\"7\", \"8\"", "\"9\""], one_of(&[7, 8, 9])),
            (&["W/\"7\""], one_of(&[])),
            (&["7"], one_of(&[])),
            (&["\"abc\""], one_of(&[])),
            (&[""], one_of(&[])),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, value.parse().unwrap());
            }
            assert_eq!(read(&headers), expected, "{values:?}");
        }
    }
}
