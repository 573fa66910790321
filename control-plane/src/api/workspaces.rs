//! `/v1/workspaces`: the tenants.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{Revision, UnixSeconds, WorkspaceId};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::authority::{Anywhere, Platform, Within};
use super::idempotency::{self, IdempotencyKey};
use super::precondition::IfMatch;
use super::query::{PageParams, QueryFields};
use super::response::{PageBody, changed_resource, ok_json, resource};
use crate::base::instant;
use crate::operations::cursor::CursorPage;
use crate::operations::fields::Fields;
use crate::operations::permissions::may;
use crate::operations::request::RequestBody as _;
use crate::operations::workspaces::{CreateWorkspace, UpdateWorkspace};
use crate::operations::{OperationError, Resource};
use crate::store::{OnceResult, Workspace, WorkspaceName};
use crate::web::problem::Problem;

#[derive(Serialize, ToSchema)]
#[schema(as = Workspace)]
struct WorkspaceBody {
    #[schema(value_type = String)]
    id: WorkspaceId,
    name: String,
    slug: String,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    created_at: UnixSeconds,
    created_by: String,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: UnixSeconds,
    #[schema(value_type = u64)]
    revision: Revision,
}

impl From<Workspace> for WorkspaceBody {
    fn from(workspace: Workspace) -> Self {
        let Workspace { id, slug, name, created_at, created_by, updated_at, revision } = workspace;
        Self { id, name, slug, created_at, created_by, updated_at, revision }
    }
}

/// Creates a workspace.
#[utoipa::path(
    post,
    path = "/workspaces",
    operation_id = "create_workspace",
    params(IdempotencyKey),
    request_body = CreateWorkspace,
    responses((status = 201, description = "The workspace", body = WorkspaceBody))
)]
pub(super) async fn create(
    State(api): State<Api>,
    Platform(principal, ..): Platform<may::CreateWorkspaces>,
    key: IdempotencyKey,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let principal = principal.once(once);
    let run = async {
        let operations = api.operations();
        let request = CreateWorkspace::parse(fields, &operations.context(&principal))?;
        let made = operations.create_workspace(&principal, request).await?;
        changed_resource(StatusCode::CREATED, &WorkspaceBody::from(made.value), made.revision)
    };
    idempotency::run_once(&api, once, run, |made| replay(&api, made)).await
}

/// The response to a retry: the workspace as it is now.
async fn replay(api: &Api, made: OnceResult) -> Result<Response, Problem> {
    let id = made.ids.first().and_then(|id| id.parse().ok()).ok_or_else(Problem::unknown_workspace)?;
    let found = api.store.workspace(WorkspaceName::Id(id)).await;
    let workspace = found.map_err(OperationError::about(Resource::Workspace))?;
    let revision = workspace.revision;
    changed_resource(StatusCode::CREATED, &WorkspaceBody::from(workspace), revision)
}

/// Lists the workspaces that the token may see, oldest first.
#[utoipa::path(
    get,
    path = "/workspaces",
    operation_id = "list_workspaces",
    params(PageParams),
    responses((status = 200, description = "A page", body = PageBody<WorkspaceBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::ReadKeys>,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    let CursorPage { items, next_cursor } = api.operations().list_workspaces(&principal, fields).await?;
    ok_json(&PageBody { items: items.into_iter().map(WorkspaceBody::from).collect(), next_cursor })
}

/// Shows a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{workspace}",
    operation_id = "get_workspace",
    responses((status = 200, description = "The workspace", body = WorkspaceBody))
)]
pub(super) async fn show(Within(at, ..): Within<may::ReadKeys>) -> Result<Response, Problem> {
    let revision = at.workspace.revision;
    resource(&WorkspaceBody::from(at.workspace), revision)
}

/// Renames a workspace.
#[utoipa::path(
    patch,
    path = "/workspaces/{workspace}",
    operation_id = "update_workspace",
    params(IfMatch),
    request_body = UpdateWorkspace,
    responses((status = 200, description = "The workspace", body = WorkspaceBody))
)]
pub(super) async fn update(
    State(api): State<Api>,
    Within(at, ..): Within<may::RenameWorkspaces>,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    let operations = api.operations();
    let request = UpdateWorkspace::parse(fields, &operations.context_in(&at))?;
    let renamed = operations.update_workspace(&at, precondition, request).await?;
    changed_resource(StatusCode::OK, &WorkspaceBody::from(renamed.value), renamed.revision)
}
