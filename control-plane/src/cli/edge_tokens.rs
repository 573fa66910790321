//! `latchkey edge-tokens`: the tokens that edges present to the feed.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Call;
use super::connection::{RemoteOptions, Session};
use super::failure::Outcome;
use super::json::part;
use super::new_secret;
use super::output::{card, field, print, print_json, table};
use super::pagination;

/// The options of `latchkey edge-tokens`.
#[derive(Args)]
pub(super) struct EdgeTokensOptions {
    #[command(flatten)]
    remote: RemoteOptions,

    #[command(subcommand)]
    command: EdgeTokensCommand,
}

#[derive(Subcommand)]
enum EdgeTokensCommand {
    /// Lists the edge tokens, oldest first.
    List,

    /// Creates an edge token and prints it to standard output, only this once. It is valid immediately, without a
    /// restart.
    Create {
        /// Its name, for people.
        name: String,

        /// The only edge that may use it: `edge` in the filter's configuration.
        #[arg(long)]
        edge: String,
    },

    /// Shows an edge token.
    Show {
        /// Its id, edt_….
        token: String,
    },

    /// Revokes an edge token, permanently and immediately.
    ///
    /// An edge without another token is cut off: it serves its last table until its own staleness bound.
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
            let answer = session.client.send(Call::post_idempotent(&PATH, json!({"name": name, "edge": edge}))?)?;
            new_secret::print(&session, &answer.body, &token_card(part(&answer.body, &["token"])))?;
        }
        EdgeTokensCommand::Show { token } => {
            let answer = session.client.send(Call::get(&[PATH[0], PATH[1], token]))?;
            if session.json { print_json(&answer.body)? } else { print(&token_card(&answer.body))? }
        }
        EdgeTokensCommand::Revoke { token } => {
            session.client.send(Call::delete(&[PATH[0], PATH[1], token]))?;
            if !session.json {
                print(&format!("revoked {token}\n"))?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn list(session: &Session) -> anyhow::Result<()> {
    let items = pagination::fetch_all(&session.client, None, || Call::get(&PATH))?;
    if session.json {
        return print_json(&items.into());
    }
    let columns = ["id", "name", "edge", "last_characters", "last_used_at", "created_at"];
    let rows: Vec<_> = items.iter().map(|item| columns.map(|name| field(item, name)).to_vec()).collect();
    print(&table(&["id", "name", "edge", "ends in", "last used", "created"], &rows))
}

fn token_card(token: &Value) -> String {
    let names = ["id", "name", "edge", "last_characters", "created_at", "created_by", "last_used_at", "revision"];
    card(&names.map(|name| (name, field(token, name))))
}
