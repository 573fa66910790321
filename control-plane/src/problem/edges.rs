//! What edges and their operators are refused.

use axum::http::{HeaderName, StatusCode, header};
use policy::Revision;
use policy::protocol::MISSING_WORKER_HEADER;

use super::{Limit, Problem};

impl Problem {
    /// 403: an edge token of another edge.
    pub fn wrong_edge(own: &str) -> Self {
        let detail = format!("this token is for the edge `{own}`; use that name, or a token of this edge");
        Self::new(StatusCode::FORBIDDEN, "wrong-edge", "The token is for another edge", detail)
    }

    /// 403: the instance began in the name of another edge.
    pub fn foreign_instance() -> Self {
        let detail = "this instance belongs to the edge whose name it first used; a process that changes its edge takes a new id";
        Self::new(StatusCode::FORBIDDEN, "foreign-instance", "The instance is another edge's", detail)
    }

    pub fn unknown_instance() -> Self {
        let detail = "no instance with this id is known; one is from its first feed request on, until it is gone";
        Self::new(StatusCode::NOT_FOUND, "unknown-instance", "There is no such instance", detail)
    }

    /// 409: an operator says that an instance is gone that was heard a moment ago.
    pub fn edge_connected() -> Self {
        let detail = "this instance was heard less than 30 s ago; end its process, or revoke its token, then try again";
        Self::new(StatusCode::CONFLICT, "edge-connected", "The instance is connected", detail)
    }

    /// 409: an acknowledgement of another history.
    pub fn unknown_epoch() -> Self {
        let detail = "this is not the control plane's epoch; ask the feed again";
        Self::new(StatusCode::CONFLICT, "unknown-epoch", "The epoch is not known here", detail)
    }

    /// 409: an acknowledgement of what isn't there.
    pub fn revision_ahead(revision: Revision) -> Self {
        let detail = format!("revision {revision} is past the head; ask the feed again");
        Self::new(StatusCode::CONFLICT, "revision-ahead", "The revision is not there yet", detail)
    }

    /// 409: an acknowledgement that leaves out a worker, whose id is a header, too.
    pub fn missing_worker(id: &str) -> Self {
        let detail =
            format!("worker `{id}` is known and not in the list; name all workers, those that are gone as `ended`");
        Self::new(StatusCode::CONFLICT, "missing-worker", "A worker is missing", detail)
            .with_header(HeaderName::from_static(MISSING_WORKER_HEADER), id)
    }

    /// 410: an instance that left.
    pub fn retired_instance() -> Self {
        let detail = "this instance has retired, its token was revoked, or an operator said that it is gone; take a new id, \
                      and ask the feed again";
        Self::new(StatusCode::GONE, "retired-instance", "The instance has left", detail)
    }

    /// 422: an acknowledgement that can't be read.
    pub fn bad_acknowledgement(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-acknowledgement", "The acknowledgement can't be read", detail)
    }

    /// 422: a report of usage that can't be read.
    pub fn bad_usage(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-usage", "The usage can't be read", detail)
    }

    /// 503: usage waits for the disk, and there is no room for more.
    pub fn too_much_usage() -> Self {
        let detail = "too much usage waits to be counted; send this batch again later, with the same sequence";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-much-usage", "Too much usage waits", detail)
            .with_header(header::RETRY_AFTER, "10")
    }

    /// 429: too many instances of one edge token.
    pub fn too_many_instances(limit: Limit) -> Self {
        let Limit { name, maximum } = limit;
        let detail = format!(
            "an edge token may have {maximum} connected instances, and four times as many that are silent; remove the dead ones \
             with DELETE /v1/edges?edge=NAME, use a token for each edge, or raise `{name}`"
        );
        Self::limit_reached(StatusCode::TOO_MANY_REQUESTS, limit, detail).with_header(header::RETRY_AFTER, "60")
    }

    /// 422: too many workers of one instance.
    pub fn too_many_workers(limit: Limit) -> Self {
        let Limit { name, maximum } = limit;
        let detail = format!("an instance may have {maximum} workers; raise `{name}` if this Envoy has more threads");
        Self::limit_reached(StatusCode::UNPROCESSABLE_ENTITY, limit, detail)
    }

    /// 406: an edge asked for a wire format that we don't write.
    pub fn unknown_format(written: u16) -> Self {
        let detail = format!("this control plane writes format {written}; start the edge with a filter that reads it");
        Self::new(StatusCode::NOT_ACCEPTABLE, "unknown-format", "The wire format is not known here", detail)
    }

    /// 410: the snapshot is no longer there.
    pub fn snapshot_gone() -> Self {
        let detail = "this snapshot is gone; ask the feed again";
        Self::new(StatusCode::GONE, "snapshot-gone", "The snapshot is gone", detail)
    }
}
