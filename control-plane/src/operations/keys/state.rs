//! Changes of a key's state: activate, deactivate, end an overlap, delete. The first three are idempotent.

use policy::KeyId;

use crate::operations::principal::InWorkspace;
use crate::operations::{OperationError, Operations, Resource};
use crate::store::{AtRevision, Key, Precondition};

/// A change that needs no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyAction {
    Activate,
    /// Until it is activated again.
    Deactivate,
    /// The previous secret stops working.
    EndOverlap,
}

impl Operations<'_> {
    /// Changes a key's state.
    pub(crate) async fn change_key(
        &self,
        at: &InWorkspace,
        id: KeyId,
        precondition: Precondition,
        action: KeyAction,
    ) -> Result<AtRevision<Key>, OperationError> {
        let (workspace, context) = (at.workspace.id, at.principal.change_context(self.clock));
        let changed = match action {
            KeyAction::Activate => self.store.activate_key(workspace, id, precondition, context).await,
            KeyAction::Deactivate => self.store.deactivate_key(workspace, id, precondition, context).await,
            KeyAction::EndOverlap => self.store.end_overlap(workspace, id, precondition, context).await,
        };
        changed.map_err(OperationError::about(Resource::Key))
    }

    /// Deletes a key permanently.
    pub(crate) async fn delete_key(
        &self,
        at: &InWorkspace,
        id: KeyId,
        precondition: Precondition,
    ) -> Result<AtRevision<()>, OperationError> {
        let context = at.principal.change_context(self.clock);
        let deleted = self.store.delete_key(at.workspace.id, id, precondition, context).await;
        deleted.map_err(OperationError::about(Resource::Key))
    }
}
