//! `latchkey edge-tokens`: the tokens that edges present to the feed.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Call;
use super::connection::{Remote, Session};
use super::failure::Outcome;
use super::json::part;
use super::made;
use super::output::{card, field, say, say_json, table};
use super::pages;

/// What `latchkey edge-tokens` is told.
#[derive(Args)]
pub struct EdgeTokensOptions {
    #[command(flatten)]
    remote: Remote,

    #[command(subcommand)]
    command: EdgeTokensCommand,
}

#[derive(Subcommand)]
enum EdgeTokensCommand {
    /// Lists the edge tokens, oldest first.
    List,

    /// Makes an edge token, and writes its text to standard output: this once. It works at once, without a restart.
    Create {
        /// Its name, for people.
        name: String,

        /// The edge that it serves, and no other: `edge` in the filter's configuration.
        #[arg(long)]
        edge: String,
    },

    /// Shows an edge token.
    Show {
        /// Its id, edt_….
        token: String,
    },

    /// Revokes an edge token, for good and at once.
    ///
    /// An edge that has no other one is cut off: it serves its last table until its own staleness bound.
    Revoke {
        /// Its id, edt_….
        token: String,
    },
}

const PATH: [&str; 2] = ["v1", "edge-tokens"];

pub(super) fn run_edge_tokens(options: &EdgeTokensOptions) -> anyhow::Result<Outcome> {
    let session = options.remote.session()?;
    match &options.command {
        EdgeTokensCommand::List => list(&session)?,
        EdgeTokensCommand::Create { name, edge } => {
            let answer = session.client.send(Call::make(&PATH, json!({"name": name, "edge": edge}))?)?;
            made::tell(&session, &answer.body, &token_card(part(&answer.body, &["token"])))?;
        }
        EdgeTokensCommand::Show { token } => {
            let answer = session.client.send(Call::get(&[PATH[0], PATH[1], token]))?;
            if session.json { say_json(&answer.body)? } else { say(&token_card(&answer.body))? }
        }
        EdgeTokensCommand::Revoke { token } => {
            session.client.send(Call::delete(&[PATH[0], PATH[1], token]))?;
            if !session.json {
                say(&format!("revoked {token}\n"))?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn list(session: &Session) -> anyhow::Result<()> {
    let items = pages::all(&session.client, None, || Call::get(&PATH))?;
    if session.json {
        return say_json(&items.into());
    }
    let columns = ["id", "name", "edge", "last_characters", "last_used_at", "created_at"];
    let rows: Vec<_> = items.iter().map(|item| columns.map(|name| field(item, name)).to_vec()).collect();
    say(&table(&["id", "name", "edge", "ends in", "last used", "created"], &rows))
}

fn token_card(token: &Value) -> String {
    let names = ["id", "name", "edge", "last_characters", "created_at", "created_by", "last_used_at", "revision"];
    card(&names.map(|name| (name, field(token, name))))
}
