//! `--wait`: whether a change is enforced on every worker of every edge, and if not, where it isn't.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Answer, Call, Client};
use super::failure::Outcome;
use super::json::{is_true, list, part};
use super::output::{pluralize, print_note};

/// How long to wait for a change to be enforced.
#[derive(Args, Clone, Copy, Default)]
pub(super) struct Wait {
    /// Wait until the change is enforced on every worker of every edge, for at most SECONDS (10 by default, at most
    /// 60). Exits with 3 if it isn't by then; the change is made anyway.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "10",
        value_parser = clap::value_parser!(u64).range(0..=60))]
    wait: Option<u64>,
}

impl Wait {
    /// The request, with the time to wait.
    pub(super) fn apply(self, call: Call) -> Call {
        match self.wait {
            Some(secs) => call.header("prefer", format!("wait={secs}")).extend_timeout(Duration::from_secs(secs)),
            None => call,
        }
    }

    /// Reports to people whether the change is enforced, if they asked for it.
    pub(super) fn report(self, client: &Client, answer: &Answer) -> anyhow::Result<Outcome> {
        if self.wait.is_none() {
            return Ok(Outcome::Done);
        }
        let counts: BTreeMap<&str, &str> = answer
            .header("latchkey-enforcement")
            .unwrap_or_default()
            .split(',')
            .filter_map(|pair| pair.trim().split_once('='))
            .collect();
        let number = |name| counts.get(name).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
        if counts.get("enforced") == Some(&"true") {
            let (edges, workers) = (pluralize(number("edges"), "edge"), number("workers"));
            let silent = match number("disconnected") {
                0 => String::new(),
                silent => format!(" ({silent} of them disconnected for so long that it denies as stale)"),
            };
            print_note(&format!(
                "enforced on {workers} of {workers} workers of {edges}{silent} after {} ms",
                number("elapsed_ms")
            ));
            return Ok(Outcome::Done);
        }
        // The header has only counts; this answer names the edges.
        let status = client.send(Call::get(&["v1", "enforcement"]).query("revision", answer.revision()))?;
        print_note(&format!("not enforced after {} ms: {}", number("elapsed_ms"), why_not_enforced(&status.body)));
        Ok(Outcome::NotEnforced)
    }
}

/// Why `/v1/enforcement` reports a revision as not enforced, in a sentence.
pub(super) fn why_not_enforced(status: &Value) -> String {
    let edges = list(status, "edges");
    if edges.is_empty() {
        return "no edge is known to this control plane".to_owned();
    }
    let (has, workers) = count_workers(status);
    let late = edges.iter().filter(|edge| !is_true(edge, "enforced")).map(|edge| {
        let string = |name: &str| edge[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} is {}", string("edge"), string("instance"), string("state"))
    });
    let late: Vec<_> = late.collect();
    let until = match part(status, &["bounded_at"]).as_str() {
        Some("never") | None => "with no time limit".to_owned(),
        Some(at) => format!("it is enforced at {at} at the latest"),
    };
    format!(
        "{has} of {workers} workers of {} have it; {}; {until}",
        pluralize(edges.len() as u64, "edge"),
        late.join(", ")
    )
}

/// How many workers have the revision or deny as stale, and how many exist.
pub(super) fn count_workers(status: &Value) -> (u64, u64) {
    let revision = part(status, &["revision"]).as_u64();
    let (mut has, mut all) = (0_u64, 0_u64);
    for edge in list(status, "edges") {
        let is_enforced = is_true(edge, "enforced");
        for worker in list(edge, "workers") {
            all = all.saturating_add(1);
            if is_enforced
                || part(worker, &["applied"])
                    .as_u64()
                    .zip(revision)
                    .is_some_and(|(applied, revision)| applied >= revision)
            {
                has = has.saturating_add(1);
            }
        }
    }
    (has, all)
}
