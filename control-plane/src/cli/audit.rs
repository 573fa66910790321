//! `latchkey audit`: lists and exports events over REST, and verifies the log in the database.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use policy::ChainHash;
use serde_json::Value;

use super::client::Call;
use super::connection::RemoteOptions;
use super::failure::{Failure, Outcome};
use super::json::{items, part};
use super::output::{NO_VALUE, field, print, print_note, table, text};
use super::pagination;
use super::progress::Progress;
use crate::serve::DatabaseOptions;
use crate::store::{AuditHead, VerifiedLog, verify_audit};

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Lists audit events, newest first.
    List {
        #[command(flatten)]
        remote: RemoteOptions,

        #[command(flatten)]
        filter: Filter,

        /// The most events to list.
        #[arg(long, value_name = "COUNT", default_value = "50", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
    },

    /// Exports audit events as JSON lines, oldest first: all that match the filters.
    ///
    /// For an incremental export give the last revision that you have as `--since`. `latchkey restore --replay-audit`
    /// takes an export of all events.
    Export {
        #[command(flatten)]
        remote: RemoteOptions,

        #[command(flatten)]
        filter: Filter,
    },

    /// Checks that no audit event was changed, removed or moved. Exits with 1 and names the first one that was.
    ///
    /// May run beside the control plane, or on a copy. A log that was rewritten as a whole is detected only by a hash
    /// that was saved elsewhere: `audit.head` in the control plane's log (hourly), or the hash of any exported event.
    Verify {
        #[command(flatten)]
        database: DatabaseOptions,

        /// The hash of an event that must be in the log: 64 hexadecimal digits.
        #[arg(long, value_name = "HASH")]
        expect_head: Option<ChainHash>,
    },
}

/// Which events.
#[derive(Args)]
pub(super) struct Filter {
    /// Only events of this workspace, by id or slug. Without it: of all workspaces, for roles of the platform.
    #[arg(long, short)]
    workspace: Option<String>,

    /// Only events about the object with this id.
    #[arg(long, value_name = "ID")]
    target: Option<String>,

    /// Only this action: key.rotate, for example.
    #[arg(long)]
    action: Option<String>,

    /// Only events by this actor: the id of a token, `platform-admin` (the token file's) or `system`, or a name as
    /// events show it.
    #[arg(long, value_name = "ID|NAME")]
    actor: Option<String>,

    /// Only events from this address or network: 192.0.2.7, 2001:db8::/32.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,

    /// Only events after this revision, or at this instant and later: 17, 2026-11-23T08:00:00Z.
    #[arg(long, value_name = "REVISION|INSTANT")]
    since: Option<String>,

    /// Only events up to this revision, or before this instant.
    #[arg(long, value_name = "REVISION|INSTANT")]
    until: Option<String>,
}

impl Filter {
    fn call(&self) -> Call {
        let call = match &self.workspace {
            Some(workspace) => Call::get(&["v1", "workspaces", workspace, "audit-events"]),
            None => Call::get(&["v1", "audit-events"]),
        };
        let call = call.query("target", self.target.as_ref()).query("action", self.action.as_ref());
        let call = call.query("actor", self.actor.as_ref()).query("address", self.address.as_ref());
        call.query("since", self.since.as_ref()).query("until", self.until.as_ref())
    }
}

pub(super) fn run_audit(command: &AuditCommand) -> anyhow::Result<Outcome> {
    match command {
        AuditCommand::List { remote, filter, limit } => list(remote, filter, *limit)?,
        AuditCommand::Export { remote, filter } => export(remote, filter)?,
        AuditCommand::Verify { database, expect_head } => verify(database, *expect_head)?,
    }
    Ok(Outcome::Done)
}

fn list(remote: &RemoteOptions, filter: &Filter, limit: u64) -> anyhow::Result<()> {
    let session = remote.session()?;
    let events = pagination::fetch_all(&session.client, Some(limit), || filter.call())?;
    let row = |event: &Value| {
        vec![
            field(event, "revision"),
            field(event, "at"),
            field(part(event, &["actor"]), "name"),
            field(event, "address"),
            field(event, "action"),
            target(event),
            changed(event),
        ]
    };
    session.print(&events.into(), |events| {
        let rows: Vec<_> = items(events).iter().map(row).collect();
        table(&["revision", "at", "who", "from", "action", "what", "changed"], &rows)
    })
}

/// The target's name and its id, which `--target` accepts.
fn target(event: &Value) -> String {
    let target = part(event, &["target"]);
    if target.is_null() { NO_VALUE.to_owned() } else { format!("{} ({})", field(target, "name"), field(target, "id")) }
}

/// The fields that a change modified; `-` for a creation or a deletion.
fn changed(event: &Value) -> String {
    let (Some(before), Some(after)) = (part(event, &["before"]).as_object(), part(event, &["after"]).as_object())
    else {
        return NO_VALUE.to_owned();
    };
    let now = |name: &String| after.get(name).map_or_else(|| NO_VALUE.to_owned(), text);
    let changes: Vec<_> = before.iter().map(|(name, was)| format!("{name}: {} -> {}", text(was), now(name))).collect();
    if changes.is_empty() { NO_VALUE.to_owned() } else { changes.join("; ") }
}

fn export(remote: &RemoteOptions, filter: &Filter) -> anyhow::Result<()> {
    let session = remote.session()?;
    let call =
        filter.call().header("accept", "application/jsonl".to_owned()).extend_timeout(Duration::from_secs(86_400));
    let mut lines = BufReader::new(session.client.stream(call)?);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let progress = Progress::waiting("exporting");
    let (mut count, mut line) = (0_u64, String::new());
    loop {
        line.clear();
        let read = lines.read_line(&mut line);
        let is_whole = read.as_ref().is_ok_and(|_| line.is_empty() || line.ends_with('\n'));
        if !is_whole {
            out.flush()?;
            let message = format!("the export broke off after {count} events: it is incomplete, so export again");
            return Err(Failure::Unreachable(message).into());
        }
        if line.is_empty() {
            break;
        }
        out.write_all(line.as_bytes())?;
        count = count.saturating_add(1);
        progress.step(1);
    }
    out.flush()?;
    drop(progress);
    print_note(&format!("exported {count} events"));
    Ok(())
}

fn verify(database: &DatabaseOptions, expected: Option<ChainHash>) -> anyhow::Result<()> {
    let VerifiedLog { events, head } = verify_audit(database.database(), expected)?;
    match head {
        Some(AuditHead { revision, hash }) => {
            print(&format!("{events} audit events verified; the last at revision {revision}: {hash}\n"))
        }
        None => print("no audit events\n"),
    }
}
