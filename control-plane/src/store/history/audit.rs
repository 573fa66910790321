//! The audit log: one event per change, chained by hash so that a rewritten history is detected.

use std::net::IpAddr;

use policy::{ChainHash, Revision, WorkspaceId};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::base::instant;
use crate::store::db::sql::{NONE, Optional as _, Sql, params};
use crate::store::{Actor, ChangeContext, Store, StoreError};

/// The hash before the first event.
pub(crate) const FIRST_HASH: ChainHash = ChainHash([0; 32]);

/// An event, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    pub revision: Revision,
    /// A JSON object, byte for byte as it was hashed into `hash`.
    pub json: String,
    /// `SHA-256(hash of the previous event, revision as u64 LE, json)`.
    pub hash: ChainHash,
}

/// The newest event. If its hash is stored elsewhere, a later check detects a rewrite of anything up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHead {
    pub revision: Revision,
    pub hash: ChainHash,
}

/// The workspace, key, token or instance that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Target)]
pub(crate) struct EventTarget {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) name: String,
}

/// An object that audit events describe. Its fields contain no secret and no digest, and repeat nothing that the event
/// already has.
pub(crate) trait Audited {
    fn target(&self) -> EventTarget;

    fn workspace(&self) -> Option<WorkspaceId>;

    fn fields(&self) -> Map<String, Value>;
}

/// What a change did.
pub(crate) struct Event {
    action: &'static str,
    target: Option<EventTarget>,
    workspace: Option<WorkspaceId>,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
}

impl Event {
    /// An object was created.
    pub(crate) fn created(action: &'static str, object: &impl Audited) -> Self {
        let (target, workspace) = (Some(object.target()), object.workspace());
        Self { action, target, workspace, before: None, after: Some(object.fields()) }
    }

    /// An object was changed; only fields that differ are included.
    pub(crate) fn changed<T: Audited>(action: &'static str, before: &T, after: &T) -> Self {
        let (mut old, mut new) = (before.fields(), after.fields());
        let (all_old, all_new) = (old.clone(), new.clone());
        old.retain(|name, value| all_new.get(name) != Some(value));
        new.retain(|name, value| all_old.get(name) != Some(value));
        let (target, workspace) = (Some(after.target()), after.workspace());
        Self { action, target, workspace, before: Some(old), after: Some(new) }
    }

    /// An object was deleted, revoked or removed.
    pub(crate) fn ended(action: &'static str, object: &impl Audited) -> Self {
        let (target, workspace) = (Some(object.target()), object.workspace());
        Self { action, target, workspace, before: Some(object.fields()), after: None }
    }

    /// An event about many objects of one workspace.
    pub(crate) fn of_many(action: &'static str, workspace: WorkspaceId, after: Map<String, Value>) -> Self {
        Self { action, target: None, workspace: Some(workspace), before: None, after: Some(after) }
    }

    /// The id of its target; empty if it has no single target.
    pub(crate) fn target_id(&self) -> &str {
        self.target.as_ref().map_or("", |target| &target.id)
    }

    /// An event about no single object and no single workspace.
    pub(crate) fn of_all(action: &'static str, after: Map<String, Value>) -> Self {
        Self { action, target: None, workspace: None, before: None, after: Some(after) }
    }
}

/// A change, as the audit log records it.
//
// Stored events never change, so fields may be added but not renamed.
#[derive(Serialize, ToSchema)]
pub struct AuditEventJson<'a> {
    #[schema(value_type = u64)]
    revision: Revision,
    #[schema(format = DateTime)]
    at: String,
    #[schema(value_type = Actor)]
    actor: &'a Actor,
    action: &'static str,
    #[schema(value_type = Option<EventTarget>, required)]
    target: &'a Option<EventTarget>,
    #[schema(value_type = Option<String>, required)]
    workspace_id: Option<WorkspaceId>,
    /// The changed fields as they were; `null` if the target was created.
    #[schema(value_type = Option<Object>, required)]
    before: &'a Option<Map<String, Value>>,
    /// The changed fields as they are now; `null` if the target was removed.
    #[schema(value_type = Option<Object>, required)]
    after: &'a Option<Map<String, Value>>,
    /// The client's address.
    #[schema(value_type = Option<String>, required)]
    address: Option<IpAddr>,
    #[schema(value_type = Option<String>, required)]
    request_id: &'a Option<String>,
}

/// Appends the event of the change that gets `revision`.
pub(crate) fn append(
    sql: Sql<'_>,
    revision: Revision,
    context: &ChangeContext,
    event: &Event,
) -> Result<(), StoreError> {
    let event_json = AuditEventJson {
        revision,
        at: instant::text(context.at),
        actor: &context.actor,
        action: event.action,
        target: &event.target,
        workspace_id: event.workspace,
        before: &event.before,
        after: &event.after,
        address: context.address,
        request_id: &context.request_id,
    };
    let json = serde_json::to_string(&event_json).map_err(|error| StoreError::Fault(error.to_string()))?;
    let hash = head(sql)?.map_or(FIRST_HASH, |head| head.hash).then(revision, json.as_bytes());
    sql.prepare("INSERT INTO audit_events (revision, event, hash) VALUES (?1, ?2, ?3)")?
        .execute(params![revision, json, hash])?;
    Ok(())
}

/// The newest event; `None` if there is none.
pub(crate) fn head(sql: Sql<'_>) -> Result<Option<AuditHead>, StoreError> {
    let mut statement = sql.prepare("SELECT revision, hash FROM audit_events ORDER BY revision DESC LIMIT 1")?;
    let head = statement.query_row(NONE, |row| Ok(AuditHead { revision: row.get(0)?, hash: row.get(1)? }));
    Ok(head.optional()?)
}

impl Store {
    /// The newest event; `None` if there is none.
    pub async fn audit_head(&self) -> Result<Option<AuditHead>, StoreError> {
        self.engine.read(head).await
    }
}
