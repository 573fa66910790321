//! `/console`: redirects to the principal's workspace, or to the list of workspaces.

use axum::response::Response;

use super::page::see_other;
use super::session::ConsoleSession;
use crate::web::problem::Problem;

pub(super) async fn show(session: ConsoleSession) -> Result<Response, Problem> {
    match session.workspace {
        Some(workspace) => see_other(&format!("/console/workspaces/{}/keys", workspace.slug)),
        None => see_other("/console/workspaces"),
    }
}
