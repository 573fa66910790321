//! `/v1/workspaces`: the tenants.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{Revision, UnixSeconds, WorkspaceId};
use serde::Serialize;
use utoipa::ToSchema;

use super::authority::{AdminOf, InWorkspace, MemberOf, PlatformAdmin};
use super::fields::{Fields, QueryFields};
use super::idempotency::{self, IdempotencyKey};
use super::precondition::IfMatch;
use super::principal::Principal;
use super::requests::{CreateWorkspace, UpdateWorkspace};
use super::response::{PageBody, changed_resource, ok_json, resource};
use super::{Api, cursor, values};
use crate::base::instant;
use crate::store::{
    AtRevision, NewWorkspace, OnceResult, Precondition, StoreError, Workspace, WorkspaceName, WorkspaceQuery,
};
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
    request_body = CreateWorkspace,
    responses((status = 201, description = "The workspace", body = WorkspaceBody))
)]
pub(super) async fn create(
    State(api): State<Api>,
    PlatformAdmin(principal): PlatformAdmin,
    key: IdempotencyKey,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let principal = principal.once(once);
    let run = async {
        let made = create_workspace(&api, &principal, fields).await?;
        changed_resource(StatusCode::CREATED, &WorkspaceBody::from(made.value), made.revision)
    };
    idempotency::run_once(&api, once, run, |made| replay(&api, made)).await
}

/// The response to a retry: the workspace as it is now.
async fn replay(api: &Api, made: OnceResult) -> Result<Response, Problem> {
    let id = made.ids.first().and_then(|id| id.parse().ok()).ok_or_else(Problem::unknown_workspace)?;
    let found = api.store.workspace(WorkspaceName::Id(id)).await;
    let workspace = found.map_err(|error| match error {
        StoreError::NotFound => Problem::unknown_workspace(),
        other => other.into(),
    })?;
    let revision = workspace.revision;
    changed_resource(StatusCode::CREATED, &WorkspaceBody::from(workspace), revision)
}

/// Creates the workspace that the fields describe.
pub(crate) async fn create_workspace(
    api: &Api,
    principal: &Principal,
    mut fields: Fields,
) -> Result<AtRevision<Workspace>, Problem> {
    let (name, slug) = (fields.required("name", values::name), fields.required("slug", values::slug));
    let (name, slug) = fields.finish(|| name.zip(slug))?;
    let new = NewWorkspace { id: api.entropy.id(&api.clock)?, slug, name };
    Ok(api.store.create_workspace(new, principal.change_context(&api.clock)).await?)
}

/// Lists the workspaces that the token may see, oldest first.
#[utoipa::path(
    get,
    path = "/workspaces",
    operation_id = "list_workspaces",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page; 50 by default", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page"),
    ),
    responses((status = 200, description = "A page", body = PageBody<WorkspaceBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    principal: Principal,
    QueryFields(mut fields): QueryFields,
) -> Result<Response, Problem> {
    let limit = fields.optional("limit", values::limit);
    let after = fields.optional("cursor", |value| cursor::decode::<WorkspaceId>(&values::string(value)?));
    let limit = fields.finish(|| Some(limit.unwrap_or(values::DEFAULT_LIMIT)))?;
    let page = api.store.list_workspaces(WorkspaceQuery { limit, after, within: principal.reach() }).await?;
    let next_cursor = page.items.last().filter(|_| page.more).map(|last| cursor::encode(&last.id));
    ok_json(&PageBody { items: page.items.into_iter().map(WorkspaceBody::from).collect(), next_cursor })
}

/// Shows a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{workspace}",
    operation_id = "get_workspace",
    responses((status = 200, description = "The workspace", body = WorkspaceBody))
)]
pub(super) async fn show(MemberOf(at): MemberOf) -> Result<Response, Problem> {
    let revision = at.workspace.revision;
    resource(&WorkspaceBody::from(at.workspace), revision)
}

/// Renames a workspace.
#[utoipa::path(
    patch,
    path = "/workspaces/{workspace}",
    operation_id = "update_workspace",
    request_body = UpdateWorkspace,
    responses((status = 200, description = "The workspace", body = WorkspaceBody))
)]
pub(super) async fn update(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    IfMatch(precondition): IfMatch,
    fields: Fields,
) -> Result<Response, Problem> {
    let renamed = rename(&api, &at, precondition, fields).await?;
    changed_resource(StatusCode::OK, &WorkspaceBody::from(renamed.value), renamed.revision)
}

/// Renames a workspace as the fields request.
pub(crate) async fn rename(
    api: &Api,
    at: &InWorkspace,
    precondition: Precondition,
    mut fields: Fields,
) -> Result<AtRevision<Workspace>, Problem> {
    let name = fields.optional("name", values::name);
    let name = fields.finish(|| Some(name))?;
    let context = at.principal.change_context(&api.clock);
    Ok(api.store.rename_workspace(at.workspace.id, name, precondition, context).await?)
}
