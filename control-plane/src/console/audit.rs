//! The audit log, whole or of a workspace, in pages with filters or as a file.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use policy::{UnixSeconds, WorkspaceId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::display::{self, Moment};
use super::page::{Area, Frame, html};
use super::problems::FormErrors;
use super::query::PageQuery;
use super::session::ConsoleSession;
use crate::api::authority::{Platform, Within};
use crate::api::{Api, audit};
use crate::base::instant;
use crate::operations::permissions::may;
use crate::store::{Actor, AuditEvent, AuditFilter, AuditQuery, Order};
use crate::web::problem::Problem;

/// The number of events on a key's page.
const LATEST_LIMIT: std::num::NonZeroU32 = match std::num::NonZeroU32::new(20) {
    Some(latest) => latest,
    None => std::num::NonZeroU32::MIN,
};

/// The maximum length of a shown value, in characters.
const MAX_VALUE: usize = 120;

/// The parameters that filter the list.
const FILTERS: [&str; 6] = ["action", "target", "actor", "address", "since", "until"];

/// Actions to choose from, with their labels.
const ACTIONS: [(&str, &str); 18] = [
    ("key.create", "Key created"),
    ("key.update", "Key changed"),
    ("key.rotate", "Key rotated"),
    ("key.end-overlap", "Overlap ended"),
    ("key.activate", "Key activated"),
    ("key.deactivate", "Key deactivated"),
    ("key.delete", "Key deleted"),
    ("keys.import", "Keys imported"),
    ("workspace.create", "Workspace created"),
    ("workspace.update", "Workspace renamed"),
    ("admin-token.create", "Admin token created"),
    ("admin-token.revoke", "Admin token revoked"),
    ("edge-token.create", "Edge token created"),
    ("edge-token.revoke", "Edge token revoked"),
    ("instance.remove", "Edge instance removed"),
    ("instances.remove", "Dead edge instances removed"),
    ("catalogue.define", "Catalogue changed"),
    ("database.restore", "Database restored"),
];

/// An event as pages show it.
pub(super) struct AuditEntry {
    pub(super) revision: u64,
    pub(super) at: Moment,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) target: Option<AuditTarget>,
    pub(super) changes: Vec<FieldChange>,
    pub(super) address: Option<String>,
}

/// What an event is about.
pub(super) struct AuditTarget {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) kind: String,
}

