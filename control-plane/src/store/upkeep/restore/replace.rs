//! Replaces one database file by another, so that a crash leaves one of the two intact.

use std::io;
use std::path::{Path, PathBuf};

use policy::UnixSeconds;
use rusqlite::{Connection, OpenFlags};

use super::super::backup::{TemporaryFile, sync_directory};
use super::file_timestamp;
use crate::store::db::lock::{Lock, with_suffix};
use crate::store::db::sqlite_schema::is_ours;

/// Puts a complete, synced database at the lock's path. Returns where the previous one is kept.
pub(super) fn replace_database(restored: TemporaryFile, lock: &Lock, at: UnixSeconds) -> io::Result<Option<PathBuf>> {
    let kept_as = if lock.path.metadata()?.len() == 0 { None } else { Some(keep(&lock.path, at)?) };
    restored.persist(&lock.path)?;
    Ok(kept_as)
}

/// Keeps the database under a second name. It also stays at its path until another one replaces it.
fn keep(database: &Path, at: UnixSeconds) -> io::Result<PathBuf> {
    // A WAL left behind would be applied to the next database. One that can't be emptied is moved, below.
    let _ = empty_wal(database);
    let name = file_timestamp(at);
    let mut kept = with_suffix(database, &format!(".before-{name}"));
    // There may be several restores within a second.
    let mut count = 1_u32;
    while let Err(error) = std::fs::hard_link(database, &kept) {
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        count = count.saturating_add(1);
        kept = with_suffix(database, &format!(".before-{name}-{count}"));
    }
    for suffix in ["-wal", "-shm"] {
        match std::fs::rename(with_suffix(database, suffix), with_suffix(&kept, suffix)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sync_directory(database)?;
    Ok(kept)
}

fn empty_wal(database: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sql = Connection::open_with_flags(database, flags)?;
    if is_ours(&sql)? {
        sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    // Closing the last connection removes both files.
    sql.close().map_err(|(_, error)| error)
}
