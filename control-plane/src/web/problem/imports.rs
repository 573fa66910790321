//! Problems of imports: limits that they share, and the disk that stores their bodies.

use crate::base::limit::Limit;
use axum::http::{StatusCode, header};

use super::Problem;

/// The value of `Retry-After`: an import takes some seconds.
const RETRY_SECS: &str = "10";

impl Problem {
    /// 429: the maximum number of imports is running.
    pub fn too_many_imports(limit: Limit) -> Self {
        let Limit { name, maximum } = limit;
        let detail = match (name, maximum) {
            ("imports_per_workspace", 1) => format!(
                "another import into this workspace is running, and nothing of this one was imported; send it again \
                 when the other is done, or have an operator raise `{name}`"
            ),
            ("imports_per_workspace", _) => format!(
                "{maximum} imports into this workspace are running, and nothing of this one was imported; send it again \
                 when one of them is done, or have an operator raise `{name}`"
            ),
            _ => format!(
                "the maximum number of imports ({maximum}) is running, and nothing of this one was imported; send it \
                 again when one of them is done, or have an operator raise `{name}`"
            ),
        };
        Self::limit_reached(StatusCode::TOO_MANY_REQUESTS, limit, detail).with_header(header::RETRY_AFTER, RETRY_SECS)
    }

    /// 429: the stored bodies of imports have reached their limit.
    pub fn too_many_bodies(limit: Limit) -> Self {
        let detail = format!(
            "stored bodies of imports use all {} bytes of their limit, and nothing of this one was imported; send it \
             again later, and send fewer imports at a time",
            limit.maximum
        );
        Self::limit_reached(StatusCode::TOO_MANY_REQUESTS, limit, detail).with_header(header::RETRY_AFTER, RETRY_SECS)
    }

    /// 503: the body of an import can't be stored. The cause is in the log.
    pub fn spool_unwritable() -> Self {
        let detail = "the body can't be stored, and nothing of it was imported; have an operator free disk space, as \
                      the control plane's log states, or send fewer lines at a time";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage-unavailable", detail)
            .with_header(header::RETRY_AFTER, RETRY_SECS)
    }

    /// 503: the body of an import was stored, and can't be read. The cause is in the log.
    pub fn spool_unreadable() -> Self {
        let detail = "the stored body can't be read from the disk, and nothing of it was imported; try again, and see \
                      the control plane's log for the cause";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage-unavailable", detail)
            .with_header(header::RETRY_AFTER, RETRY_SECS)
    }
}
