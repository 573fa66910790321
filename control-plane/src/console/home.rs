//! `/console`: redirects to the principal's workspace, or to the first page that it may see.

use axum::response::Response;

use super::page::{first_page, see_other};
use super::session::ConsoleSession;
use crate::operations::permissions::Permission;
use crate::web::problem::Problem;

pub(super) async fn show(session: ConsoleSession) -> Result<Response, Problem> {
    match session.workspace {
        Some(workspace) => see_other(&format!("/console/workspaces/{}/keys", workspace.slug)),
        None => match first_page(&session.principal) {
            Some(page) => see_other(page),
            // A role for scripts alone.
            None => Err(Problem::forbidden(Permission::ReadKeys.may())),
        },
    }
}
