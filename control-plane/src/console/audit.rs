//! The audit log, whole or of a workspace, in pages with filters or as a file.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use policy::{UnixSeconds, WorkspaceId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::page::{Area, Frame, html};
use super::problems::Errors;
use super::query::Asked;
use super::session::Visit;
use super::words::{self, Moment};
use crate::api::authority::{AdminOf, PlatformAdmin};
use crate::api::{Api, audit};
use crate::instant;
use crate::problem::Problem;
use crate::store::{Actor, AuditEvent, AuditFilter, AuditQuery, Order};

/// Events on a key's page.
const LATEST: std::num::NonZeroU32 = match std::num::NonZeroU32::new(20) {
    Some(latest) => latest,
    None => std::num::NonZeroU32::MIN,
};

/// The maximum length of a shown value, in characters.
const MAX_VALUE: usize = 120;

/// The filters of a list.
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
pub(super) struct Entry {
    pub(super) revision: u64,
    pub(super) at: Moment,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) target: Option<Target>,
    pub(super) changes: Vec<Change>,
    pub(super) address: Option<String>,
}

/// What an event is about.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) kind: String,
}

/// A field that an event changed.
pub(super) struct Change {
    pub(super) field: String,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// An event as it is stored.
#[derive(Deserialize)]
struct Written {
    revision: u64,
    at: String,
    actor: Actor,
    action: String,
    target: Option<WrittenTarget>,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
    address: Option<String>,
}

#[derive(Deserialize)]
struct WrittenTarget {
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
    entries: Vec<Entry>,
    actions: Vec<(&'static str, &'static str)>,
    errors: Errors,
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

pub(super) async fn of_all(
    State(api): State<Api>,
    visit: Visit,
    _: PlatformAdmin,
    asked: Asked,
) -> Result<Response, Problem> {
    let frame = Frame::new(&visit, Area::WholeAudit);
    show(&api, frame, "Audit log", "/console/audit".to_owned(), None, asked).await
}

pub(super) async fn of_workspace(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    asked: Asked,
) -> Result<Response, Problem> {
    let frame = Frame::within(&visit, &at.workspace, Area::Audit);
    let path = format!("/console/workspaces/{}/audit", at.workspace.slug);
    show(&api, frame, "Audit trail", path, Some(at.workspace.id), asked).await
}

pub(super) async fn export_all(State(api): State<Api>, _: PlatformAdmin, asked: Asked) -> Result<Response, Problem> {
    export(api, None, "audit-log.jsonl", asked).await
}

pub(super) async fn export_workspace(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    asked: Asked,
) -> Result<Response, Problem> {
    export(api, Some(at.workspace.id), &format!("audit-{}.jsonl", at.workspace.slug), asked).await
}

/// The newest events about a target.
pub(super) async fn latest(api: &Api, workspace: WorkspaceId, target: &str) -> Result<Vec<Entry>, Problem> {
    let query = AuditQuery {
        workspace: Some(workspace),
        filter: AuditFilter { target: Some(target.to_owned()), ..AuditFilter::default() },
        order: Order::Newest,
        limit: LATEST,
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
    asked: Asked,
) -> Result<Response, Problem> {
    let asked = asked.with_instants(["since", "until"]);
    let (events, next, errors) = match audit::page(&api.store, workspace, asked.fields()).await {
        Ok((page, next)) => (page.items, next, Errors::none()),
        Err(problem) => (Vec::new(), None, Errors::of_search(problem, &FILTERS)?),
    };
    let now = api.clock.now();
    let is_theirs = |action: &str| {
        workspace.is_none() || ["key", "workspace.", "admin-token."].into_iter().any(|kind| action.starts_with(kind))
    };
    let page = Page {
        frame,
        title,
        entries: events.iter().map(|event| entry(event, now)).collect::<Result<_, _>>()?,
        actions: ACTIONS.into_iter().filter(|(action, _)| is_theirs(action)).collect(),
        action: asked.text("action").to_owned(),
        target: asked.text("target").to_owned(),
        actor: asked.text("actor").to_owned(),
        address: asked.text("address").to_owned(),
        since: asked.day_and_time("since").to_owned(),
        until: asked.day_and_time("until").to_owned(),
        is_filtered: FILTERS.into_iter().any(|name| !asked.text(name).is_empty()),
        is_first_page: asked.text("cursor").is_empty(),
        first: asked.with(&path, "cursor", ""),
        next: next.map(|next| asked.with(&path, "cursor", &next)),
        export: asked.with(&format!("{path}/export"), "cursor", ""),
        path,
        errors,
    };
    let status = if page.errors.summary.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    html(status, &page)
}

async fn export(api: Api, workspace: Option<WorkspaceId>, name: &str, asked: Asked) -> Result<Response, Problem> {
    let asked = asked.with_instants(["since", "until"]);
    let mut response = audit::answer(api.store.clone(), workspace, audit::Form::Lines, asked.fields()).await?;
    let disposition =
        HeaderValue::try_from(format!("attachment; filename=\"{name}\"")).map_err(|_| Problem::fault())?;
    response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

fn entry(event: &AuditEvent, now: UnixSeconds) -> Result<Entry, Problem> {
    let written: Written = serde_json::from_str(&event.json).map_err(|cause| {
        tracing::error!(revision = event.revision.0, %cause, "an audit event can't be read: run `latchkey audit verify`");
        Problem::fault()
    })?;
    let at = instant::parse(&written.at).unwrap_or(now);
    Ok(Entry {
        revision: written.revision,
        at: Moment::new(at, now),
        actor: written.actor.name,
        action: action(&written.action),
        target: written.target.map(|WrittenTarget { kind, id, name }| Target {
            name,
            id,
            kind: kind.replace('_', " "),
        }),
        changes: changes(written.before.as_ref(), written.after.as_ref()),
        address: written.address,
    })
}

/// The label of an action; the action itself if it has none.
fn action(word: &str) -> String {
    let known = ACTIONS.iter().find(|(own, _)| *own == word).map(|(_, text)| (*text).to_owned());
    known.unwrap_or_else(|| word.to_owned())
}

/// The fields to show; of a target that was created or removed only those with a meaningful value.
fn changes(before: Option<&Map<String, Value>>, after: Option<&Map<String, Value>>) -> Vec<Change> {
    let (empty, is_change) = (Map::new(), before.is_some() && after.is_some());
    let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let says_something = |value: &Value| match value {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    };
    let change = |name: &String| {
        let (old, new) = (before.get(name), after.get(name));
        let worth = is_change || old.or(new).is_some_and(says_something) && name != "name" && name != "active";
        let text = |value: Option<&Value>| value.map(shown);
        worth.then(|| Change { field: name.replace('_', " "), before: text(old), after: text(new) })
    };
    names.into_iter().filter_map(change).collect()
}

/// A value as people write it, shortened.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => instant::parse(text).map_or_else(|| text.clone(), words::full),
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
