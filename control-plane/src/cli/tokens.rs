//! `latchkey tokens`: admin tokens.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::RemoteOptions;
use super::failure::Outcome;
use super::json::{given, object};
use super::token_collection::TokenCollection;
use crate::store::RoleName;

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

    /// What it may do; docs/api.md has the permissions of each role. The last two are for a workspace.
    #[arg(long, value_parser = RoleName::NAMES.map(|(_, name)| name))]
    role: String,

    /// The workspace that the role is for, by id or slug.
    #[arg(long, short, env = "LATCHKEY_WORKSPACE")]
    workspace: Option<String>,

    /// An address or CIDR range that it may be used from; those of your own token by default. May be given more than
    /// once.
    #[arg(long = "allow", value_name = "ADDRESS", value_delimiter = ',')]
    allowlist: Vec<String>,

    /// A role that it may give to tokens that it creates; those that your own token may give by default. May be given
    /// more than once.
    #[arg(long = "may-make", value_name = "ROLE", value_delimiter = ',', value_parser = RoleName::NAMES.map(|(_, name)| name))]
    may_make: Vec<String>,

    /// Its lifetime: none, 1h, 1d, 7d, 30d, 90d, 180d, 360d. By default it expires when your own does.
    #[arg(long, value_name = "TIME", conflicts_with = "expires_at")]
    expires_in: Option<String>,

    /// When it expires: 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "INSTANT")]
    expires_at: Option<String>,
}

const TOKENS: TokenCollection = TokenCollection {
    name: "admin-tokens",
    columns: &[
        ("id", "id"),
        ("name", "name"),
        ("role", "role"),
        ("workspace", "workspace_id"),
        ("status", "status"),
        ("ends in", "last_characters"),
        ("last used", "last_used_at"),
        ("expires", "expires_at"),
    ],
    fields: &[
        "id",
        "name",
        "role",
        "workspace_id",
        "ip_allowlist",
        "may_make",
        "status",
        "last_characters",
        "expires_at",
        "created_at",
        "created_by",
        "last_used_at",
        "revision",
    ],
};

pub(super) fn run_tokens(options: &TokensOptions) -> anyhow::Result<Outcome> {
    let session = options.remote.session()?;
    match &options.command {
        TokensCommand::List => TOKENS.list(&session)?,
        TokensCommand::Create(create) => TOKENS.create(&session, create.body())?,
        TokensCommand::Show { token } => TOKENS.show(&session, token)?,
        TokensCommand::Revoke { token } => TOKENS.revoke(&session, token)?,
    }
    Ok(Outcome::Done)
}

impl Create {
    fn body(&self) -> Value {
        let Self { name, role, workspace, allowlist, may_make, expires_in, expires_at } = self;
        let is_of_workspace = RoleName::NAMES.iter().any(|(own, name)| name == role && own.is_of_workspace());
        object([
            ("name", Some(json!(name))),
            ("role", Some(json!(role))),
            // The workspace may come from the environment, which is for commands that need one.
            ("workspace", given(workspace).filter(|_| is_of_workspace)),
            ("ip_allowlist", (!allowlist.is_empty()).then(|| json!(allowlist))),
            ("may_make", (!may_make.is_empty()).then(|| json!(may_make))),
            ("expires_in", given(expires_in)),
            ("expires_at", given(expires_at)),
        ])
    }
}
