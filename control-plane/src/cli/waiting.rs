//! `--wait`: whether a change is enforced on every worker of every edge, and if not, where it isn't.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Answer, Call, Client};
use super::failure::Outcome;
use super::json::{is, list, part};
use super::output::{counted, remark};

/// How long to wait for a change to be enforced.
#[derive(Args, Clone, Copy, Default)]
pub struct Wait {
    /// Wait until the change is enforced on every worker of every edge, for at most SECONDS (10 by default, at most 60).
    /// Ends with 3 when it isn't by then: the change is made all the same.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "10",
        value_parser = clap::value_parser!(u64).range(0..=60))]
    wait: Option<u64>,
}

impl Wait {
    /// The request, with the time to wait.
    pub fn asked(self, call: Call) -> Call {
        match self.wait {
            Some(secs) => call.header("prefer", format!("wait={secs}")).patient(Duration::from_secs(secs)),
            None => call,
        }
    }

    /// Reports to people whether the change is enforced, if they asked for it.
    pub fn tell(self, client: &Client, answer: &Answer) -> anyhow::Result<Outcome> {
        if self.wait.is_none() {
            return Ok(Outcome::Done);
        }
        let told: BTreeMap<&str, &str> = answer
            .header("latchkey-enforcement")
            .unwrap_or_default()
            .split(',')
            .filter_map(|pair| pair.trim().split_once('='))
            .collect();
        let number = |name| told.get(name).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
        if told.get("enforced") == Some(&"true") {
            let (edges, workers) = (counted(number("edges"), "edge"), number("workers"));
            let silent = match number("disconnected") {
                0 => String::new(),
                silent => format!(" ({silent} of them silent for so long that it denies by itself)"),
            };
            remark(&format!(
                "enforced on {workers} of {workers} workers of {edges}{silent} after {} ms",
                number("elapsed_ms")
            ));
            return Ok(Outcome::Done);
        }
        // The header has only counts; this answer names the edges.
        let seen = client.send(Call::get(&["v1", "enforcement"]).query("revision", answer.revision()))?;
        remark(&format!("not enforced after {} ms: {}", number("elapsed_ms"), missing(&seen.body)));
        Ok(Outcome::NotEnforced)
    }
}

/// Why `/v1/enforcement` reports a revision as not enforced, in a sentence.
pub fn missing(seen: &Value) -> String {
    let edges = list(seen, "edges");
    if edges.is_empty() {
        return "no edge is known to this control plane".to_owned();
    }
    let (has, workers) = counted_workers(seen);
    let late = edges.iter().filter(|edge| !is(edge, "enforced")).map(|edge| {
        let word = |name: &str| edge[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} is {}", word("edge"), word("instance"), word("state"))
    });
    let late: Vec<_> = late.collect();
    let until = match part(seen, &["bounded_at"]).as_str() {
        Some("never") | None => "nothing says until when".to_owned(),
        Some(at) => format!("at {at} it is, whatever edges say"),
    };
    format!(
        "{has} of {workers} workers of {} have it; {}; {until}",
        counted(edges.len() as u64, "edge"),
        late.join(", ")
    )
}

/// How many workers have the revision or deny as stale, and how many exist.
pub fn counted_workers(seen: &Value) -> (u64, u64) {
    let revision = part(seen, &["revision"]).as_u64();
    let (mut has, mut all) = (0_u64, 0_u64);
    for edge in list(seen, "edges") {
        let is_enforced = is(edge, "enforced");
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
