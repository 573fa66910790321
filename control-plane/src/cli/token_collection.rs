//! A collection of tokens of one kind, admin tokens or edge tokens: what the commands for either do.

use serde_json::Value;

use super::client::Call;
use super::connection::Session;
use super::json::part;
use super::new_secret;
use super::output::{Column, field_card, field_table};
use super::pagination;

/// Where REST has the tokens, and what people see of them.
pub(super) struct TokenCollection {
    /// The last segment of the collection's path.
    pub(super) name: &'static str,
    /// The columns of the list.
    pub(super) columns: &'static [Column],
    /// The fields of one token.
    pub(super) fields: &'static [&'static str],
}

impl TokenCollection {
    pub(super) fn list(&self, session: &Session) -> anyhow::Result<()> {
        let tokens = pagination::fetch_all(&session.client, None, || Call::get(&["v1", self.name]))?;
        session.print(&tokens.into(), |tokens| field_table(self.columns, tokens))
    }

    /// Creates a token, and prints its secret.
    pub(super) fn create(&self, session: &Session, body: Value) -> anyhow::Result<()> {
        let answer = session.client.send(Call::post_idempotent(&["v1", self.name], body)?)?;
        new_secret::print(session, &answer.body, &field_card(self.fields, part(&answer.body, &["token"])))
    }

    pub(super) fn show(&self, session: &Session, id: &str) -> anyhow::Result<()> {
        let token = session.client.send(Call::get(&["v1", self.name, id]))?.body;
        session.print(&token, |token| field_card(self.fields, token))
    }

    pub(super) fn revoke(&self, session: &Session, id: &str) -> anyhow::Result<()> {
        session.client.send(Call::delete(&["v1", self.name, id]))?;
        session.print_done(&format!("revoked {id}"))
    }
}
