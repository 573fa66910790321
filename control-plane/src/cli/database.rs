//! `latchkey backup` and `latchkey restore`: the operator's commands that work on the database.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use policy::Revision;
use policy::key_text::Kind;

use super::failure::Failure;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::secret::LastCharacters;
use crate::serve::PasswordOption;
use crate::store::{
    BackupSummary, ChangeContext, Database, LostChanges, NewSecret, ReplaySummary, Restore, RestorePlan,
    RestoreSummary, StoreError, back_up, restore, restore_in_place,
};

/// The options of `latchkey backup`.
#[derive(Args)]
pub(super) struct BackupOptions {
    /// The SQLite database.
    #[arg(long, env = "LATCHKEY_DATABASE", value_name = "FILE", default_value = "latchkey.db", hide_env_values = true)]
    database: Database,

    /// The file to create. An existing file is not replaced.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// The options of `latchkey restore`.
#[derive(Args)]
pub(super) struct RestoreOptions {
    /// The backup file.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// The SQLite database to replace; the current one is kept beside it. Or the PostgreSQL database into which a
    /// backup was restored.
    #[arg(
        long,
        env = "LATCHKEY_DATABASE",
        value_name = "FILE|URL",
        default_value = "latchkey.db",
        hide_env_values = true
    )]
    database: Database,

    #[command(flatten)]
    password: PasswordOption,

    /// An audit log that was exported after the backup (GET /v1/audit-events with `Accept: application/jsonl`). What it
    /// records as deactivated, rotated, deleted, narrowed or revoked is so again. The secrets of rotations are lost:
    /// those keys need new ones.
    #[arg(long, value_name = "FILE")]
    replay_audit: Option<PathBuf>,

    /// The highest revision that any edge has reported, for when the database is lost: see the edges' metric
    /// latchkey_revision.
    #[arg(long, value_name = "REVISION")]
    reported_revision: Option<u64>,

    /// Restore although changes are lost. Secrets that were revoked since the backup are valid again.
    #[arg(long)]
    accept_lost_changes: bool,
}

pub(super) fn run_backup(options: &BackupOptions) -> anyhow::Result<()> {
    let database: &Path = match &options.database {
        Database::File(path) => path,
        database @ Database::Server { .. } => {
            bail!(
                "database {database}: it is in PostgreSQL; back it up with pg_dump, which takes a consistent snapshot (docs/postgres.md)"
            )
        }
    };
    let BackupSummary { revision, bytes } = back_up(database, &options.to)?;
    let (database, to) = (database.display(), options.to.display());
    writeln!(io::stdout(), "backed up {database} up to revision {revision} as {to}, {bytes} bytes")?;
    Ok(())
}

pub(super) fn run_restore(options: &RestoreOptions) -> anyhow::Result<()> {
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let plan = RestorePlan {
        log: options.replay_audit.as_deref(),
        reported: options.reported_revision.map(Revision),
        lost_changes: if options.accept_lost_changes { LostChanges::Accepted } else { LostChanges::Refused },
        epoch: entropy.id(&clock)?,
        context: ChangeContext::system(clock.now()),
    };
    // The secret is drawn and discarded: nobody can ever present the text for its digest.
    let mut secret = || {
        let made = entropy.secret(&Kind::Key(policy::Environment::default()));
        let made = made.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(NewSecret { digest: made.digest(), last_characters: LastCharacters(String::new()) })
    };
    let database = options.password.complete(&options.database);
    let restored = match (&database, &options.from) {
        (Database::File(database), Some(from)) => restore(&Restore { from, database, plan }, &mut secret)?,
        (Database::Server { url, password_file }, None) => {
            restore_in_place(url.expose(), password_file.as_deref(), &plan, &mut secret)?
        }
        (Database::File(_), None) => {
            return Err(Failure::Usage("--from is missing: name the backup".to_owned()).into());
        }
        (Database::Server { .. }, Some(_)) => {
            bail!(
                "database {database}: it is in PostgreSQL; stop all control planes, restore its backup with pg_restore or to a \
                 point in time, and run this without --from (docs/postgres.md)"
            )
        }
    };
    write!(io::stdout(), "{}", restore_summary(options, &restored))?;
    Ok(())
}

fn restore_summary(options: &RestoreOptions, restored: &RestoreSummary) -> String {
    let RestoreSummary { backup, revision, reached, replayed, kept_as } = restored;
    let from =
        options.from.as_ref().map_or_else(|| "the restored backup".to_owned(), |from| from.display().to_string());
    let mut text = format!(
        "restored {} from {from}, which ends at revision {backup}; a new history begins, now at revision {revision}\n",
        options.database
    );
    if let Some(kept_as) = kept_as {
        text.push_str(&format!("the previous database is kept as {}\n", kept_as.display()));
    }
    match (reached, replayed) {
        (Some(reached), None) if reached > backup => {
            text.push_str(&format!("lost: the changes of revisions {} to {reached}\n", backup.0.saturating_add(1)));
        }
        (None, None) => text.push_str(&format!("lost: all changes after revision {backup}\n")),
        _ => {}
    }
    if let Some(replayed) = replayed {
        text.push_str(&replay_summary(replayed));
    }
    text.push_str(
        "start the control plane; each edge loads the new history, or denies once its staleness bound has passed\n",
    );
    text
}

fn replay_summary(replayed: &ReplaySummary) -> String {
    let ReplaySummary { until, deactivated, rotated, deleted, updated, revoked_tokens, lost_keys } = replayed;
    let until = until.map_or_else(|| "nothing".to_owned(), |until| format!("up to revision {until}"));
    let mut text = format!(
        "replayed {until}: {deactivated} keys deactivated, {} rotated, {deleted} deleted, {updated} given other scopes or \
         allowlists; {revoked_tokens} tokens revoked\n",
        rotated.len()
    );
    if *lost_keys > 0 {
        text.push_str(&format!("{lost_keys} keys that were created since are lost: their secrets are unknown\n"));
    }
    for (id, name) in rotated {
        text.push_str(&format!("rotate again, its new secret is lost: {id} {name}\n"));
    }
    text
}
