//! `latchkey keys`: operations on keys, one file for each.

mod change;
mod clean_up;
mod find;
mod identify;
mod import;
mod make;
mod usage;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::change::EditOptions;
use self::clean_up::{CleanUpOptions, Cleaning};
use self::find::ListOptions;
use self::import::ImportOptions;
use self::make::{CreateOptions, RotateOptions};
use super::client::Call;
use super::connection::{Remote, Session};
use super::failure::{Failure, Outcome};
use super::json::list;
use super::output::{card, field, say, say_json};
use super::waiting::Wait;

/// What `latchkey keys` is told.
#[derive(Args)]
pub struct KeysOptions {
    #[command(flatten)]
    remote: Remote,

    /// The workspace, by id or slug.
    #[arg(long, short, env = "LATCHKEY_WORKSPACE", global = true)]
    workspace: Option<String>,

    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Makes a key, and writes its secret to standard output: this once.
    #[command(after_long_help = "Example:\n  \
        SECRET=$(latchkey keys create -w acme 'Nightly export' --expires-in 90d --scope reviews:read)")]
    Create(CreateOptions),

    /// Lists keys, newest first; all filters that are given must hold.
    List(ListOptions),

    /// Shows a key.
    Show {
        /// Its id, key_….
        key: String,
    },

    /// Changes what is given.
    ///
    /// What a key may do, and from where, is replaced as a whole; metadata is merged. Its expiration never changes.
    Edit(EditOptions),

    /// Gives a key another secret, and writes it to standard output: this once.
    ///
    /// The old one ends at once, or after --overlap.
    Rotate(RotateOptions),

    /// Ends the previous secret of a key that was rotated with an overlap.
    ///
    /// `latchkey keys show` says when it was last used: when that stands still, it is safe.
    EndOverlap(OneKey),

    /// Lets a key that was deactivated be used again.
    Activate(OneKey),

    /// Stops a key, or all active keys that fit a filter, until they are activated again.
    ///
    /// All filters that are given must hold. Look with --dry-run first.
    Deactivate(CleanUpOptions),

    /// Deletes a key, or all keys that fit a filter: for good, and at once.
    ///
    /// All filters that are given must hold. Look with --dry-run first.
    Delete(CleanUpOptions),

    /// Says what a secret is that somebody found.
    ///
    /// Asks for it on a terminal, else reads it from standard input; it is never an argument. The control plane compares its
    /// digest, and neither stores nor logs it.
    Identify,

    /// Imports keys that other software made, by the SHA-256 digests of their secrets.
    ///
    /// All lines of a file are imported, or none; lines that are refused are listed by their numbers. Edges take such keys
    /// where `foreign_keys` is on. Without --workspace each line names its own.
    ///
    /// A line: {"digest": "9f86…", "name": "CI", "expires_in": "none", "scopes": {"reviews": "read"}}, and if you like
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
struct OneKey {
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
    let at = || anyhow::Ok(At { workspace: workspace()?, session: options.remote.session()? });
    match &options.command {
        KeysCommand::Create(create) => make::create(&at()?, create),
        KeysCommand::List(list) => find::list(&at()?, list),
        KeysCommand::Show { key } => find::show(&at()?, key),
        KeysCommand::Edit(edit) => change::edit(&at()?, edit),
        KeysCommand::Rotate(rotate) => make::rotate(&at()?, rotate),
        KeysCommand::EndOverlap(one) => change::act(&at()?, one, "end-overlap"),
        KeysCommand::Activate(one) => change::act(&at()?, one, "activate"),
        KeysCommand::Deactivate(what) => clean_up::run(&at()?, what, Cleaning::Deactivate),
        KeysCommand::Delete(what) => clean_up::run(&at()?, what, Cleaning::Delete),
        KeysCommand::Identify => identify::run(&options.remote.session()?),
        KeysCommand::Import(import) => import::run(&options.remote.session()?, options.workspace.as_deref(), import),
        KeysCommand::Usage { key } => usage::run(&at()?, key),
    }
}

/// A workspace of a control plane.
struct At<'a> {
    workspace: &'a str,
    session: Session,
}

impl At<'_> {
    /// The path of its keys, followed by `below`.
    fn path<'b>(&'b self, below: &[&'b str]) -> Vec<&'b str> {
        [&["v1", "workspaces", self.workspace, "keys"], below].concat()
    }

    fn post(&self, below: &[&str], body: Value) -> Call {
        Call::post(&self.path(below), body)
    }

    /// Prints a key from an answer.
    fn shown(&self, key: &Value) -> anyhow::Result<()> {
        if self.session.json { say_json(key) } else { say(&key_card(key)) }
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
    let mut fields: Vec<_> = names.iter().map(|name| (*name, field(key, name))).collect();
    for (name, value) in &mut fields {
        match (*name, value.as_str()) {
            ("ip_allowlist", "-") => *value = "any address".to_owned(),
            ("expires_at", "-") => *value = "never".to_owned(),
            _ => {}
        }
    }
    let warnings = list(key, "warnings");
    fields.extend(warnings.iter().map(|warning| ("warning", field(warning, "message"))));
    card(&fields)
}
