//! `/v1/audit-events`: the audit log, in pages or as JSON lines.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use policy::{ChainHash, WorkspaceId};
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::authority::{Platform, Within};
use super::query::{PageParams, QueryFields, query_parameter};
use super::response::{PageBody, ok_json};
use super::{Api, json_lines};
use crate::operations::audit::after;
use crate::operations::audit_filter::MAX_TEXT;
use crate::operations::cursor::CursorPage;
use crate::operations::fields::Fields;
use crate::operations::permissions::may;
use crate::operations::request::{NamedSchemas, reference, string_schema};
use crate::store::{AuditEvent, AuditEventJson, AuditHead, AuditQuery, Order, Store, StoreError};
use crate::web::problem::Problem;

/// The hash of the log's newest event when the response began.
const LATCHKEY_AUDIT_HEAD: HeaderName = HeaderName::from_static("latchkey-audit-head");

/// An event with its hash, as the document describes it.
struct HashedEvent;

impl PartialSchema for HashedEvent {
    fn schema() -> RefOr<Schema> {
        let mut event = <AuditEventJson<'_> as PartialSchema>::schema();
        if let RefOr::T(Schema::Object(object)) = &mut event {
            let text = "SHA-256 of the hash of the previous event, the revision (8 bytes, little-endian) and the event \
                        without its hash.";
            let hash = Schema::Object(string_schema().description(Some(text)).build());
            object.properties.insert("hash".to_owned(), hash.into());
            object.required.push("hash".to_owned());
        }
        event
    }
}

impl ToSchema for HashedEvent {
    fn name() -> Cow<'static, str> {
        "AuditEvent".into()
    }

    fn schemas(schemas: &mut NamedSchemas) {
        <AuditEventJson<'_> as ToSchema>::schemas(schemas);
    }
}

/// The parameters that select events, as the document describes them.
struct SelectionParams;

impl IntoParams for SelectionParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = || string_schema().max_length(Some(MAX_TEXT));
        let address = "Only events of requests from this address or network";
        vec![
            query_parameter("target", "Only events about the target with this id", text()).build(),
            query_parameter("action", "Only this action", text()).build(),
            query_parameter("actor", "Only events of this actor: its id, or its name in the events", text()).build(),
            query_parameter("address", address, string_schema()).example(Some("192.0.2.0/24".into())).build(),
            query_parameter(
                "since",
                "A revision: only events after it. Or an instant: only events from then on",
                string_schema(),
            )
            .build(),
            query_parameter(
                "until",
                "A revision: only events up to it. Or an instant: only events before it",
                string_schema(),
            )
            .build(),
            query_parameter("sort", "Newest first by default; an export oldest first", reference::<Order>()).build(),
        ]
    }
}

/// The format of the response that the `Accept` header requests.
pub(crate) enum AuditFormat {
    /// A page, as JSON.
    Page,
    /// All events, as JSON lines.
    JsonLines,
}

/// Lists all audit events.
#[utoipa::path(
    get,
    path = "/audit-events",
    operation_id = "list_audit_events",
    params(PageParams, SelectionParams),
    responses(
        (status = 200, description = "A page; with `Accept: application/jsonl` all events, one a line", content(
            (PageBody<HashedEvent> = "application/json"),
            (String = "application/jsonl"),
        )),
    )
)]
pub(super) async fn list_all(
    State(api): State<Api>,
    _: Platform<may::ReadAudit>,
    format: AuditFormat,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    respond(&api, None, format, fields).await
}

/// Lists the audit events of a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{workspace}/audit-events",
    operation_id = "list_workspace_audit_events",
    params(PageParams, SelectionParams),
    responses(
        (status = 200, description = "A page; with `Accept: application/jsonl` all events, one a line", content(
            (PageBody<HashedEvent> = "application/json"),
            (String = "application/jsonl"),
        )),
    )
)]
pub(super) async fn list_workspace(
    State(api): State<Api>,
    Within(at, ..): Within<may::ReadAudit>,
    format: AuditFormat,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    respond(&api, Some(at.workspace.id), format, fields).await
}

/// The events that the fields select, of one workspace or of all.
pub(crate) async fn respond(
    api: &Api,
    workspace: Option<WorkspaceId>,
    format: AuditFormat,
    fields: Fields,
) -> Result<Response, Problem> {
    let (mut response, head) = match format {
        AuditFormat::JsonLines => {
            let (query, head) = api.operations().export_audit_events(workspace, fields).await?;
            (export(api.store.clone(), query), head)
        }
        AuditFormat::Page => {
            let (CursorPage { items, next_cursor }, head) =
                api.operations().list_audit_events(workspace, fields).await?;
            let raw = |event: &AuditEvent| RawValue::from_string(line(event)).map_err(|_| damaged_event(event));
            let items = items.iter().map(raw).collect::<Result<Vec<_>, _>>()?;
            (ok_json(&PageBody { items, next_cursor })?, head)
        }
    };
    response.headers_mut().insert(LATCHKEY_AUDIT_HEAD, head_value(head)?);
    Ok(response)
}

fn damaged_event(event: &AuditEvent) -> Problem {
    tracing::error!(revision = event.revision.0, "an audit event is not JSON: run `latchkey audit verify`");
    Problem::fault()
}

/// All events as JSON lines, read in batches as the client receives them. An error aborts the response.
fn export(store: Store, query: AuditQuery) -> Response {
    let steps = stream::try_unfold(Some((store, query)), |rest| async move {
        let Some((store, query)) = rest else { return Ok::<_, StoreError>(None) };
        let page = store.list_audit_events(query.clone()).await?;
        let mut text = String::new();
        for event in &page.items {
            text.push_str(&line(event));
            text.push('\n');
        }
        let last = page.items.last().map(|last| last.revision).filter(|_| page.more);
        let rest = last.map(|last| (store, after(query, Some(last))));
        Ok(Some((Bytes::from(text), rest)))
    });
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(steps)).into_response()
}

/// The event as it was hashed, with its hash appended.
fn line(event: &AuditEvent) -> String {
    let open = event.json.strip_suffix('}').unwrap_or(&event.json);
    format!("{open},\"hash\":\"{}\"}}", event.hash)
}

fn head_value(head: Option<AuditHead>) -> Result<HeaderValue, Problem> {
    let hash = head.map_or(ChainHash([0; 32]), |head| head.hash);
    HeaderValue::try_from(hash.to_string()).map_err(|_| Problem::fault())
}

impl<S: Sync> FromRequestParts<S> for AuditFormat {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let kinds = parts.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut kinds = kinds.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or_default());
        let wants_lines =
            kinds.any(|kind| json_lines::MEDIA_TYPES.iter().any(|name| kind.trim().eq_ignore_ascii_case(name)));
        Ok(if wants_lines { Self::JsonLines } else { Self::Page })
    }
}
