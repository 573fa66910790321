//! POST /edge/v1/acknowledgements: an instance reports what its workers have applied.

use crate::base::staleness_bound::StalenessBound;
use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use policy::protocol::acknowledgement::{self as message, AcknowledgementAnswer, WorkerReport};
use policy::protocol::{NAME_EXPECTED, is_name};
use policy::{Position, Revision};

use super::Feed;
use crate::edges::Acknowledgement;
use crate::store::Worker;
use crate::web::problem::Problem;

/// The most bytes of a body: some thousand workers, including ended ones. Live workers have a limit of their own.
const MAX_BODY_BYTES: usize = 256 << 10;

pub(crate) async fn acknowledge(State(feed): State<Feed>, request: Request) -> Result<Response, Problem> {
    let at = feed.clock.monotonic();
    let (request, body) = request.into_parts();
    let presented = feed.presented_token(&request)?;
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| Problem::too_large(MAX_BODY_BYTES));
    let report = bytes.and_then(|bytes| read(&bytes));
    let named = report.as_ref().ok().map(|report| (&*report.edge, &*report.instance));
    let access = feed.admit(presented, named).await?;
    let report = report?;
    let refused = |problem: Problem| {
        // Nothing of the body is logged except names that have the right form.
        let code = problem.code();
        tracing::warn!(edge.id = report.edge, instance = report.instance, code, "an acknowledgement was refused");
        problem
    };
    access.covers(&report.edge).map_err(refused)?;
    if let Err(revoked) = feed.check_not_revoked(&access) {
        return Err(refused(feed.refuse_revoked(revoked, &report.edge, &report.instance).await));
    }
    let head = feed
        .edges
        .acknowledge(&report, &access.id, at)
        .await
        .map_err(|error| refused(feed.instance_problem(&report.instance, error)))?;
    let applied = report.workers.values().map(|(_, applied)| applied.0).min();
    tracing::debug!(edge.id = report.edge, instance = report.instance, revision = applied, "acknowledged");
    let (Position { epoch, revision, .. }, chain_hash) = (head, head.head.to_string());
    Ok(Json(AcknowledgementAnswer { epoch, head: revision, chain_hash }).into_response())
}

pub(super) fn read(bytes: &Bytes) -> Result<Acknowledgement, Problem> {
    let bad = Problem::bad_acknowledgement;
    // The messages of serde_json name a position and a type; an acknowledgement contains no secret.
    let message: message::Acknowledgement = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    let message::Acknowledgement { edge, instance, epoch, version, max_staleness_secs, workers: all } = message;
    for (field, name) in [("edge", &edge), ("instance", &instance)] {
        if !is_name(name) {
            return Err(bad(format!("`{field}` must be {NAME_EXPECTED}")));
        }
    }
    if !version.as_ref().is_none_or(|version| is_name(version)) {
        return Err(bad(format!("`version` must be {NAME_EXPECTED}")));
    }
    let epoch = epoch.parse().map_err(|_| bad("`epoch` must be 32 hexadecimal digits".to_owned()))?;
    let (mut workers, mut ended) = (BTreeMap::new(), BTreeSet::new());
    for WorkerReport { id, applied, started_at, ended: has_ended } in all {
        if !is_name(&id) {
            return Err(bad(format!("a worker's `id` must be {NAME_EXPECTED}")));
        }
        if ended.contains(&id) || workers.contains_key(&id) {
            return Err(bad("a worker is listed twice".to_owned()));
        }
        if has_ended {
            ended.insert(id);
        } else {
            workers.insert(id.clone(), (Worker { id, started_at }, Revision(applied)));
        }
    }
    let bound = StalenessBound::of(max_staleness_secs);
    let ended = ended.into_iter().collect();
    Ok(Acknowledgement { edge, instance, epoch, version, bound, workers, ended })
}
