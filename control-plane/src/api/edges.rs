//! `/v1/edges`: the instances that subscribe to the feed, with the revision of each.

use crate::base::staleness_bound::StalenessBound;
use std::net::IpAddr;

use axum::extract::State;
use axum::response::Response;
use policy::{Revision, UnixSeconds};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::authority::{Anywhere, Platform};
use super::openapi::Conflict;
use super::path::InstanceInPath;
use super::query::{PageParams, QueryFields};
use super::response::{PageBody, bulk_summary, no_content, ok_json};
use crate::base::instant;
use crate::edges::{InstanceView, RemovalSummary, State as EdgeState};
use crate::operations::cursor::{self, page_fields};
use crate::operations::permissions::may;
use crate::operations::principal::Principal;
use crate::operations::values;
use crate::web::problem::Problem;

/// One wasm VM of an instance.
#[derive(Serialize, ToSchema)]
#[schema(as = Worker)]
struct WorkerBody {
    id: String,
    /// `null`: not reported since the control plane started.
    #[schema(value_type = Option<u64>, required)]
    applied: Option<Revision>,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    started_at: UnixSeconds,
}

/// One Envoy process, and how far it is behind a revision.
#[derive(Serialize, ToSchema)]
#[schema(as = Edge)]
pub(super) struct EdgeBody {
    /// The operator's name for the gateway; replicas share it.
    edge: String,
    instance: String,
    state: EdgeState,
    /// Whether every request that starts from now on is decided with the revision.
    enforced: bool,
    /// The revision that all of its workers have applied; `null`: not reported since the control plane started.
    #[schema(value_type = Option<u64>, required)]
    applied: Option<Revision>,
    /// The number of revisions that it hasn't applied.
    lag: u64,
    workers: Vec<WorkerBody>,
    /// How long it keeps deciding without a confirmation from the control plane; `null`: for ever.
    #[schema(required)]
    max_staleness_secs: Option<u64>,
    /// When it starts to deny all requests if it has no more contact; `null`: never.
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    bounded_at: Option<UnixSeconds>,
    /// The filter's version.
    #[schema(required)]
    version: Option<String>,
    /// The feed's wire format.
    format: u16,
    /// Shown to roles of the platform; otherwise `null`.
    #[schema(value_type = Option<String>, required)]
    address: Option<IpAddr>,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    first_seen_at: UnixSeconds,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: UnixSeconds,
}

impl EdgeBody {
    /// All known instances, measured against `revision`, as this principal may see them.
    pub(super) fn all(api: &Api, principal: &Principal, revision: Revision) -> Vec<Self> {
        let seen = api.edges.views(revision).into_iter();
        seen.map(|seen| Self::new(api, seen, revision, principal.reach().is_none())).collect()
    }

    fn new(api: &Api, seen: InstanceView, revision: Revision, with_address: bool) -> Self {
        let InstanceView { instance, facts, applied, state, is_enforced } = seen;
        let worker = |(worker, applied): (crate::store::Worker, Option<Revision>)| WorkerBody {
            id: worker.id,
            applied,
            started_at: UnixSeconds(worker.started_at),
        };
        Self {
            edge: instance.edge,
            instance: instance.id,
            state,
            enforced: is_enforced,
            applied: facts.applied,
            lag: facts.lag(revision),
            workers: instance.workers.into_iter().zip(applied).map(worker).collect(),
            max_staleness_secs: match instance.bound {
                StalenessBound::Secs(secs) => Some(secs),
                StalenessBound::Never => None,
            },
            bounded_at: facts.denies_at().map(|at| api.edges.wall_clock(at)),
            version: instance.version,
            format: instance.format,
            address: instance.address.filter(|_| with_address),
            first_seen_at: instance.first_seen_at,
            last_seen_at: instance.last_seen_at,
        }
    }
}

/// The result of removing the dead instances of an edge.
#[derive(Serialize, ToSchema)]
#[schema(as = RemovedEdges)]
struct RemovedBody {
    edge: String,
    /// The number of removed instances.
    removed: u64,
    /// The number of instances that stay, because they are connected.
    connected: u64,
}

/// Lists the instances that subscribe to the feed, by edge.
#[utoipa::path(
    get,
    path = "/edges",
    operation_id = "list_edges",
    params(PageParams),
    responses((status = 200, description = "A page", body = PageBody<EdgeBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::ReadEdges>,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    let (limit, after) = page_fields::<(String, String)>(fields)?;
    let head = api.store.head().borrow().revision;
    api.edges.check_complete_at(head).await?;
    let mut items = EdgeBody::all(&api, &principal, head);
    if let Some((edge, instance)) = after {
        items.retain(|item| (&item.edge, &item.instance) > (&edge, &instance));
    }
    let limit = usize::try_from(limit.get()).unwrap_or(usize::MAX);
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| has_more).map(|last| cursor::encode(&(&last.edge, &last.instance)));
    ok_json(&PageBody { items, next_cursor })
}

/// Removes an instance that is gone. Refused while it is connected.
#[utoipa::path(
    delete,
    path = "/edges/{instance}",
    operation_id = "remove_edge",
    responses((status = 204, description = "It is removed"), (status = 409, response = Conflict))
)]
pub(super) async fn remove(
    State(api): State<Api>,
    Platform(principal, ..): Platform<may::ManageEdges>,
    InstanceInPath(id): InstanceInPath,
) -> Result<Response, Problem> {
    let removed = api.edges.remove(&id, principal.change_context(&api.clock)).await?;
    Ok(no_content(removed.revision))
}

/// Removes all instances of an edge that aren't connected.
#[utoipa::path(
    delete,
    path = "/edges",
    operation_id = "remove_dead_edges",
    params(("edge" = String, Query, description = "The edge's name")),
    responses((status = 200, description = "How many were removed, and how many are connected", body = RemovedBody))
)]
pub(super) async fn remove_dead(
    State(api): State<Api>,
    Platform(principal, ..): Platform<may::ManageEdges>,
    QueryFields(mut fields): QueryFields,
) -> Result<Response, Problem> {
    let edge = fields.required("edge", values::edge);
    let edge = fields.finish(|| edge)?;
    let RemovalSummary { removed, connected, revision } =
        api.edges.remove_dead(&edge, &principal.change_context(&api.clock)).await?;
    let head = api.store.head().borrow().revision;
    bulk_summary(&RemovedBody { edge, removed, connected }, revision.unwrap_or(head))
}
