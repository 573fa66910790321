//! Restores a backup as a new history, and refuses to if something that was revoked would become valid unnoticed.
//!
//! See `docs/decisions/restore.md`.

mod compare;
mod replace;
mod replay;
mod server;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use policy::{Epoch, Position, Revision, UnixSeconds};
use serde_json::{Map, Value, json};

use self::compare::Loss;
pub use self::replay::{LogError, ReplaySummary};
pub use self::server::restore_in_place;
use super::backup::{TemporaryFile, copy_into, open_source};
use crate::store::db::lock::{Lock, OpenError};
use crate::store::db::sql::{NONE, Sql, params};
use crate::store::db::sqlite_schema::{check_version, is_ours, open_copy};
use crate::store::history::audit::{self, Event};
use crate::store::history::changes::{self, Change, Write};
use crate::store::history::id_catalogue::IdCatalogue;
use crate::store::records::instances;
use crate::store::{ChangeContext, Instance, NewSecret, StoreError};

/// How far above the backup or the replayed log a new history begins if it is unknown how far the old one came: no
/// control plane makes so many changes between two backups.
const UNKNOWN_HISTORY_GAP: u64 = 1_000_000_000;

/// What to do about changes that would be lost, and that a replay of the audit log doesn't restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostChanges {
    Refused,
    Accepted,
}

/// What to restore, and how.
pub struct Restore<'a> {
    pub from: &'a Path,
    pub database: &'a Path,
    pub plan: RestorePlan<'a>,
}

/// How a backup becomes a new history.
pub struct RestorePlan<'a> {
    /// An exported audit log to replay.
    pub log: Option<&'a Path>,
    /// The highest revision that any edge has reported, if it is known.
    pub reported: Option<Revision>,
    pub lost_changes: LostChanges,
    /// Of the new history.
    pub epoch: Epoch,
    pub context: ChangeContext,
}

/// The result of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreSummary {
    /// The last change that the backup had.
    pub backup: Revision,
    /// The database's last change now.
    pub revision: Revision,
    /// The highest revision that the old history is known to have reached; `None` if that is unknown.
    pub reached: Option<Revision>,
    /// `None` without an audit log.
    pub replayed: Option<ReplaySummary>,
    /// Where the replaced database is kept; `None` if there was none.
    pub kept_as: Option<PathBuf>,
}

/// Why nothing was restored. Each message names the file and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("backup {path}: cannot read it: {cause}")]
    Read { path: PathBuf, cause: rusqlite::Error },
    #[error("backup {path}: it is not one of Latchkey's; name a file that `latchkey backup` made")]
    NotOurs { path: PathBuf },
    #[error("backup {path}: it is the database itself; name the copy to restore with --from")]
    SameFile { path: PathBuf },
    #[error("audit log {path}: {cause}")]
    Log { path: PathBuf, cause: LogError },
    #[error("database {database}: it has no Latchkey schema; restore the backup into it first")]
    NoDatabase { database: String },
    #[error("database {database}: a control plane serves from it; stop all of them first")]
    Served { database: String },
    #[error(
        "database {database}: the backup ends at revision {backup} ({backup_at}), and revision {reached} was reached since{undone}: what was revoked in between would be valid again. Give --replay-audit with an audit log that was exported later, or accept the loss with --accept-lost-changes; nothing was changed"
    )]
    Lost { database: String, backup: Revision, backup_at: String, reached: Revision, undone: String },
    #[error(
        "database {database}: {why}, so it is unknown what changed after the backup's revision {backup} ({backup_at}): what was revoked since would be valid again. Give the highest revision of the edges (their metric latchkey_revision) with --reported-revision, or accept the loss with --accept-lost-changes; nothing was changed"
    )]
    Unknown { database: String, backup: Revision, backup_at: String, why: String },
    #[error("database {path}: {cause}; check its directory and the disk")]
    Io { path: PathBuf, cause: io::Error },
    #[error("database {database}: {cause}")]
    Store { database: String, cause: StoreError },
}

/// Replaces the database, which no control plane may have open, by the backup. `secret` generates secrets that nobody
/// will know.
pub fn restore(
    what: &Restore<'_>,
    secret: &mut dyn FnMut() -> Result<NewSecret, StoreError>,
) -> Result<RestoreSummary, RestoreError> {
    let was_there = what.database.symlink_metadata().is_ok();
    let lock = Lock::acquire(what.database)?;
    let restored = restore_locked(what, &lock, secret);
    if restored.is_err() && !was_there && lock.path.metadata().is_ok_and(|found| found.len() == 0) {
        // The lock created it. An empty file would look like a database that lost its contents.
        let _ = std::fs::remove_file(&lock.path);
    }
    restored
}

