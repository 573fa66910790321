//! JSON answers, with the headers of their revision.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policy::Revision;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::Problem;

/// The first revision in which the answer holds.
pub(super) const LATCHKEY_REVISION: HeaderName = HeaderName::from_static("latchkey-revision");

/// A page of a list.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageBody<T> {
    pub(super) items: Vec<T>,
    /// `null` at the end.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

/// 200 with a resource. Its ETag is the revision of its last change.
pub(super) fn shown(body: &impl Serialize, last_change: Revision) -> Result<Response, Problem> {
    let mut response = json(StatusCode::OK, body)?;
    response.headers_mut().insert(header::ETAG, etag(last_change)?);
    Ok(response)
}

/// The answer to a change: the resource as it is now.
pub(super) fn changed(status: StatusCode, body: &impl Serialize, revision: Revision) -> Result<Response, Problem> {
    let mut response = json(status, body)?;
    response.headers_mut().insert(header::ETAG, etag(revision)?);
    response.headers_mut().insert(LATCHKEY_REVISION, revision.0.into());
    Ok(response)
}

/// The answer to a bulk change: a summary.
pub(super) fn done(body: &impl Serialize, revision: Revision) -> Result<Response, Problem> {
    let mut response = json(StatusCode::OK, body)?;
    response.headers_mut().insert(LATCHKEY_REVISION, revision.0.into());
    Ok(response)
}

/// 204, the answer to a removal.
pub(super) fn gone(revision: Revision) -> Response {
    (StatusCode::NO_CONTENT, [(LATCHKEY_REVISION, HeaderValue::from(revision.0))]).into_response()
}

/// 200 with JSON.
pub(super) fn listed(body: &impl Serialize) -> Result<Response, Problem> {
    json(StatusCode::OK, body)
}

fn json(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(body).map_err(|cause| {
        tracing::error!(%cause, "an answer can't be written");
        Problem::fault()
    })?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

fn etag(revision: Revision) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("\"{revision}\"")).map_err(|_| Problem::fault())
}
