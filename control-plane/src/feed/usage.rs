//! POST /edge/v1/usage: a worker reports the requests that it counted.

mod batch;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

pub(super) use self::batch::read;
use super::Feed;
use crate::usage::{BatchName, FoldError};
use crate::web::problem::Problem;

/// The most bytes of a body: as many of the longest entries as a worker sends, plus the denials.
const MAX_BODY_BYTES: usize = 512 << 10;

/// The response: the batch is on disk.
#[derive(Serialize)]
struct BatchReceipt {
    sequence: u64,
}

pub(crate) async fn usage(State(feed): State<Feed>, request: Request) -> Result<Response, Problem> {
    let (request, body) = request.into_parts();
    let access = feed.access(&request)?;
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| Problem::too_large(MAX_BODY_BYTES))?;
    let (edge, batch) = read(&bytes, feed.clock.now())?;
    drop(bytes);
    let BatchName { instance, sequence, .. } = batch.name.clone();
    let refused = |problem: Problem| {
        // Nothing of the body is logged except names that have the right form.
        tracing::warn!(edge.id = edge, instance, code = problem.code(), "usage was refused");
        problem
    };
    access.covers(&edge).map_err(refused)?;
    feed.check_not_revoked(&access).map_err(|revoked| refused(feed.bad_token(revoked.address)))?;
    feed.edges.check_edge(&instance, &edge).map_err(|error| refused(error.into()))?;
    feed.usage.fold(batch).await.map_err(|error| refused(error.into()))?;
    Ok(Json(BatchReceipt { sequence }).into_response())
}

impl From<FoldError> for Problem {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Full => Self::too_much_usage(),
            FoldError::SequenceTooHigh { most } => Self::bad_usage(format!(
                "`sequence` goes on from the worker's last batch, and may be at most {most} now"
            )),
            FoldError::Store(error) => error.into(),
        }
    }
}
