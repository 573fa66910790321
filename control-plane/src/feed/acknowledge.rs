//! POST /edge/v1/acknowledgements: an instance says what its workers have applied.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use policy::{Epoch, Position, Revision};
use serde::{Deserialize, Serialize};

use super::Feed;
use super::access::Shown;
use crate::edge_name;
use crate::edges::{Acknowledgement, Bound};
use crate::guesses::address;
use crate::problem::Problem;
use crate::store::Worker;

/// The most bytes of a body: some thousand workers, ended ones included. Of those that live there is a limit besides.
const MAX_BODY_BYTES: usize = 256 << 10;

/// The body. Fields that aren't known are for newer control planes, and are left alone.
#[derive(Deserialize)]
struct Said {
    edge: String,
    instance: String,
    epoch: String,
    version: Option<String>,
    /// `null` is no bound; it must be written, so that it is never forgotten.
    #[serde(deserialize_with = "Option::deserialize")]
    max_staleness_secs: Option<u64>,
    workers: Vec<SaidWorker>,
}

#[derive(Deserialize)]
struct SaidWorker {
    id: String,
    applied: u64,
    /// Seconds since 1970, by its own clock.
    started_at: i64,
    #[serde(default)]
    ended: bool,
}

/// What is answered: the head, for which the answer vouches.
#[derive(Serialize)]
struct Head {
    epoch: Epoch,
    head: Revision,
    chain_hash: String,
}

pub(crate) async fn acknowledge(State(feed): State<Feed>, request: Request) -> Result<Response, Problem> {
    let at = feed.clock.monotonic();
    let (request, body) = request.into_parts();
    let shown = feed.shown(&request)?;
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| Problem::too_large(MAX_BODY_BYTES));
    let said = bytes.and_then(|bytes| read(&bytes));
    let access = match (shown, &said) {
        (Shown::Live(access), _) => access,
        (Shown::Revoked(revoked), Ok(said)) => return Err(feed.disowned(revoked, &said.edge, &said.instance).await),
        (Shown::Revoked(_), Err(_)) => return Err(feed.wrong(address(&request.extensions))),
    };
    let said = said?;
    let refused = |problem: Problem| {
        // Nothing that came with it, but names that have the right form.
        let code = problem.code();
        tracing::warn!(edge.id = said.edge, instance = said.instance, code, "an acknowledgement was refused");
        problem
    };
    access.covers(&said.edge).map_err(refused)?;
    if let Err(revoked) = feed.still(&access) {
        return Err(refused(feed.disowned(revoked, &said.edge, &said.instance).await));
    }
    let head = feed
        .edges
        .acknowledge(&said, &access.id, at)
        .await
        .map_err(|error| refused(feed.refused(&said.instance, error)))?;
    let applied = said.workers.values().map(|(_, applied)| applied.0).min();
    tracing::debug!(edge.id = said.edge, instance = said.instance, revision = applied, "acknowledged");
    let (Position { epoch, revision, .. }, chain_hash) = (head, head.head.to_string());
    Ok(Json(Head { epoch, head: revision, chain_hash }).into_response())
}

pub(super) fn read(bytes: &Bytes) -> Result<Acknowledgement, Problem> {
    let bad = Problem::bad_acknowledgement;
    // The messages of serde_json name a place and a type; what stands there is no secret.
    let said: Said = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    let Said { edge, instance, epoch, version, max_staleness_secs, workers: all } = said;
    for (field, name) in [("edge", &edge), ("instance", &instance)] {
        if !edge_name::fits(name) {
            return Err(bad(format!("`{field}` must be {}", edge_name::EXPECTED)));
        }
    }
    if !version.as_ref().is_none_or(|version| edge_name::fits(version)) {
        return Err(bad(format!("`version` must be {}", edge_name::EXPECTED)));
    }
    let epoch = epoch.parse().map_err(|_| bad("`epoch` must be 32 hexadecimal digits".to_owned()))?;
    let (mut workers, mut ended) = (BTreeMap::new(), BTreeSet::new());
    for SaidWorker { id, applied, started_at, ended: has_ended } in all {
        if !edge_name::fits(&id) {
            return Err(bad(format!("a worker's `id` must be {}", edge_name::EXPECTED)));
        }
        if ended.contains(&id) || workers.contains_key(&id) {
            return Err(bad("a worker stands there twice".to_owned()));
        }
        if has_ended {
            ended.insert(id);
        } else {
            workers.insert(id.clone(), (Worker { id, started_at }, Revision(applied)));
        }
    }
    let bound = max_staleness_secs.map_or(Bound::Never, Bound::Secs);
    let ended = ended.into_iter().collect();
    Ok(Acknowledgement { edge, instance, epoch, version, bound, workers, ended })
}
