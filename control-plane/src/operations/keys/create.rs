//! Creates a key.

use policy::key_text::Kind;
use policy::{Allowlist, Environment, Scopes};

use crate::operations::expiration::Expiration;
use crate::operations::field_types::Name;
use crate::operations::principal::InWorkspace;
use crate::operations::request::request_body;
use crate::operations::{OperationError, Operations, Resource, WithSecret};
use crate::store::{Key, Metadata, NewKey, NewSecret};

request_body! {
    /// A key to create. One of `expires_in` and `expires_at` is required.
    pub(crate) struct CreateKey {
        pub(crate) name: Name,
        pub(crate) expiration: Expiration,
        /// Scopes of the operator's catalogue; none by default.
        pub(crate) scopes: Option<Scopes>,
        /// Addresses and CIDR ranges that the key may be used from; `null`, the default, is any.
        pub(crate) ip_allowlist: Option<Allowlist>,
        /// One of the operator's; the first by default. The secret's text contains it.
        pub(crate) environment: Option<Environment>,
        /// At most 4 KiB as JSON.
        pub(crate) metadata: Option<Metadata>,
    }
}

impl Operations<'_> {
    /// Creates a key with a new secret.
    pub(crate) async fn create_key(
        &self,
        at: &InWorkspace,
        request: CreateKey,
    ) -> Result<WithSecret<Key>, OperationError> {
        let CreateKey { name: Name(name), expiration, scopes, ip_allowlist, environment, metadata } = request;
        let environment = environment.unwrap_or_else(|| self.config.first_environment());
        let secret = self.entropy.secret(&Kind::Key(environment.clone()))?;
        let new = NewKey {
            id: self.entropy.id(self.clock)?,
            name,
            environment,
            scopes: scopes.unwrap_or_default(),
            allowlist: ip_allowlist.unwrap_or_default(),
            expires_at: expiration.0,
            metadata: metadata.unwrap_or_default(),
            active: true,
            secret: NewSecret::from(&secret),
        };
        let changed = self.store.create_key(at.workspace.id, new, at.principal.change_context(self.clock)).await;
        Ok(WithSecret { changed: changed.map_err(OperationError::about(Resource::Workspace))?, secret })
    }
}
