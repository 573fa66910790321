//! `latchkey keys deactivate` and `delete`: one key by its id, or all keys that match a filter, after listing them.

use std::io::{self, IsTerminal as _};

use clap::Args;
use serde_json::{Value, json};

use super::At;
use super::find::Filter;
use crate::cli::client::{Answer, Call, LONG};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::json::{list, number};
use crate::cli::output::{counted, field, remark, say, say_json, table};
use crate::cli::progress::Progress;
use crate::cli::token::is_confirmed;
use crate::cli::waiting::Wait;

/// What `latchkey keys deactivate` and `delete` are told.
#[derive(Args)]
pub(super) struct CleanUpOptions {
    /// The key's id, key_….
    #[arg(conflicts_with_all = ["unused_days", "unrotated_days", "expiring_days", "name", "status", "dry_run", "yes"])]
    key: Option<String>,

    #[command(flatten)]
    filter: Filter,

    /// List the keys that fit, and change nothing.
    #[arg(long)]
    dry_run: bool,

    /// Don't ask. Without it, the keys that fit are listed, and a terminal is asked whether they are meant.
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,

    #[command(flatten)]
    wait: Wait,
}

/// What to do with keys.
#[derive(Clone, Copy)]
pub(super) enum Cleaning {
    Deactivate,
    Delete,
}

impl Cleaning {
    fn path(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivate-matching",
            Self::Delete => "delete-matching",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivate",
            Self::Delete => "delete",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivated",
            Self::Delete => "deleted",
        }
    }
}

pub(super) fn run(at: &At<'_>, options: &CleanUpOptions, cleaning: Cleaning) -> anyhow::Result<Outcome> {
    match &options.key {
        Some(key) => one(at, key, options.wait, cleaning),
        None => all(at, options, cleaning),
    }
}

fn one(at: &At<'_>, key: &str, wait: Wait, cleaning: Cleaning) -> anyhow::Result<Outcome> {
    let client = &at.session.client;
    let (answer, told) = match cleaning {
        Cleaning::Deactivate => {
            let answer = client.send(wait.asked(at.post(&[key, "deactivate"], json!({}))))?;
            let told = at.shown(&answer.body);
            (answer, told)
        }
        Cleaning::Delete => {
            let answer = client.send(wait.asked(Call::delete(&at.path(&[key]))))?;
            let told = if at.session.json { Ok(()) } else { say(&format!("deleted {key}\n")) };
            (answer, told)
        }
    };
    told?;
    wait.tell(client, &answer)
}

fn all(at: &At<'_>, options: &CleanUpOptions, cleaning: Cleaning) -> anyhow::Result<Outcome> {
    let filter = |dry_run| options.filter.body(dry_run);
    if options.filter.is_empty() {
        let message = "name a key, or a filter: --unused-days, --unrotated-days, --expiring-days, --name or --status";
        return Err(Failure::Usage(message.to_owned()).into());
    }
    if !options.yes {
        let found = send(at, cleaning, filter(true), Wait::default())?;
        let count = number(&found.body, "matched");
        if options.dry_run {
            told(at, &found.body, &format!("would be {}; nothing was changed", cleaning.done()))?;
            return Ok(Outcome::Done);
        }
        if !io::stdin().is_terminal() {
            let (keys, word) = (counted(count, "key"), cleaning.word());
            return Err(
                Failure::Usage(format!("--yes would {word} {keys} without asking; --dry-run lists them")).into()
            );
        }
        told(at, &found.body, "found")?;
        if count == 0 || !is_confirmed(&format!("{} {}?", cleaning.word(), counted(count, "key")))? {
            remark("nothing was changed");
            return Ok(Outcome::Done);
        }
    }
    let progress = Progress::waiting(cleaning.word());
    let answer = send(at, cleaning, filter(false), options.wait)?;
    drop(progress);
    let done = format!("{} now", cleaning.done());
    if options.yes || at.session.json {
        told(at, &answer.body, &done)?;
    } else {
        // They were just listed.
        summed_up(&answer.body, &done);
    }
    options.wait.tell(&at.session.client, &answer)
}

fn send(at: &At<'_>, cleaning: Cleaning, body: Value, wait: Wait) -> anyhow::Result<Answer> {
    at.session.client.send(wait.asked(at.post(&[cleaning.path()], body)).patient(LONG))
}

/// Lists the keys, and reports what was done with them.
fn told(at: &At<'_>, found: &Value, what: &str) -> anyhow::Result<()> {
    if at.session.json {
        return say_json(found);
    }
    let keys = list(found, "keys");
    let rows: Vec<_> = keys.iter().map(|key| vec![field(key, "id"), field(key, "name")]).collect();
    say(&table(&["id", "name"], &rows))?;
    summed_up(found, what);
    Ok(())
}

fn summed_up(found: &Value, what: &str) {
    let (matched, listed) = (number(found, "matched"), list(found, "keys").len());
    let first = if matched > listed as u64 { format!(" (the first {listed} are listed)") } else { String::new() };
    remark(&format!("{} {what}{first}", counted(matched, "key")));
}
