//! `latchkey keys`: operations on keys, one file for each.

mod change;
mod clean_up;
mod create;
mod find;
mod identify;
mod import;
mod usage;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::change::EditOptions;
use self::clean_up::{CleanUpAction, CleanUpOptions};
use self::create::{CreateOptions, RotateOptions};
use self::find::ListOptions;
use self::import::ImportOptions;
use super::client::Call;
use super::connection::{RemoteOptions, Session};
use super::failure::{Failure, Outcome};
use super::json::list;
use super::output::{NO_VALUE, card, field, fields};
use super::waiting::Wait;

/// The options of `latchkey keys`.
#[derive(Args)]
pub(super) struct KeysOptions {
    #[command(flatten)]
    remote: RemoteOptions,

    /// The workspace, by id or slug.
    #[arg(long, short, env = "LATCHKEY_WORKSPACE", global = true)]
    workspace: Option<String>,

    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Creates a key and prints its secret to standard output, only this once.
    #[command(after_long_help = "Example:\n  \
        SECRET=$(latchkey keys create -w acme 'Nightly export' --expires-in 90d --scope reviews:read)")]
    Create(CreateOptions),

    /// Lists keys, newest first: those that match all given filters.
    List(ListOptions),

    /// Shows a key.
    Show {
        /// Its id, key_….
        key: String,
    },

    /// Changes the given fields of a key.
    ///
    /// What a key may do, and from where, is replaced as a whole; metadata is merged. Its expiration never changes.
    Edit(EditOptions),

    /// Gives a key a new secret and prints it to standard output, only this once.
    ///
    /// The old secret ends immediately, or after --overlap.
    Rotate(RotateOptions),

    /// Ends the previous secret of a key that was rotated with an overlap.
    ///
    /// `latchkey keys show` shows when it was last used: once that no longer changes, ending it is safe.
    EndOverlap(KeyActionOptions),

    /// Activates a key that was deactivated.
    Activate(KeyActionOptions),

    /// Deactivates a key, or all active keys that match a filter, until they are activated again.
    ///
    /// A key must match all given filters. Preview with --dry-run first.
    Deactivate(CleanUpOptions),

    /// Deletes a key, or all keys that match a filter, permanently and immediately.
    ///
    /// A key must match all given filters. Preview with --dry-run first.
    Delete(CleanUpOptions),

    /// Identifies a secret that was found: which key or token it belongs to.
    ///
    /// On a terminal it asks for the secret, otherwise it reads standard input; the secret is never an argument. The
    /// control plane compares its digest, and neither stores nor logs it.
    Identify,

    /// Imports keys that other software made, by the SHA-256 digests of their secrets.
    ///
    /// All lines of a file are imported, or none; lines that are refused are listed by their numbers. Edges accept such
    /// keys if `foreign_keys` is on. Without --workspace each line names its workspace.
    ///
    /// A line: {"digest": "9f86…", "name": "CI", "expires_in": "none", "scopes": {"reviews": "read"}}, and optionally
    /// ip_allowlist, environment, metadata, active, last_characters, and expires_at in place of expires_in.
    Import(ImportOptions),

    /// Shows how often a key was used and denied, and why.
    Usage {
        /// Its id, key_….
        key: String,
    },
}

/// A change of one key.
#[derive(Args)]
struct KeyActionOptions {
    /// Its id, key_….
    key: String,

    #[command(flatten)]
    wait: Wait,
}

pub(super) fn run_keys(options: &KeysOptions) -> anyhow::Result<Outcome> {
    // A missing option is reported before the command asks for anything.
    let workspace = || {
        options.workspace.as_deref().ok_or_else(|| {
            Failure::Usage("name the workspace: --workspace acme, or LATCHKEY_WORKSPACE=acme".to_owned())
        })
    };
    let at = || anyhow::Ok(WorkspaceSession { workspace: workspace()?, session: options.remote.session()? });
    match &options.command {
        KeysCommand::Create(create) => create::create(&at()?, create),
        KeysCommand::List(list) => find::list(&at()?, list),
        KeysCommand::Show { key } => find::show(&at()?, key),
        KeysCommand::Edit(edit) => change::edit(&at()?, edit),
        KeysCommand::Rotate(rotate) => create::rotate(&at()?, rotate),
        KeysCommand::EndOverlap(one) => change::act(&at()?, one, "end-overlap"),
        KeysCommand::Activate(one) => change::act(&at()?, one, "activate"),
        KeysCommand::Deactivate(what) => clean_up::run(&at()?, what, CleanUpAction::Deactivate),
        KeysCommand::Delete(what) => clean_up::run(&at()?, what, CleanUpAction::Delete),
        KeysCommand::Identify => identify::run(&options.remote.session()?),
        KeysCommand::Import(import) => import::run(&options.remote.session()?, options.workspace.as_deref(), import),
        KeysCommand::Usage { key } => usage::run(&at()?, key),
    }
}

/// A workspace of a control plane.
struct WorkspaceSession<'a> {
    workspace: &'a str,
    session: Session,
}

impl WorkspaceSession<'_> {
    /// The path of its keys, followed by `below`.
    fn path<'b>(&'b self, below: &[&'b str]) -> Vec<&'b str> {
        [&["v1", "workspaces", self.workspace, "keys"], below].concat()
    }

    fn post(&self, below: &[&str], body: Value) -> Call {
        Call::post(&self.path(below), body)
    }

    /// Prints a key from an answer.
    fn print_key(&self, key: &Value) -> anyhow::Result<()> {
        self.session.print(key, key_card)
    }
}

/// A key, for people.
fn key_card(key: &Value) -> String {
    let names = [
        "id",
        "name",
        "workspace_id",
        "environment",
        "status",
        "active",
        "scopes",
        "ip_allowlist",
        "expires_at",
        "metadata",
        "last_characters",
        "last_used_at",
        "last_used_ip",
        "secret_last_used_at",
        "previous_secret_expires_at",
        "previous_secret_last_used_at",
        "created_at",
        "created_by",
        "updated_at",
        "rotated_at",
        "revision",
    ];
    let mut fields = fields(&names, key);
    for (name, value) in &mut fields {
        match (*name, value.as_str()) {
            ("ip_allowlist", NO_VALUE) => *value = "any address".to_owned(),
            ("expires_at", NO_VALUE) => *value = "never".to_owned(),
            _ => {}
        }
    }
    let warnings = list(key, "warnings");
    fields.extend(warnings.iter().map(|warning| ("warning", field(warning, "message"))));
    card(&fields)
}
