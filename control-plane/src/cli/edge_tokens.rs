//! `latchkey edge-tokens`: the tokens that edges present to the feed.

use clap::{Args, Subcommand};
use serde_json::json;

use super::connection::RemoteOptions;
use super::failure::Outcome;
use super::token_collection::TokenCollection;

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

const EDGE_TOKENS: TokenCollection = TokenCollection {
    name: "edge-tokens",
    columns: &[
        ("id", "id"),
        ("name", "name"),
        ("edge", "edge"),
        ("ends in", "last_characters"),
        ("last used", "last_used_at"),
        ("created", "created_at"),
    ],
    fields: &["id", "name", "edge", "last_characters", "created_at", "created_by", "last_used_at", "revision"],
};

pub(super) fn run_edge_tokens(options: &EdgeTokensOptions) -> anyhow::Result<Outcome> {
    let session = options.remote.session()?;
    match &options.command {
        EdgeTokensCommand::List => EDGE_TOKENS.list(&session)?,
        EdgeTokensCommand::Create { name, edge } => {
            EDGE_TOKENS.create(&session, json!({"name": name, "edge": edge}))?;
        }
        EdgeTokensCommand::Show { token } => EDGE_TOKENS.show(&session, token)?,
        EdgeTokensCommand::Revoke { token } => EDGE_TOKENS.revoke(&session, token)?,
    }
    Ok(Outcome::Done)
}
