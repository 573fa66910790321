//! `latchkey keys identify`: which key or token a secret belongs to.

use serde_json::json;

use crate::cli::client::Call;
use crate::cli::connection::Session;
use crate::cli::failure::Outcome;
use crate::cli::output::{card, field, print, print_json};
use crate::cli::secret_input;

pub(super) fn run(session: &Session) -> anyhow::Result<Outcome> {
    let secret = secret_input::read_secret("secret to identify")?;
    let answer = session.client.send(Call::post(&["v1", "keys", "identify"], json!({"secret": secret.expose()})))?;
    if session.json {
        print_json(&answer.body)?;
        return Ok(Outcome::Done);
    }
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
    let fields: Vec<_> = names.iter().map(|name| (*name, field(&answer.body, name))).collect();
    print(&card(&fields.into_iter().filter(|(_, value)| value != "-").collect::<Vec<_>>()))?;
    Ok(Outcome::Done)
}
