//! `latchkey edges` and `latchkey enforcement`: which Envoys exist, and which changes each of them has.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Call, LARGE_REQUEST_EXTRA};
use super::connection::RemoteOptions;
use super::failure::Outcome;
use super::json::{is_true, items, list, number, part};
use super::output::{field, pluralize, print, print_json, table};
use super::pagination;
use super::waiting::{count_workers, why_not_enforced};

/// The options of `latchkey edges`.
#[derive(Args)]
pub(super) struct EdgesOptions {
    #[command(flatten)]
    remote: RemoteOptions,

    #[command(subcommand)]
    command: EdgesCommand,
}

#[derive(Subcommand)]
enum EdgesCommand {
    /// Lists the Envoy processes that use the feed, by edge.
    List,

    /// Removes Envoy processes that are gone for good.
    ///
    /// From then on no change waits for them. A connected process is not removed.
    Remove {
        /// The process, as the list names it.
        #[arg(required_unless_present = "edge", conflicts_with = "edge")]
        instance: Option<String>,

        /// All processes of this edge that aren't connected, instead of one.
        #[arg(long, value_name = "NAME")]
        edge: Option<String>,
    },
}

/// The options of `latchkey enforcement`.
#[derive(Args)]
pub(super) struct EnforcementOptions {
    #[command(flatten)]
    remote: RemoteOptions,

    /// The revision of a change; the newest by default.
    #[arg(long)]
    revision: Option<u64>,

    /// Wait for it, for at most SECONDS (10 by default, at most 60).
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "10",
        value_parser = clap::value_parser!(u64).range(0..=60))]
    wait: Option<u64>,
}

pub(super) fn run_edges(options: &EdgesOptions) -> anyhow::Result<Outcome> {
    let session = options.remote.session()?;
    match &options.command {
        EdgesCommand::List => {
            let items = pagination::fetch_all(&session.client, None, || Call::get(&["v1", "edges"]))?;
            session.print(&items.into(), edge_table)?;
        }
        EdgesCommand::Remove { edge: Some(edge), .. } => {
            let call = Call::delete(&["v1", "edges"]).query("edge", Some(edge));
            let removed = session.client.send(call.extend_timeout(LARGE_REQUEST_EXTRA))?.body;
            session.print(&removed, |answer| {
                let (removed, connected) =
                    (pluralize(number(answer, "removed"), "instance"), number(answer, "connected"));
                format!("{removed} of {edge} removed; {connected} connected\n")
            })?;
        }
        EdgesCommand::Remove { instance, edge: None } => {
            let instance = instance.as_deref().unwrap_or_default();
            session.client.send(Call::delete(&["v1", "edges", instance]))?;
            session.print_done(&format!("removed {instance}"))?;
        }
    }
    Ok(Outcome::Done)
}

pub(super) fn run_enforcement(options: &EnforcementOptions) -> anyhow::Result<Outcome> {
    let session = options.remote.session()?;
    let call = Call::get(&["v1", "enforcement"]).query("revision", options.revision).query("wait", options.wait);
    let status = session.client.send(call.extend_timeout(Duration::from_secs(options.wait.unwrap_or_default())))?.body;
    let is_enforced = is_true(&status, "enforced");
    if session.json {
        print_json(&status)?;
    } else {
        let revision = field(&status, "revision");
        if is_enforced {
            let (has, all) = count_workers(&status);
            let edges = pluralize(list(&status, "edges").len() as u64, "edge");
            print(&format!("revision {revision} is enforced on {has} of {all} workers of {edges}\n"))?;
        } else {
            print(&format!("revision {revision} is not enforced: {}\n", why_not_enforced(&status)))?;
        }
        print(&edge_table(part(&status, &["edges"])))?;
    }
    Ok(if is_enforced { Outcome::Done } else { Outcome::NotEnforced })
}

fn edge_table(edges: &Value) -> String {
    let row = |edge: &Value| {
        let workers = list(edge, "workers").len().to_string();
        let names = ["edge", "instance", "state", "applied"].map(|name| field(edge, name));
        let rest = ["version", "address", "last_seen_at", "bounded_at"].map(|name| field(edge, name));
        [&names[..], &[workers], &rest[..]].concat()
    };
    let rows: Vec<_> = items(edges).iter().map(row).collect();
    let headings =
        ["edge", "instance", "state", "revision", "workers", "version", "address", "last seen", "denies as stale from"];
    table(&headings, &rows)
}
