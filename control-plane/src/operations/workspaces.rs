//! Workspaces: create and rename.

use super::cursor::{CursorPage, page_fields};
use super::field_types::{Name, Slug};
use super::fields::Fields;
use super::principal::{InWorkspace, Principal};
use super::request::request_body;
use super::{OperationError, Operations, Resource};
use crate::store::{AtRevision, NewWorkspace, Precondition, Workspace, WorkspaceQuery};

request_body! {
    /// A workspace to create.
    pub(crate) struct CreateWorkspace {
        pub(crate) name: Name,
        pub(crate) slug: Slug,
    }
}

request_body! {
    /// What to replace in a workspace.
    pub(crate) struct UpdateWorkspace {
        pub(crate) name: Option<Name>,
    }
}

impl Operations<'_> {
    /// Creates a workspace.
    pub(crate) async fn create_workspace(
        &self,
        principal: &Principal,
        request: CreateWorkspace,
    ) -> Result<AtRevision<Workspace>, OperationError> {
        let CreateWorkspace { name: Name(name), slug: Slug(slug) } = request;
        let new = NewWorkspace { id: self.entropy.id(self.clock)?, slug, name };
        Ok(self.store.create_workspace(new, principal.change_context(self.clock)).await?)
    }

    /// Lists the workspaces within the principal's reach, oldest first.
    pub(crate) async fn list_workspaces(
        &self,
        principal: &Principal,
        fields: Fields,
    ) -> Result<CursorPage<Workspace>, OperationError> {
        let (limit, after) = page_fields(fields)?;
        let page = self.store.list_workspaces(WorkspaceQuery { limit, after, within: principal.reach() }).await?;
        Ok(CursorPage::new(page, |workspace| workspace.id))
    }

    /// Replaces what the request has.
    pub(crate) async fn update_workspace(
        &self,
        at: &InWorkspace,
        precondition: Precondition,
        request: UpdateWorkspace,
    ) -> Result<AtRevision<Workspace>, OperationError> {
        let context = at.principal.change_context(self.clock);
        let name = request.name.map(|Name(name)| name);
        let renamed = self.store.rename_workspace(at.workspace.id, name, precondition, context).await;
        renamed.map_err(OperationError::about(Resource::Workspace))
    }
}
