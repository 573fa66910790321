//! Edge tokens: create, show and revoke.

use policy::EdgeTokenId;
use policy::key_text::Kind;

use super::cursor::{CursorPage, page_fields};
use super::field_types::{EdgeName, Name};
use super::fields::Fields;
use super::principal::Principal;
use super::request::request_body;
use super::{OperationError, Operations, Resource, WithSecret};
use crate::store::{AtRevision, EdgeToken, NewEdgeToken, NewSecret, Precondition, TokenQuery};

request_body! {
    /// An edge token to create.
    pub(crate) struct CreateEdgeToken {
        pub(crate) name: Name,
        pub(crate) edge: EdgeName,
    }
}

impl Operations<'_> {
    /// Creates a token for the feed.
    pub(crate) async fn create_edge_token(
        &self,
        principal: &Principal,
        request: CreateEdgeToken,
    ) -> Result<WithSecret<EdgeToken>, OperationError> {
        let CreateEdgeToken { name: Name(name), edge: EdgeName(edge) } = request;
        let secret = self.entropy.secret(&Kind::EdgeToken)?;
        let new = NewEdgeToken { id: self.entropy.id(self.clock)?, name, edge, secret: NewSecret::from(&secret) };
        let changed = self.store.create_edge_token(new, principal.change_context(self.clock)).await?;
        Ok(WithSecret { changed, secret })
    }

    /// Lists the tokens, oldest first.
    pub(crate) async fn list_edge_tokens(&self, fields: Fields) -> Result<CursorPage<EdgeToken>, OperationError> {
        let (limit, after) = page_fields(fields)?;
        let page = self.store.list_edge_tokens(TokenQuery { limit, after }).await?;
        Ok(CursorPage::new(page, |token| token.id))
    }

    /// Shows a token.
    pub(crate) async fn edge_token(&self, id: EdgeTokenId) -> Result<EdgeToken, OperationError> {
        self.store.edge_token(id).await.map_err(OperationError::about(Resource::Token))
    }

    /// Revokes a token permanently.
    pub(crate) async fn revoke_edge_token(
        &self,
        principal: &Principal,
        id: EdgeTokenId,
        precondition: Precondition,
    ) -> Result<AtRevision<()>, OperationError> {
        let context = principal.change_context(self.clock);
        let revoked = self.store.revoke_edge_token(id, precondition, context).await;
        revoked.map_err(OperationError::about(Resource::Token))
    }
}
