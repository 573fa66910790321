//! `latchkey keys import`: a file of digests, all or none.

use std::io::{self, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::cli::client::{Call, LARGE_REQUEST_EXTRA};
use crate::cli::connection::Session;
use crate::cli::failure::Outcome;
use crate::cli::json::number;
use crate::cli::output::pluralize;
use crate::cli::progress::{Progress, ProgressReader};
use crate::cli::waiting::Wait;

/// The most that the control plane accepts in one import.
const MAX_LINES: usize = 100_000;
const MAX_BYTES: u64 = 64 << 20;

/// The options of `latchkey keys import`.
#[derive(Args)]
pub(super) struct ImportOptions {
    /// JSON lines, one key each; at most 100,000, and 64 MiB. `-` is standard input.
    file: PathBuf,

    /// Leave out lines whose key has expired, instead of refusing the file.
    #[arg(long)]
    skip_expired: bool,

    #[command(flatten)]
    wait: Wait,
}

pub(super) fn run(session: &Session, workspace: Option<&str>, options: &ImportOptions) -> anyhow::Result<Outcome> {
    let lines = read(&options.file)?;
    let count = lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
    if count > MAX_LINES {
        bail!(
            "{}: {count} lines; at most {MAX_LINES} are allowed in one import: split the file, each part is imported whole or not at all",
            options.file.display()
        );
    }
    let path: &[&str] = match &workspace {
        Some(workspace) => &["v1", "workspaces", workspace, "keys", "import"],
        None => &["v1", "keys", "import"],
    };
    let call =
        Call::post_idempotent(path, serde_json::Value::Null)?.query("expired", options.skip_expired.then_some("skip"));
    let call = options.wait.apply(call).extend_timeout(LARGE_REQUEST_EXTRA);
    let sending = || {
        let progress = Progress::counting("sending", count as u64);
        ProgressReader::new(&lines, progress, "sent; the control plane imports them")
    };
    let answer = session.client.send_lines(call, sending, lines.len())?;
    session.print(&answer.body, |body| {
        let (imported, skipped) = (pluralize(number(body, "imported"), "key"), number(body, "skipped"));
        let left_out =
            if skipped > 0 { format!("; {} left out", pluralize(skipped, "expired line")) } else { String::new() };
        format!("imported {imported}, up to revision {}{left_out}\n", answer.revision().unwrap_or_default())
    })?;
    options.wait.report(&session.client, &answer)
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("{}: cannot read it", path.display()))?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{}: more than 64 MiB; split the file, each part is imported whole or not at all", path.display());
    }
    Ok(bytes)
}
