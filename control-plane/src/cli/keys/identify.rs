//! `latchkey keys identify`: which key or token a secret belongs to.

use serde_json::json;

use crate::cli::client::Call;
use crate::cli::connection::Session;
use crate::cli::failure::Outcome;
use crate::cli::output::{NO_VALUE, card, fields};
use crate::cli::secret_input;

pub(super) fn run(session: &Session) -> anyhow::Result<Outcome> {
    let secret = secret_input::read_secret("secret to identify")?;
    let answer = session.client.send(Call::post(&["v1", "keys", "identify"], json!({"secret": secret.expose()})))?;
    let names = [
        "kind",
        "status",
        "name",
        "workspace_id",
        "key_id",
        "key_status",
        "token_id",
        "role",
        "edge",
        "last_characters",
        "created_at",
        "ended_at",
    ];
    session.print(&answer.body, |found| {
        card(&fields(&names, found).into_iter().filter(|(_, value)| value != NO_VALUE).collect::<Vec<_>>())
    })?;
    Ok(Outcome::Done)
}
