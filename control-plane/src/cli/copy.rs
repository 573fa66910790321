//! `latchkey copy`: copies a database from a file to PostgreSQL, or back.

use clap::Args;

use super::failure::Failure;
use super::output::{print, table};
use super::progress::Progress;
use crate::serve::PasswordOption;
use crate::store::{CopyError, CopyStep, CopySummary, Database, TableSummary, copy};

/// The options of `latchkey copy`.
#[derive(Args)]
pub(super) struct CopyOptions {
    /// The source: the SQLite file, or postgres://user@host:5432/latchkey (docs/postgres.md). It is only read.
    #[arg(long, value_name = "FILE|URL")]
    from: Database,

    /// The target: an empty PostgreSQL database, or a file that doesn't exist yet.
    #[arg(long, value_name = "FILE|URL")]
    to: Database,

    #[command(flatten)]
    password: PasswordOption,
}

pub(super) fn run_copy(options: &CopyOptions) -> anyhow::Result<()> {
    let CopyOptions { from, to, password } = options;
    let mut progress = None;
    let copied = copy(&password.complete(from), &password.complete(to), &mut |step| match step {
        CopyStep::Copying { table, rows } => progress = Some(Progress::counting(&format!("copying {table}"), rows)),
        CopyStep::Checking { table, rows } => progress = Some(Progress::counting(&format!("checking {table}"), rows)),
        CopyStep::Waiting(what) => progress = Some(Progress::waiting(what)),
        CopyStep::RowsDone(rows) => progress.iter().for_each(|progress| progress.step(rows)),
    });
    drop(progress);
    match copied {
        Ok(copied) => print(&copy_summary(options, &copied)),
        Err(error @ CopyError::SameEngine { .. }) => Err(Failure::Usage(error.to_string()).into()),
        Err(error) => Err(error.into()),
    }
}

fn copy_summary(
    CopyOptions { from, to, .. }: &CopyOptions,
    CopySummary { position, tables, audit }: &CopySummary,
) -> String {
    let row = |TableSummary { table, count, digest }: &TableSummary| {
        vec![(*table).to_owned(), count.to_string(), digest.to_string()]
    };
    let rows: Vec<_> = tables.iter().map(row).collect();
    format!(
        "copied {from} to {to}, up to revision {} of the history {}\n{}{} audit events verified\n\
         start the control plane with --database {to} and the same token files: edges continue where they were. Don't start \
         another one with {from}\n",
        position.revision,
        position.epoch,
        table(&["table", "rows", "digest on both sides"], &rows),
        audit.events
    )
}
