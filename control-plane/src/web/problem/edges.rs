//! Problems of the feed, and of the instances that use it.

use crate::base::limit::Limit;
use axum::http::{HeaderName, StatusCode, header};
use policy::Revision;
use policy::protocol::MISSING_WORKER_HEADER;

use super::Problem;

impl Problem {
    /// 403: an edge token of another edge.
    pub fn wrong_edge(own: &str) -> Self {
        let detail = format!("this token is for the edge `{own}`; use that name, or a token of this edge");
        Self::new(StatusCode::FORBIDDEN, "wrong-edge", detail)
    }

    /// 403: the instance began in the name of another edge.
    pub fn foreign_instance() -> Self {
        let detail = "this instance belongs to the edge whose name it used first; take a new id for another edge";
        Self::new(StatusCode::FORBIDDEN, "foreign-instance", detail)
    }

    pub fn unknown_instance() -> Self {
        let detail = "no instance has this id; an instance is listed from its first feed request until it is gone";
        Self::new(StatusCode::NOT_FOUND, "unknown-instance", detail)
    }

    /// 409: an operator removes an instance that sent a request a moment ago.
    pub fn edge_connected() -> Self {
        let detail =
            "this instance sent a request less than 30 s ago; end its process or revoke its token, and try again";
        Self::new(StatusCode::CONFLICT, "edge-connected", detail)
    }

    /// 409: an acknowledgement of another history.
    pub fn unknown_epoch() -> Self {
        let detail = "this is not the control plane's epoch; request the feed again";
        Self::new(StatusCode::CONFLICT, "unknown-epoch", detail)
    }

    /// 409: an acknowledgement of a revision that doesn't exist yet.
    pub fn revision_ahead(revision: Revision) -> Self {
        let detail = format!("revision {revision} is past the head; request the feed again");
        Self::new(StatusCode::CONFLICT, "revision-ahead", detail)
    }

    /// 409: an acknowledgement that leaves out a worker. A header has its id, too.
    pub fn missing_worker(id: &str) -> Self {
        let detail = format!("worker `{id}` is not in the list; list all workers, those that are gone as `ended`");
        Self::new(StatusCode::CONFLICT, "missing-worker", detail)
            .with_header(HeaderName::from_static(MISSING_WORKER_HEADER), id)
    }

    /// 410: an instance that has retired or was removed.
    pub fn retired_instance() -> Self {
        let detail = "this instance has retired, its token was revoked, or an operator removed it; take a new id, and \
                      request the feed again";
        Self::new(StatusCode::GONE, "retired-instance", detail)
    }

    /// 422: an acknowledgement that can't be read.
    pub fn bad_acknowledgement(cause: impl Into<String>) -> Self {
        let detail = format!("the acknowledgement is refused: {}", cause.into());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-acknowledgement", detail)
    }

    /// 422: a report of usage that can't be read.
    pub fn bad_usage(cause: impl Into<String>) -> Self {
        let detail = format!("the usage report is refused: {}", cause.into());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-usage", detail)
    }

    /// 503: usage waits for the disk, and the queue is full.
    pub fn too_much_usage() -> Self {
        let detail = "too much usage is pending; send this batch again later, with the same sequence";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-much-usage", detail).with_header(header::RETRY_AFTER, "10")
    }

    /// 429: too many instances of one edge token.
    pub fn too_many_instances(limit: Limit) -> Self {
        let Limit { name, maximum } = limit;
        let detail = format!(
            "an edge token may have {maximum} connected instances, and four times as many disconnected ones; remove the \
             dead ones with DELETE /v1/edges?edge=NAME, use a token for each edge, or raise `{name}`"
        );
        Self::limit_reached(StatusCode::TOO_MANY_REQUESTS, limit, detail).with_header(header::RETRY_AFTER, "60")
    }

    /// 422: too many workers of one instance.
    pub fn too_many_workers(limit: Limit) -> Self {
        let Limit { name, maximum } = limit;
        let detail = format!("an instance may have {maximum} workers; raise `{name}` if this Envoy has more threads");
        Self::limit_reached(StatusCode::UNPROCESSABLE_ENTITY, limit, detail)
    }

    /// 406: an edge requested a wire format that this control plane doesn't write.
    pub fn unknown_format(written: u16) -> Self {
        let detail = format!("this control plane writes format {written}; start the edge with a filter that reads it");
        Self::new(StatusCode::NOT_ACCEPTABLE, "unknown-format", detail)
    }

    /// 410: the snapshot is no longer kept.
    pub fn snapshot_gone() -> Self {
        let detail = "this snapshot is gone; request the feed again";
        Self::new(StatusCode::GONE, "snapshot-gone", detail)
    }
}
