//! GET /v1/enforcement: whether a revision is enforced on all instances; if not, where it isn't, and when it will be.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use policy::Revision;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Api;
use super::authority::Anywhere;
use super::edges::EdgeBody;
use super::openapi::NotFound;
use super::query::QueryFields;
use super::response::ok_json;
use crate::base::instant;
use crate::edges::{Edges, Enforcement, EnforcementDeadline};
use crate::operations::fields::InvalidValue;
use crate::operations::permissions::may;
use crate::operations::values;
use crate::web::problem::Problem;

/// The longest time that a request may wait.
pub(super) const MAX_WAIT_SECS: u64 = 60;

#[derive(Serialize, ToSchema)]
#[schema(as = Enforcement)]
struct EnforcementBody {
    #[schema(value_type = u64)]
    revision: Revision,
    /// Every known instance has applied it on every worker, or denies all requests. False when no instance is known.
    enforced: bool,
    /// When it is enforced even if no edge reports anything more: an instant, or `never`; `null` when it is enforced.
    #[schema(required)]
    bounded_at: Option<String>,
    edges: Vec<EdgeBody>,
}

/// Shows whether a revision is enforced on all instances. Can wait until it is.
#[utoipa::path(
    get,
    path = "/enforcement",
    operation_id = "get_enforcement",
    params(
        ("revision" = Option<u64>, Query, description = "A change's `Latchkey-Revision`; the newest by default"),
        ("wait" = Option<u64>, Query, description = "Seconds to wait until it is enforced; 0 by default", maximum = 60),
    ),
    responses((status = 200, description = "The result, and each instance", body = EnforcementBody), (status = 404, response = NotFound))
)]
pub(super) async fn show(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::ReadEdges>,
    QueryFields(mut fields): QueryFields,
) -> Result<Response, Problem> {
    let revision = fields.optional("revision", |value| number(value, u64::MAX));
    let wait = fields.optional("wait", |value| number(value, MAX_WAIT_SECS)).unwrap_or_default();
    fields.finish(|| Some(()))?;
    let revision = revision.map(Revision);
    let head = api.store.newest(revision).await?;
    let revision = revision.unwrap_or(head);
    if revision > head {
        return Err(Problem::unknown_revision(head));
    }
    let deadline = Instant::now().checked_add(Duration::from_secs(wait));
    let found = api.edges.wait_until_enforced(revision, deadline).await.enforcement;
    let bounded_at = bounded_at(&api.edges, &found);
    let edges = EdgeBody::all(&api, &principal, revision);
    ok_json(&EnforcementBody { revision, enforced: found.is_enforced(), bounded_at, edges })
}

/// An instant or `never`; `None` when it is enforced.
pub(super) fn bounded_at(edges: &Edges, found: &Enforcement) -> Option<String> {
    match found.deadline {
        EnforcementDeadline::Already => None,
        EnforcementDeadline::At(at) => Some(instant::text(edges.wall_clock(at))),
        EnforcementDeadline::Never => Some("never".to_owned()),
    }
}

fn number(value: Value, max: u64) -> Result<u64, InvalidValue> {
    let number = values::string(value)?.parse().ok().filter(|number| *number <= max);
    number.ok_or_else(|| InvalidValue::new("out-of-range", format!("must be a whole number from 0 to {max}")))
}
