//! `latchkey keys deactivate` and `delete`: one key by its id, or all keys that match a filter, after listing them.

use std::io::{self, IsTerminal as _};

use clap::Args;
use serde_json::{Value, json};

use super::WorkspaceSession;
use super::find::Filter;
use crate::cli::client::{Answer, Call, LARGE_REQUEST_EXTRA};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::json::{list, number, part};
use crate::cli::output::{field_table, pluralize, print_note};
use crate::cli::progress::Progress;
use crate::cli::secret_input::confirm;
use crate::cli::waiting::Wait;

/// The options of `latchkey keys deactivate` and `delete`.
#[derive(Args)]
pub(super) struct CleanUpOptions {
    /// The key's id, key_….
    #[arg(conflicts_with_all = ["unused_days", "unrotated_days", "expiring_days", "name", "status", "dry_run", "yes"])]
    key: Option<String>,

    #[command(flatten)]
    filter: Filter,

    /// List the matching keys, and change nothing.
    #[arg(long)]
    dry_run: bool,

    /// Don't ask for confirmation. Without it, the matching keys are listed, and a terminal is asked to confirm.
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,

    #[command(flatten)]
    wait: Wait,
}

/// What to do with keys.
#[derive(Clone, Copy)]
pub(super) enum CleanUpAction {
    Deactivate,
    Delete,
}

impl CleanUpAction {
    fn path(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivate-matching",
            Self::Delete => "delete-matching",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivate",
            Self::Delete => "delete",
        }
    }

    fn past_tense(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivated",
            Self::Delete => "deleted",
        }
    }
}

pub(super) fn run(
    at: &WorkspaceSession<'_>,
    options: &CleanUpOptions,
    action: CleanUpAction,
) -> anyhow::Result<Outcome> {
    match &options.key {
        Some(key) => clean_up_one(at, key, options.wait, action),
        None => clean_up_all(at, options, action),
    }
}

fn clean_up_one(at: &WorkspaceSession<'_>, key: &str, wait: Wait, action: CleanUpAction) -> anyhow::Result<Outcome> {
    let client = &at.session.client;
    let (answer, printed) = match action {
        CleanUpAction::Deactivate => {
            let answer = client.send(wait.apply(at.post(&[key, "deactivate"], json!({}))))?;
            let printed = at.print_key(&answer.body);
            (answer, printed)
        }
        CleanUpAction::Delete => {
            let answer = client.send(wait.apply(Call::delete(&at.path(&[key]))))?;
            let printed = at.session.print_done(&format!("deleted {key}"));
            (answer, printed)
        }
    };
    printed?;
    wait.report(client, &answer)
}

fn clean_up_all(at: &WorkspaceSession<'_>, options: &CleanUpOptions, action: CleanUpAction) -> anyhow::Result<Outcome> {
    let filter = |dry_run| options.filter.body(dry_run);
    if options.filter.is_empty() {
        let message = "name a key, or a filter: --unused-days, --unrotated-days, --expiring-days, --name or --status";
        return Err(Failure::Usage(message.to_owned()).into());
    }
    if !options.yes {
        let found = send(at, action, filter(true), Wait::default())?;
        let count = number(&found.body, "matched");
        if options.dry_run {
            print_keys(at, &found.body, &format!("would be {}; nothing was changed", action.past_tense()))?;
            return Ok(Outcome::Done);
        }
        if !io::stdin().is_terminal() {
            let (keys, word) = (pluralize(count, "key"), action.verb());
            return Err(
                Failure::Usage(format!("--yes would {word} {keys} without asking; --dry-run lists them")).into()
            );
        }
        print_keys(at, &found.body, "found")?;
        if count == 0 || !confirm(&format!("{} {}?", action.verb(), pluralize(count, "key")))? {
            print_note("nothing was changed");
            return Ok(Outcome::Done);
        }
    }
    let progress = Progress::waiting(action.verb());
    let answer = send(at, action, filter(false), options.wait)?;
    drop(progress);
    let done = format!("{} now", action.past_tense());
    if options.yes || at.session.json {
        print_keys(at, &answer.body, &done)?;
    } else {
        // They were just listed.
        print_summary(&answer.body, &done);
    }
    options.wait.report(&at.session.client, &answer)
}

fn send(at: &WorkspaceSession<'_>, action: CleanUpAction, body: Value, wait: Wait) -> anyhow::Result<Answer> {
    at.session.client.send(wait.apply(at.post(&[action.path()], body)).extend_timeout(LARGE_REQUEST_EXTRA))
}

/// Lists the keys, and reports what was done with them.
fn print_keys(at: &WorkspaceSession<'_>, found: &Value, what: &str) -> anyhow::Result<()> {
    at.session.print(found, |found| field_table(&[("id", "id"), ("name", "name")], part(found, &["keys"])))?;
    if !at.session.json {
        print_summary(found, what);
    }
    Ok(())
}

fn print_summary(found: &Value, what: &str) {
    let (matched, listed) = (number(found, "matched"), list(found, "keys").len());
    let first = if matched > listed as u64 { format!(" (the first {listed} are listed)") } else { String::new() };
    print_note(&format!("{} {what}{first}", pluralize(matched, "key")));
}
