//! `/console`: redirects to the principal's workspace, or to the list of workspaces.

use axum::response::Response;

use super::page::see_other;
use super::session::Visit;
use crate::problem::Problem;

pub(super) async fn show(visit: Visit) -> Result<Response, Problem> {
    match visit.own {
        Some(workspace) => see_other(&format!("/console/workspaces/{}/keys", workspace.slug)),
        None => see_other("/console/workspaces"),
    }
}
