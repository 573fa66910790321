//! Many simulated workers that report usage without Envoy: what merging it costs the control plane.

use std::io::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

/// The interval between two reports of a worker.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Time limit for an answer, as in the filter.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Reports usage of many keys as many edges, each with one worker.
///
/// Each edge uses `--keys-an-edge` keys a minute, a sixth of them in each report. Prints a line of JSON when all edges
/// are known to the control plane, and one with the totals of all answers at the end.
#[derive(Parser)]
struct Arguments {
    /// As http://127.0.0.1:8080
    #[arg(long)]
    control_plane: String,
    #[arg(long)]
    edge_token_file: PathBuf,
    /// A line for each key: its id, and the first 8 hexadecimal digits of its secret's digest.
    #[arg(long)]
    keys_file: PathBuf,
    #[arg(long, default_value_t = 10_000)]
    edges: usize,
    #[arg(long, default_value_t = 1_000)]
    keys_an_edge: usize,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// What all edges share.
struct Fleet {
    client: Client,
    base: String,
    token: String,
    /// An entry for each key: one allowed request.
    entries: Vec<String>,
    keys_an_edge: usize,
}

/// Counts and times of the answers.
#[derive(Default)]
struct ReportTotals {
    entries: usize,
    refused: usize,
    ms: Vec<u64>,
}

fn main() -> anyhow::Result<()> {
    // One thread, because the control plane is what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let keys = std::fs::read_to_string(&arguments.keys_file).context("the file of keys")?;
    let now = end_to_end::now().as_second();
    let entry = |line: &str| {
        let (key, secret) = line.split_once(' ').context("a line without a space")?;
        let used = json!([{"secret": secret, "at": now}]);
        let entry = json!({"key": key, "hour": now, "allowed": 1, "used": used, "address": "192.0.2.7"});
        anyhow::Ok(entry.to_string())
    };
    let fleet = Rc::new(Fleet {
        client: Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?,
        base: arguments.control_plane,
        token: std::fs::read_to_string(&arguments.edge_token_file)?.trim_end().to_owned(),
        entries: keys.lines().map(entry).collect::<Result<_, _>>()?,
        keys_an_edge: arguments.keys_an_edge,
    });
    ensure!(fleet.entries.len() >= arguments.keys_an_edge, "fewer keys than an edge uses");
    for edge in 0..arguments.edges {
        fleet.register(edge).await?;
    }
    print(&json!({"edges": arguments.edges, "keys": fleet.entries.len()}))?;

    let (began, mut reporting) = (Instant::now(), tokio::task::JoinSet::new());
    for edge in 0..arguments.edges {
        let fleet = Rc::clone(&fleet);
        // Spread over the interval, as when workers started one after the other.
        let first = began + REPORT_INTERVAL.mul_f64(edge as f64 / arguments.edges as f64);
        reporting.spawn_local(fleet.report(edge, first, began + Duration::from_secs(arguments.seconds)));
    }
    let mut all = ReportTotals::default();
    while let Some(totals) = reporting.join_next().await {
        let ReportTotals { entries, refused, ms } = totals?;
        all.entries += entries;
        all.refused += refused;
        all.ms.extend(ms);
    }
    all.ms.sort_unstable();
    let at = |share: usize| all.ms.get((all.ms.len() * share).div_ceil(100).saturating_sub(1)).copied();
    print(&json!({
        "batches": all.ms.len(), "entries": all.entries, "refused": all.refused, "seconds": began.elapsed().as_secs_f64(),
        "p50_ms": at(50), "p99_ms": at(99),
    }))
}

impl Fleet {
    /// Registers an edge: it requests the feed, then acknowledges for its one worker.
    async fn register(&self, edge: usize) -> anyhow::Result<()> {
        let feed = format!("{}/edge/v1/feed?format=1&edge=edge&instance=i{edge}", self.base);
        let answer = self.client.get(feed).bearer_auth(&self.token).send().await?;
        let message = answer.bytes().await?;
        let epoch = message
            .strip_prefix(b"LATCHKEY")
            .and_then(|rest| rest.get(12..28))
            .context("a feed message without a header")?;
        let epoch: String = epoch.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({"edge": "edge", "instance": format!("i{edge}"), "epoch": epoch, "max_staleness_secs": null,
                          "workers": [{"id": "0", "applied": 0, "started_at": 0}]});
        let (status, text) = self.post("acknowledgements", body.to_string()).await?;
        ensure!(status == 200, "an acknowledgement was answered {status}: {text}");
        Ok(())
    }

    /// Reports every 10 s until the end. A report that isn't counted is sent again with the same sequence number.
    async fn report(self: Rc<Self>, edge: usize, first: Instant, end: Instant) -> ReportTotals {
        let (mut totals, mut sequence, mut due, mut is_counted) = (ReportTotals::default(), 0, first, true);
        while due < end {
            sleep_until(due).await;
            due += REPORT_INTERVAL;
            sequence += usize::from(is_counted);
            let (body, entries) = self.batch(edge, sequence);
            let sent = Instant::now();
            is_counted = matches!(self.post("usage", body).await, Ok((200, _)));
            if is_counted {
                totals.entries += entries;
                totals.ms.push(u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX));
            } else {
                totals.refused += 1;
            }
        }
        totals
    }

    /// A sixth of an edge's keys.
    fn batch(&self, edge: usize, sequence: usize) -> (String, usize) {
        let share = self.keys_an_edge.div_ceil(6);
        let from = sequence % 6 * share;
        let numbers = from..self.keys_an_edge.min(from + share);
        // Each edge has its own selection of keys, spread over all of them.
        let entries: Vec<&str> = numbers
            .map(|number| self.entries[(edge * 7_919 + number * 104_729) % self.entries.len()].as_str())
            .collect();
        let keys = entries.join(",");
        let body =
            format!(r#"{{"edge":"edge","instance":"i{edge}","worker":"w","sequence":{sequence},"keys":[{keys}]}}"#);
        (body, entries.len())
    }

    async fn post(&self, path: &str, body: String) -> anyhow::Result<(u16, String)> {
        let request = self.client.post(format!("{}/edge/v1/{path}", self.base)).bearer_auth(&self.token).body(body);
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }
}

fn print(line: &Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("can't write to standard output")
}
