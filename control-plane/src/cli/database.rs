//! `latchkey backup` and `latchkey restore`: the operator's commands that work on the database file.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use policy::Revision;
use policy::key_text::Kind;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::secret::LastCharacters;
use crate::store::{
    Acting, BackedUp, LostChanges, NewSecret, Replayed, Restore, Restored, StoreError, back_up, restore,
};

/// What `latchkey backup` is told.
#[derive(Args)]
pub(super) struct BackupOptions {
    /// The SQLite database.
    #[arg(long, env = "LATCHKEY_DATABASE", value_name = "FILE", default_value = "latchkey.db")]
    database: PathBuf,

    /// The file to make. What is there already is not replaced.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// What `latchkey restore` is told.
#[derive(Args)]
pub(super) struct RestoreOptions {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,

    /// The SQLite database to put it in the place of. What is there is kept beside it.
    #[arg(long, env = "LATCHKEY_DATABASE", value_name = "FILE", default_value = "latchkey.db")]
    database: PathBuf,

    /// An audit log that was exported after the backup (GET /v1/audit-events with `Accept: application/jsonl`). What it says
    /// was deactivated, rotated, deleted, narrowed or revoked is so again. The secrets of rotations are lost: those keys
    /// need new ones.
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
    let BackedUp { revision, bytes } = back_up(&options.database, &options.to)?;
    let (database, to) = (options.database.display(), options.to.display());
    writeln!(io::stdout(), "backed up {database} up to revision {revision} as {to}, {bytes} bytes")?;
    Ok(())
}

pub(super) fn run_restore(options: &RestoreOptions) -> anyhow::Result<()> {
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let what = Restore {
        from: &options.from,
        database: &options.database,
        log: options.replay_audit.as_deref(),
        reported: options.reported_revision.map(Revision),
        lost_changes: if options.accept_lost_changes { LostChanges::Accepted } else { LostChanges::Refused },
        epoch: entropy.id(&clock)?,
        acting: Acting::system(clock.now()),
    };
    // Made and forgotten: its digest keeps a place that nobody can fill.
    let mut secret = || {
        let made = entropy.secret(&Kind::Key(policy::Environment::default()));
        let made = made.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(NewSecret { digest: made.digest(), last_characters: LastCharacters(String::new()) })
    };
    let restored = restore(&what, &mut secret)?;
    write!(io::stdout(), "{}", told(options, &restored))?;
    Ok(())
}

fn told(options: &RestoreOptions, restored: &Restored) -> String {
    let Restored { backup, revision, reached, replayed, kept_as } = restored;
    let mut text = format!(
        "restored {} from {}, which ends at revision {backup}; a new history begins, now at revision {revision}\n",
        options.database.display(),
        options.from.display()
    );
    if let Some(kept_as) = kept_as {
        text.push_str(&format!("what was there is kept as {}\n", kept_as.display()));
    }
    match (reached, replayed) {
        (Some(reached), None) if reached > backup => {
            text.push_str(&format!("lost: the changes of revisions {} to {reached}\n", backup.0.saturating_add(1)));
        }
        (None, None) => text.push_str(&format!("lost: whatever was changed after revision {backup}\n")),
        _ => {}
    }
    if let Some(replayed) = replayed {
        text.push_str(&told_replayed(replayed));
    }
    text.push_str(
        "start the control plane; each edge loads the new history, and denies by its own bound until it can\n",
    );
    text
}

fn told_replayed(replayed: &Replayed) -> String {
    let Replayed { until, deactivated, rotated, deleted, updated, revoked_tokens, lost_keys } = replayed;
    let until = until.map_or_else(|| "nothing".to_owned(), |until| format!("up to revision {until}"));
    let mut text = format!(
        "replayed {until}: {deactivated} keys deactivated, {} rotated, {deleted} deleted, {updated} given other scopes or \
         allowlists; {revoked_tokens} tokens revoked\n",
        rotated.len()
    );
    if *lost_keys > 0 {
        text.push_str(&format!("{lost_keys} keys that were made since are lost: their secrets are unknown now\n"));
    }
    for (id, name) in rotated {
        text.push_str(&format!("rotate again, its new secret is lost: {id} {name}\n"));
    }
    text
}
