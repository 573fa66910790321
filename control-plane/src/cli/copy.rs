//! `latchkey copy`: copies a database from a file to PostgreSQL, or back.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::output::{say, table};
use super::progress::Progress;
use crate::store::{Copied, CopyError, CopyStep, Database, Rows, copy};

/// What `latchkey copy` is told.
#[derive(Args)]
pub(super) struct CopyOptions {
    /// Where everything is now: the SQLite file, or postgres://user@host:5432/latchkey (docs/postgres.md). Is only read.
    #[arg(long, value_name = "FILE|URL")]
    from: Database,

    /// Where everything goes: an empty PostgreSQL, or a file that isn't there yet.
    #[arg(long, value_name = "FILE|URL")]
    to: Database,

    /// The password for PostgreSQL, where neither the URL nor PGPASSWORD has it. Refused when others can read the file.
    #[arg(long, env = "LATCHKEY_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    database_password_file: Option<PathBuf>,
}

pub(super) fn run_copy(options: &CopyOptions) -> anyhow::Result<()> {
    let with_password =
        |database: &Database| database.clone().with_password_file(options.database_password_file.clone());
    let mut progress = None;
    let copied = copy(&with_password(&options.from), &with_password(&options.to), &mut |step| match step {
        CopyStep::Copying { table, rows } => progress = Some(Progress::counting(&format!("copying {table}"), rows)),
        CopyStep::Checking { table, rows } => progress = Some(Progress::counting(&format!("checking {table}"), rows)),
        CopyStep::Waiting(what) => progress = Some(Progress::waiting(what)),
        CopyStep::Rows(rows) => progress.iter().for_each(|progress| progress.step(rows)),
    });
    drop(progress);
    match copied {
        Ok(copied) => say(&told(options, &copied)),
        Err(error @ CopyError::SameEngine { .. }) => Err(Failure::Usage(error.to_string()).into()),
        Err(error) => Err(error.into()),
    }
}

fn told(CopyOptions { from, to, .. }: &CopyOptions, Copied { position, tables, audit }: &Copied) -> String {
    let row = |Rows { table, count, digest }: &Rows| vec![(*table).to_owned(), count.to_string(), digest.to_string()];
    let rows: Vec<_> = tables.iter().map(row).collect();
    format!(
        "copied {from} to {to}, up to revision {} of the history {}\n{}{} audit events, each as it was written\n\
         start the control plane with --database {to} and the same token files: edges go on where they were. Start none with \
         {from} any more\n",
        position.revision,
        position.epoch,
        table(&["table", "rows", "digest on both sides"], &rows),
        audit.events
    )
}
