//! Problems of limits in the operator's file.

use crate::base::limit::Limit;
use axum::http::{StatusCode, header};
use policy::protocol::timing::CROWDED_RETRY_AFTER_SECS;

use super::Problem;

impl Problem {
    /// 422: a workspace has reached a limit.
    pub fn limit_of_workspace(limit: Limit) -> Self {
        let Limit { name, maximum } = limit;
        let detail = format!(
            "nothing was changed: the workspace would exceed `{name}`, which is {maximum}; delete keys that are no \
             longer used, shorten allowlists, or have an operator raise it under `[limits]`"
        );
        Self::limit_reached(StatusCode::UNPROCESSABLE_ENTITY, limit, detail)
    }

    /// 503: the maximum number of connections is open. This one is closed.
    pub fn too_many_connections(limit: Limit) -> Self {
        let Limit { name, maximum } = limit;
        let detail = match name {
            "connections_per_address" => format!(
                "an address may have {maximum} connections without a valid token; send one with the first request, \
                 close connections that are not needed, or raise `{name}`"
            ),
            _ => format!(
                "all {maximum} connections are in use; try again later, or spread clients over more control planes"
            ),
        };
        Self::limit_reached(StatusCode::SERVICE_UNAVAILABLE, limit, detail)
            .with_header(header::RETRY_AFTER, &CROWDED_RETRY_AFTER_SECS.to_string())
    }
}
