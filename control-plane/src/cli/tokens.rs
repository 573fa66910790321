//! `latchkey tokens`: admin tokens.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Call;
use super::connection::{Remote, Session};
use super::failure::Outcome;
use super::json::{object, part};
use super::made;
use super::output::{card, field, say, say_json, table};
use super::pages;

/// What `latchkey tokens` is told.
#[derive(Args)]
pub struct TokensOptions {
    #[command(flatten)]
    remote: Remote,

    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Subcommand)]
enum TokensCommand {
    /// Lists the admin tokens within your reach, oldest first.
    List,

    /// Makes an admin token, and writes its text to standard output: this once.
    ///
    /// Nobody makes a token that may do more, or lives longer, than their own. Revoking a token doesn't revoke those that
    /// it made.
    Create(Create),

    /// Shows an admin token.
    Show {
        /// Its id, adt_….
        token: String,
    },

    /// Revokes an admin token, for good and at once.
    Revoke {
        /// Its id, adt_….
        token: String,
    },
}

#[derive(Args)]
struct Create {
    /// Its name, for people.
    name: String,

    /// What it may do: everything; all that concerns its workspace; see its workspace and keys, and change nothing.
    #[arg(long, value_parser = ["platform_admin", "workspace_admin", "workspace_member"])]
    role: String,

    /// The workspace that the role is for, by id or slug.
    #[arg(long, short, env = "LATCHKEY_WORKSPACE")]
    workspace: Option<String>,

    /// How long it lives: none, 1h, 1d, 7d, 30d, 90d, 180d, 360d. By default it ends when your own does.
    #[arg(long, value_name = "TIME", conflicts_with = "expires_at")]
    expires_in: Option<String>,

    /// Until when it lives: 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "INSTANT")]
    expires_at: Option<String>,
}

const PATH: [&str; 2] = ["v1", "admin-tokens"];

pub(super) fn run_tokens(options: &TokensOptions) -> anyhow::Result<Outcome> {
    let session = options.remote.session()?;
    match &options.command {
        TokensCommand::List => list(&session)?,
        TokensCommand::Create(create) => {
            let answer = session.client.send(Call::make(&PATH, create.body())?)?;
            made::tell(&session, &answer.body, &token_card(part(&answer.body, &["token"])))?;
        }
        TokensCommand::Show { token } => {
            let answer = session.client.send(Call::get(&[PATH[0], PATH[1], token]))?;
            if session.json { say_json(&answer.body)? } else { say(&token_card(&answer.body))? }
        }
        TokensCommand::Revoke { token } => {
            session.client.send(Call::delete(&[PATH[0], PATH[1], token]))?;
            if !session.json {
                say(&format!("revoked {token}\n"))?;
            }
        }
    }
    Ok(Outcome::Done)
}

impl Create {
    fn body(&self) -> Value {
        let Self { name, role, workspace, expires_in, expires_at } = self;
        let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
        object([
            ("name", Some(json!(name))),
            ("role", Some(json!(role))),
            // The workspace may come from the environment, which is for commands that need one.
            ("workspace", text(workspace).filter(|_| role != "platform_admin")),
            ("expires_in", text(expires_in)),
            ("expires_at", text(expires_at)),
        ])
    }
}

fn list(session: &Session) -> anyhow::Result<()> {
    let items = pages::all(&session.client, None, || Call::get(&PATH))?;
    if session.json {
        return say_json(&items.into());
    }
    let columns = ["id", "name", "role", "workspace_id", "status", "last_characters", "last_used_at", "expires_at"];
    let rows: Vec<_> = items.iter().map(|item| columns.map(|name| field(item, name)).to_vec()).collect();
    say(&table(&["id", "name", "role", "workspace", "status", "ends in", "last used", "expires"], &rows))
}

fn token_card(token: &Value) -> String {
    let names = [
        "id",
        "name",
        "role",
        "workspace_id",
        "status",
        "last_characters",
        "expires_at",
        "created_at",
        "created_by",
        "last_used_at",
        "revision",
    ];
    card(&names.map(|name| (name, field(token, name))))
}