/// A field that an event changed.
pub(super) struct FieldChange {
    pub(super) field: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// An event as the store keeps it.
#[derive(Deserialize)]
struct StoredEvent {
    revision: u64,
    at: String,
    actor: Actor,
    action: String,
    target: Option<StoredTarget>,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
    address: Option<String>,
}

#[derive(Deserialize)]
struct StoredTarget {
    kind: String,
    id: String,
    name: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Page {
    frame: Frame,
    title: &'static str,
    path: String,
    entries: Vec<AuditEntry>,
    actions: Vec<(&'static str, &'static str)>,
    errors: FormErrors,
    action: String,
    target: String,
    actor: String,
    address: String,
    since: String,
    until: String,
    is_filtered: bool,
    is_first_page: bool,
    first: String,
    next: Option<String>,
    export: String,
}

pub(super) async fn show_all(
    State(api): State<Api>,
    session: ConsoleSession,
    _: Platform<may::ReadAudit>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let frame = Frame::new(&session, Area::WholeAudit);
    show(&api, frame, "Audit log", "/console/audit".to_owned(), None, params).await
}

pub(super) async fn show_workspace(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ReadAudit>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let frame = Frame::within(&session, &at.workspace, Area::Audit);
    let path = format!("/console/workspaces/{}/audit", at.workspace.slug);
    show(&api, frame, "Audit trail", path, Some(at.workspace.id), params).await
}

pub(super) async fn export_all(
    State(api): State<Api>,
    _: Platform<may::ReadAudit>,
    params: PageQuery,
) -> Result<Response, Problem> {
    export(api, None, "audit-log.jsonl", params).await
}

pub(super) async fn export_workspace(
    State(api): State<Api>,
    Within(at, ..): Within<may::ReadAudit>,
    params: PageQuery,
) -> Result<Response, Problem> {
    export(api, Some(at.workspace.id), &format!("audit-{}.jsonl", at.workspace.slug), params).await
}

/// The newest events about a target.
pub(super) async fn latest(api: &Api, workspace: WorkspaceId, target: &str) -> Result<Vec<AuditEntry>, Problem> {
    let query = AuditQuery {
        workspace: Some(workspace),
        filter: AuditFilter { target: Some(target.to_owned()), ..AuditFilter::default() },
        order: Order::Newest,
        limit: LATEST_LIMIT,
    };
    let page = api.store.list_audit_events(query).await?;
    let now = api.clock.now();
    page.items.iter().map(|event| entry(event, now)).collect()
}

async fn show(
    api: &Api,
    frame: Frame,
    title: &'static str,
    path: String,
    workspace: Option<WorkspaceId>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let params = params.with_instants(["since", "until"]);
    let (events, next, errors) = match api.operations().list_audit_events(workspace, params.fields()).await {
        Ok((page, _)) => (page.items, page.next_cursor, FormErrors::none()),
        Err(error) => (Vec::new(), None, FormErrors::of_search(error, &FILTERS)?),
    };
    let now = api.clock.now();
    let is_workspace_action = |action: &str| {
        workspace.is_none() || ["key", "workspace.", "admin-token."].into_iter().any(|kind| action.starts_with(kind))
    };
    let page = Page {
        frame,
        title,
        entries: events.iter().map(|event| entry(event, now)).collect::<Result<_, _>>()?,
        actions: ACTIONS.into_iter().filter(|(action, _)| is_workspace_action(action)).collect(),
        action: params.text("action").to_owned(),
        target: params.text("target").to_owned(),
        actor: params.text("actor").to_owned(),
        address: params.text("address").to_owned(),
        since: params.datetime_local("since").to_owned(),
        until: params.datetime_local("until").to_owned(),
        is_filtered: FILTERS.into_iter().any(|name| !params.text(name).is_empty()),
        is_first_page: params.text("cursor").is_empty(),
        first: params.url_with(&path, "cursor", ""),
        next: next.map(|next| params.url_with(&path, "cursor", &next)),
        export: params.url_with(&format!("{path}/export"), "cursor", ""),
        path,
        errors,
    };
    let status = if page.errors.summary.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    html(status, &page)
}

async fn export(api: Api, workspace: Option<WorkspaceId>, name: &str, params: PageQuery) -> Result<Response, Problem> {
    let params = params.with_instants(["since", "until"]);
    let mut response = audit::respond(&api, workspace, audit::AuditFormat::JsonLines, params.fields()).await?;
    let disposition =
        HeaderValue::try_from(format!("attachment; filename=\"{name}\"")).map_err(|_| Problem::fault())?;
    response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

fn entry(event: &AuditEvent, now: UnixSeconds) -> Result<AuditEntry, Problem> {
    let stored: StoredEvent = serde_json::from_str(&event.json).map_err(|cause| {
        tracing::error!(revision = event.revision.0, %cause, "an audit event can't be read: run `latchkey audit verify`");
        Problem::fault()
    })?;
    let at = instant::parse(&stored.at).unwrap_or(now);
    Ok(AuditEntry {
        revision: stored.revision,
        at: Moment::new(at, now),
        actor: stored.actor.name,
        action: action(&stored.action),
        target: stored.target.map(|StoredTarget { kind, id, name }| AuditTarget {
            name,
            id,
            kind: kind.replace('_', " "),
        }),
        changes: changes(stored.before.as_ref(), stored.after.as_ref()),
        address: stored.address,
    })
}

/// The label of an action; the action itself if it has none.
fn action(word: &str) -> String {
    let known = ACTIONS.iter().find(|(own, _)| *own == word).map(|(_, text)| (*text).to_owned());
    known.unwrap_or_else(|| word.to_owned())
}

/// The fields to show; of a target that was created or removed only those with a meaningful value.
fn changes(before: Option<&Map<String, Value>>, after: Option<&Map<String, Value>>) -> Vec<FieldChange> {
    let (empty, is_change) = (Map::new(), before.is_some() && after.is_some());
    let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let has_content = |value: &Value| match value {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    };
    let change = |name: &String| {
        let (old, new) = (before.get(name), after.get(name));
        let is_shown = is_change || old.or(new).is_some_and(has_content) && name != "name" && name != "active";
        let text = |value: Option<&Value>| value.map(display_value);
        is_shown.then(|| FieldChange { field: name.replace('_', " "), before: text(old), after: text(new) })
    };
    names.into_iter().filter_map(change).collect()
}

/// A value formatted for people, shortened.
fn display_value(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => instant::parse(text).map_or_else(|| text.clone(), display::date_time),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        Value::Object(fields) if fields.values().all(Value::is_string) => {
            let pairs = fields.iter().filter_map(|(name, value)| Some(format!("{name}: {}", value.as_str()?)));
            pairs.collect::<Vec<_>>().join(", ")
        }
        Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
