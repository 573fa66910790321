//! `latchkey tokens`: admin tokens.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::Call;
use super::connection::{RemoteOptions, Session};
use super::failure::Outcome;
use super::json::{object, part};
use super::new_secret;
use super::output::{card, field, print, print_json, table};
use super::pagination;

/// The options of `latchkey tokens`.
#[derive(Args)]
pub(super) struct TokensOptions {
    #[command(flatten)]
    remote: RemoteOptions,

    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Subcommand)]
enum TokensCommand {
    /// Lists the admin tokens that you may see, oldest first.
    List,

    /// Creates an admin token and prints it to standard output, only this once.
    ///
    /// A token can't create one that may do more, or lives longer, than itself. Revoking a token doesn't revoke those
    /// that it created.
    Create(Create),

    /// Shows an admin token.
    Show {
        /// Its id, adt_….
        token: String,
    },

    /// Revokes an admin token, permanently and immediately.
    Revoke {
        /// Its id, adt_….
        token: String,
    },
}

#[derive(Args)]
struct Create {
    /// Its name, for people.
    name: String,

    /// What it may do: everything; everything in its workspace; only read its workspace and keys.
    #[arg(long, value_parser = ["platform_admin", "workspace_admin", "workspace_member"])]
    role: String,

    /// The workspace that the role is for, by id or slug.
    #[arg(long, short, env = "LATCHKEY_WORKSPACE")]
    workspace: Option<String>,

    /// Its lifetime: none, 1h, 1d, 7d, 30d, 90d, 180d, 360d. By default it expires when your own does.
    #[arg(long, value_name = "TIME", conflicts_with = "expires_at")]
    expires_in: Option<String>,

    /// When it expires: 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "INSTANT")]
    expires_at: Option<String>,
}

const PATH: [&str; 2] = ["v1", "admin-tokens"];

pub(super) fn run_tokens(options: &TokensOptions) -> anyhow::Result<Outcome> {
    let session = options.remote.session()?;
    match &options.command {
        TokensCommand::List => list(&session)?,
        TokensCommand::Create(create) => {
            let answer = session.client.send(Call::post_idempotent(&PATH, create.body())?)?;
            new_secret::print(&session, &answer.body, &token_card(part(&answer.body, &["token"])))?;
        }
        TokensCommand::Show { token } => {
            let answer = session.client.send(Call::get(&[PATH[0], PATH[1], token]))?;
            if session.json { print_json(&answer.body)? } else { print(&token_card(&answer.body))? }
        }
        TokensCommand::Revoke { token } => {
            session.client.send(Call::delete(&[PATH[0], PATH[1], token]))?;
            if !session.json {
                print(&format!("revoked {token}\n"))?;
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
    let items = pagination::fetch_all(&session.client, None, || Call::get(&PATH))?;
    if session.json {
        return print_json(&items.into());
    }
    let columns = ["id", "name", "role", "workspace_id", "status", "last_characters", "last_used_at", "expires_at"];
    let rows: Vec<_> = items.iter().map(|item| columns.map(|name| field(item, name)).to_vec()).collect();
    print(&table(&["id", "name", "role", "workspace", "status", "ends in", "last used", "expires"], &rows))
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
