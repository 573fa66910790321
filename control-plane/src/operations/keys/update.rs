//! Replaces fields of a key; metadata is merged.

use policy::{Allowlist, KeyId, Scopes};

use crate::operations::expiration::FixedExpiration;
use crate::operations::field_types::{MetadataPatch, Name};
use crate::operations::principal::InWorkspace;
use crate::operations::request::request_body;
use crate::operations::{OperationError, Operations, Resource};
use crate::store::{AtRevision, Key, KeyPatch, Precondition};

request_body! {
    /// What to replace in a key; `metadata` is merged (RFC 7396), and `null` empties it.
    pub(crate) struct UpdateKey {
        pub(crate) name: Option<Name>,
        pub(crate) scopes: Option<Scopes>,
        pub(crate) ip_allowlist: Option<Allowlist>,
        pub(crate) metadata: Option<MetadataPatch>,
        pub(crate) expiration: FixedExpiration,
    }
}

impl Operations<'_> {
    /// Replaces what the request has.
    pub(crate) async fn update_key(
        &self,
        at: &InWorkspace,
        id: KeyId,
        precondition: Precondition,
        request: UpdateKey,
    ) -> Result<AtRevision<Key>, OperationError> {
        let UpdateKey { name, scopes, ip_allowlist, metadata, expiration: FixedExpiration } = request;
        let patch = KeyPatch {
            name: name.map(|Name(name)| name),
            scopes,
            allowlist: ip_allowlist,
            metadata: metadata.map(|MetadataPatch(patch)| patch),
        };
        let context = at.principal.change_context(self.clock);
        let updated = self.store.update_key(at.workspace.id, id, patch, precondition, context).await;
        updated.map_err(OperationError::about(Resource::Key))
    }
}