fn restore_locked(
    what: &Restore<'_>,
    lock: &Lock,
    secret: &mut dyn FnMut() -> Result<NewSecret, StoreError>,
) -> Result<RestoreSummary, RestoreError> {
    let from = || what.from.to_owned();
    let read = |cause| RestoreError::Read { path: from(), cause };
    let io_error = |cause| RestoreError::Io { path: lock.path.clone(), cause };
    let database = lock.path.display().to_string();
    let store = |cause| RestoreError::Store { database: database.clone(), cause };
    if what.from.canonicalize().is_ok_and(|from| from == lock.path) {
        return Err(RestoreError::SameFile { path: from() });
    }
    let source = open_source(what.from).map_err(read)?;
    if !is_ours(&source).map_err(read)? {
        return Err(RestoreError::NotOurs { path: from() });
    }
    check_version(&source, what.from)?;
    let unfinished = TemporaryFile::create(&lock.path).map_err(io_error)?;
    let source = source.unchecked_transaction().map_err(read)?;
    copy_into(&source, &unfinished.path).map_err(read)?;
    drop(source);

    let copy = open_copy(&unfinished.path)?;
    let backup = changes::position(Sql::Sqlite(&copy)).map_err(store)?;
    let head = audit::head(Sql::Sqlite(&copy)).map_err(store)?;
    let log = what.plan.log.map(|path| {
        let broken = |cause| RestoreError::Log { path: path.to_owned(), cause };
        replay::read(path, backup.revision, head).map_err(broken)
    });
    let log = log.transpose()?;
    let current = compare::open(lock, backup, head);
    let covered = log.as_ref().and_then(|log| log.last()).unwrap_or(backup.revision).max(backup.revision);
    let reached = current.reached(backup).into_iter().chain(what.plan.reported).max();
    if what.plan.lost_changes == LostChanges::Refused {
        let loss = current.loss(reached, covered);
        refuse_loss(&database, Sql::Sqlite(&copy), backup.revision, loss).map_err(|error| *error)?;
    }
    let history =
        History { backup: backup.revision, base_revision: base_revision(reached, covered), reached, log: log.as_ref() };
    let transaction = copy.unchecked_transaction().map_err(|error| store(error.into()))?;
    let done = begin_new_history(Sql::Sqlite(&transaction), &what.plan, current.instances(), &history, secret)
        .map_err(store)?;
    transaction.commit().map_err(|error| store(error.into()))?;
    drop(current);
    copy.close().map_err(|(_, error)| store(error.into()))?;
    File::open(&unfinished.path).and_then(|file| file.sync_all()).map_err(io_error)?;
    let kept_as = replace::replace_database(unfinished, lock, what.plan.context.at).map_err(io_error)?;
    Ok(RestoreSummary { backup: backup.revision, revision: done.0, reached, replayed: done.1, kept_as })
}

fn refuse_loss(database: &str, sql: Sql<'_>, backup: Revision, loss: Loss) -> Result<(), Box<RestoreError>> {
    let at = changes::changed_at(sql, backup).ok().flatten();
    let backup_at = at.map_or_else(|| "of an unknown time".to_owned(), crate::base::instant::text);
    let database = database.to_owned();
    match loss {
        Loss::None => Ok(()),
        Loss::Some { reached, undone } => {
            Err(Box::new(RestoreError::Lost { database, backup, backup_at, reached, undone }))
        }
        Loss::Unknown { why } => Err(Box::new(RestoreError::Unknown { database, backup, backup_at, why })),
    }
}

/// The revision after which the new history begins.
fn base_revision(reached: Option<Revision>, covered: Revision) -> Revision {
    match reached {
        Some(reached) => reached.max(covered),
        None => Revision(covered.0.saturating_add(UNKNOWN_HISTORY_GAP)),
    }
}

/// The bounds of the history that ends and of the one that begins.
struct History<'a> {
    backup: Revision,
    /// The revision before the first one of the new history.
    base_revision: Revision,
    reached: Option<Revision>,
    log: Option<&'a replay::Log>,
}

/// Begins a new history, in a transaction that has begun. Edges need a snapshot, because none of their positions is in
/// it. `known`, if given, replaces the database's instances. Returns the last revision, and the result of the replay.
fn begin_new_history(
    sql: Sql<'_>,
    what: &RestorePlan<'_>,
    known: Option<Vec<Instance>>,
    history: &History<'_>,
    secret: &mut dyn FnMut() -> Result<NewSecret, StoreError>,
) -> Result<(Revision, Option<ReplaySummary>), StoreError> {
    // The instances that may still decide by their old tables now, not those of the time of the backup.
    if let Some(known) = known {
        sql.execute("DELETE FROM instances", NONE)?;
        for instance in &known {
            instances::save(sql, instance)?;
        }
    }
    if let Some(log) = history.log {
        log.append(sql)?;
    }
    let first = Position::first(what.epoch, history.base_revision);
    // Otherwise a person who signed out since the backup would be signed in again.
    sql.execute("DELETE FROM sessions", NONE)?;
    sql.execute("DELETE FROM changes", NONE)?;
    sql.execute(
        "UPDATE position SET epoch = ?1, first_revision = ?2, revision = ?2, head = ?3, reported_revision = 0",
        params![first.epoch, first.revision, first.head],
    )?;
    let tokens_differ = Cell::new(false);
    let (write, catalogue) = (Write::new(sql, &tokens_differ), IdCatalogue::read(sql)?);
    let change = Change::new(&write, &catalogue, &what.context);
    let after = [
        ("backup_revision", json!(history.backup)),
        ("reached_revision", json!(history.reached)),
        ("replayed_until", json!(history.log.and_then(|log| log.last()))),
    ];
    let after: Map<String, Value> = after.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    change.record(&Event::of_all("database.restore", after), &[])?;
    let replayed = history.log.map(|log| log.apply(&change, secret)).transpose()?;
    Ok((change.position()?.revision, replayed))
}

/// The time, as a part of the file name of a replaced database.
fn file_timestamp(at: UnixSeconds) -> String {
    crate::base::instant::text(at).replace([':', '-'], "")
}
