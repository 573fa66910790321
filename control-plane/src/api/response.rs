//! JSON responses, with the headers of their revision.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policy::Revision;
use serde::Serialize;
use utoipa::ToSchema;

use crate::web::problem::Problem;

/// The revision from which on the change is in effect.
const LATCHKEY_REVISION: HeaderName = HeaderName::from_static("latchkey-revision");

/// The revision of the change that a response is about, for the middleware that waits for its enforcement.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChangedAt(pub(super) Revision);

/// A page of a list.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageBody<T> {
    pub(super) items: Vec<T>,
    /// `null` on the last page.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

/// 200 with a resource. Its ETag is the revision of its last change.
pub(super) fn resource(body: &impl Serialize, last_change: Revision) -> Result<Response, Problem> {
    let mut response = json_response(StatusCode::OK, body)?;
    response.headers_mut().insert(header::ETAG, etag(last_change)?);
    Ok(response)
}

/// The response to a change: the resource as it is now.
pub(super) fn changed_resource(
    status: StatusCode,
    body: &impl Serialize,
    revision: Revision,
) -> Result<Response, Problem> {
    let mut response = json_response(status, body)?;
    response.headers_mut().insert(header::ETAG, etag(revision)?);
    set_revision(&mut response, revision);
    Ok(response)
}

/// The response to a bulk change: a summary.
pub(super) fn bulk_summary(body: &impl Serialize, revision: Revision) -> Result<Response, Problem> {
    let mut response = json_response(StatusCode::OK, body)?;
    set_revision(&mut response, revision);
    Ok(response)
}

/// 204, the response to a removal.
pub(super) fn no_content(revision: Revision) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_revision(&mut response, revision);
    response
}

/// Sets the revision from which on the change is in effect.
pub(super) fn set_revision(response: &mut Response, revision: Revision) {
    response.headers_mut().insert(LATCHKEY_REVISION, revision.0.into());
    response.extensions_mut().insert(ChangedAt(revision));
}

/// 200 with JSON.
pub(super) fn ok_json(body: &impl Serialize) -> Result<Response, Problem> {
    json_response(StatusCode::OK, body)
}

fn json_response(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(body).map_err(|cause| {
        tracing::error!(%cause, "a response can't be serialized");
        Problem::fault()
    })?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

fn etag(revision: Revision) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(format!("\"{revision}\"")).map_err(|_| Problem::fault())
}
