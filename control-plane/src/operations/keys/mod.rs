//! Keys: a file for each operation.

pub(crate) mod clean_up;
pub(crate) mod create;
pub(crate) mod filter;
pub(crate) mod list;
pub(crate) mod rotate;
pub(crate) mod state;
pub(crate) mod update;

use policy::KeyId;

use super::choice::choice;
use super::principal::InWorkspace;
use super::{OperationError, Operations, Resource};
use crate::store::{Key, Status, Usage};

choice!(
    "Whether a key can be used.",
    Status as "KeyStatus",
    "unknown-status",
    Self::Active => "active",
    Self::Inactive => "inactive",
    Self::Expired => "expired",
);

impl Operations<'_> {
    /// Shows a key.
    pub(crate) async fn key(&self, at: &InWorkspace, id: KeyId) -> Result<Key, OperationError> {
        self.store.key(at.workspace.id, id).await.map_err(OperationError::about(Resource::Key))
    }

    /// Shows how often a key was used and denied, and why.
    pub(crate) async fn key_usage(&self, at: &InWorkspace, id: KeyId) -> Result<Usage, OperationError> {
        let usage = self.store.usage(at.workspace.id, id, self.clock.now()).await;
        usage.map_err(OperationError::about(Resource::Key))
    }
}
