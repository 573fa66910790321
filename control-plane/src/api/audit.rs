//! `/v1/audit-events`: the audit log, in pages or as JSON lines.

use std::num::NonZeroU32;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use policy::{ChainHash, Revision, WorkspaceId};
use serde_json::Value;
use serde_json::value::RawValue;

use super::authority::{AdminOf, PlatformAdmin};
use super::fields::{Fields, InvalidValue, QueryFields};
use super::requests::{AuditEvent as AuditEventBody, AuditSort};
use super::response::{PageBody, ok_json};
use super::{Api, audit_filter, cursor, json_lines, values};
use crate::store::{AuditEvent, AuditFilter, AuditHead, AuditQuery, Order, Page, Store, StoreError};
use crate::web::problem::Problem;

/// The hash of the log's newest event when the response began.
const LATCHKEY_AUDIT_HEAD: HeaderName = HeaderName::from_static("latchkey-audit-head");

/// The number of events in each batch that an export reads.
const EXPORT_STEP: NonZeroU32 = match NonZeroU32::new(500) {
    Some(step) => step,
    None => NonZeroU32::MIN,
};

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
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page; 50 by default", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page"),
        ("target" = Option<String>, Query, description = "Only events about the target with this id", max_length = 100),
        ("action" = Option<String>, Query, description = "Only this action", max_length = 100),
        (
            "actor" = Option<String>,
            Query,
            description = "Only events of this actor: its id, or its name in the events",
            max_length = 100
        ),
        ("address" = Option<String>, Query, description = "Only events of requests from this address or network", example = "192.0.2.0/24"),
        (
            "since" = Option<String>,
            Query,
            description = "A revision: only events after it. Or an instant: only events from then on"
        ),
        (
            "until" = Option<String>,
            Query,
            description = "A revision: only events up to it. Or an instant: only events before it"
        ),
        ("sort" = Option<AuditSort>, Query, description = "Newest first by default; an export oldest first"),
    ),
    responses(
        (status = 200, description = "A page; with `Accept: application/jsonl` all events, one a line", content(
            (PageBody<AuditEventBody> = "application/json"),
            (String = "application/jsonl"),
        )),
    )
)]
pub(super) async fn list_all(
    State(api): State<Api>,
    _: PlatformAdmin,
    format: AuditFormat,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    respond(api.store.clone(), None, format, fields).await
}

/// Lists the audit events of a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{workspace}/audit-events",
    operation_id = "list_workspace_audit_events",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page; 50 by default", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page"),
        ("target" = Option<String>, Query, description = "Only events about the target with this id", max_length = 100),
        ("action" = Option<String>, Query, description = "Only this action", max_length = 100),
        (
            "actor" = Option<String>,
            Query,
            description = "Only events of this actor: its id, or its name in the events",
            max_length = 100
        ),
        ("address" = Option<String>, Query, description = "Only events of requests from this address or network", example = "192.0.2.0/24"),
        (
            "since" = Option<String>,
            Query,
            description = "A revision: only events after it. Or an instant: only events from then on"
        ),
        (
            "until" = Option<String>,
            Query,
            description = "A revision: only events up to it. Or an instant: only events before it"
        ),
        ("sort" = Option<AuditSort>, Query, description = "Newest first by default; an export oldest first"),
    ),
    responses(
        (status = 200, description = "A page; with `Accept: application/jsonl` all events, one a line", content(
            (PageBody<AuditEventBody> = "application/json"),
            (String = "application/jsonl"),
        )),
    )
)]
pub(super) async fn list_workspace(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    format: AuditFormat,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    respond(api.store.clone(), Some(at.workspace.id), format, fields).await
}

/// The events that the fields select, of one workspace or of all.
pub(crate) async fn respond(
    store: Store,
    workspace: Option<WorkspaceId>,
    format: AuditFormat,
    fields: Fields,
) -> Result<Response, Problem> {
    let head = store.audit_head().await?;
    let query = store.within_time(parse_query(workspace, head, &format, fields)?).await?;
    let mut response = match format {
        AuditFormat::JsonLines => export(store, query),
        AuditFormat::Page => {
            let (page, next_cursor) = fetch_page(&store, query).await?;
            let raw = |event: &AuditEvent| RawValue::from_string(line(event)).map_err(|_| damaged_event(event));
            let items = page.items.iter().map(raw).collect::<Result<Vec<_>, _>>()?;
            ok_json(&PageBody { items, next_cursor })?
        }
    };
    response.headers_mut().insert(LATCHKEY_AUDIT_HEAD, head_value(head)?);
    Ok(response)
}

/// The page that the fields select, and the cursor of the next one.
pub(crate) async fn page(
    store: &Store,
    workspace: Option<WorkspaceId>,
    fields: Fields,
) -> Result<(Page<AuditEvent>, Option<String>), Problem> {
    let head = store.audit_head().await?;
    fetch_page(store, store.within_time(parse_query(workspace, head, &AuditFormat::Page, fields)?).await?).await
}

fn parse_query(
    workspace: Option<WorkspaceId>,
    head: Option<AuditHead>,
    format: &AuditFormat,
    mut fields: Fields,
) -> Result<AuditQuery, Problem> {
    let filter = audit_filter::parse(&mut fields);
    let sort = fields.optional("sort", parse_order);
    // Leave out later events, so that an export ends at the head in its header.
    let head = head.map_or(Revision(0), |head| head.revision);
    let until = Some(filter.until.map_or(head, |until| until.min(head)));
    let query = move |order, limit| AuditQuery { workspace, filter: AuditFilter { until, ..filter }, order, limit };
    match format {
        AuditFormat::JsonLines => fields.finish(|| Some(query(sort.unwrap_or(Order::Oldest), EXPORT_STEP))),
        AuditFormat::Page => {
            let limit = fields.optional("limit", values::limit).unwrap_or(values::DEFAULT_LIMIT);
            let position = fields.optional("cursor", |value| cursor::decode::<Revision>(&values::string(value)?));
            fields.finish(|| Some(after(query(sort.unwrap_or(Order::Newest), limit), position)))
        }
    }
}

/// The part of the list after the position of a cursor.
fn after(mut query: AuditQuery, position: Option<Revision>) -> AuditQuery {
    match (position, query.order) {
        (None, _) => {}
        (Some(position), Order::Oldest) => query.filter.since = query.filter.since.max(Some(position)),
        (Some(position), Order::Newest) => {
            query.filter.until = query.filter.until.min(Some(Revision(position.0.saturating_sub(1))))
        }
    }
    query
}

async fn fetch_page(store: &Store, query: AuditQuery) -> Result<(Page<AuditEvent>, Option<String>), Problem> {
    let page = store.list_audit_events(query).await?;
    let next_cursor = page.items.last().filter(|_| page.more).map(|last| cursor::encode(&last.revision));
    Ok((page, next_cursor))
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

fn parse_order(value: Value) -> Result<Order, InvalidValue> {
    match values::string(value)?.as_str() {
        "at" => Ok(Order::Oldest),
        "-at" => Ok(Order::Newest),
        _ => Err(InvalidValue::new("unknown-sort", "must be one of at, -at")),
    }
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
