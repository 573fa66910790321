//! Compares the database in use with a backup: what a restore would lose.

use policy::{ChainHash, Position, Revision};
use rusqlite::Connection;

use super::super::backup::open_source;
use crate::store::db::lock::Lock;
use crate::store::db::sql::{NONE, Sql, params};
use crate::store::db::sqlite_schema::is_ours;
use crate::store::history::changes;
use crate::store::records::instances;
use crate::store::{AuditHead, Instance};

/// The database that the backup would replace.
pub(super) enum Current {
    /// Why there is nothing to compare with: no database, or one that can't be read.
    Unavailable(&'static str),
    Readable(CurrentDatabase),
}

pub(super) struct CurrentDatabase {
    sql: Connection,
    position: Position,
    /// The highest revision that an edge has reported, if above the database's own.
    reported: Revision,
    /// How it relates to the backup.
    relation: HistoryRelation,
    backup: Revision,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HistoryRelation {
    /// The backup's last event is in it, or it is an older copy of the backup's history.
    Same,
    /// Of the backup's epoch, but with different changes.
    Diverged,
    /// Of another epoch, with a higher revision: it may have been restored since.
    Later,
    /// Of another epoch, without a higher revision: an unrelated database.
    Unrelated,
}

/// What a restore would lose.
pub(super) enum Loss {
    None,
    Some { reached: Revision, undone: String },
    Unknown { why: String },
}

/// Reads the database in use. `lock` keeps control planes from using it.
pub(super) fn open(lock: &Lock, backup: Position, head: Option<AuditHead>) -> Current {
    if lock.path.metadata().is_ok_and(|found| found.len() == 0) {
        return Current::Unavailable("there is no database to compare the backup with");
    }
    let found = || -> Option<CurrentDatabase> {
        let sql = open_source(&lock.path).ok()?;
        if !is_ours(&sql).ok()? {
            return None;
        }
        let position = changes::position(Sql::Sqlite(&sql)).ok()?;
        // An older schema has no such column.
        let reported = "SELECT reported_revision FROM position WHERE one = 1";
        let reported = Sql::Sqlite(&sql).query_row(reported, NONE, |row| row.get(0)).unwrap_or(Revision(0));
        let relation = if position.epoch == backup.epoch {
            if contains_head(&sql, position, head) { HistoryRelation::Same } else { HistoryRelation::Diverged }
        } else if position.revision > backup.revision {
            HistoryRelation::Later
        } else {
            HistoryRelation::Unrelated
        };
        Some(CurrentDatabase { sql, position, reported, relation, backup: backup.revision })
    };
    found().map_or(Current::Unavailable("the database can't be read"), Current::Readable)
}

/// Whether the database contains the backup's newest event, or ends before it.
fn contains_head(sql: &Connection, position: Position, head: Option<AuditHead>) -> bool {
    let Some(head) = head else { return false };
    if position.revision < head.revision {
        return true;
    }
    let hash = "SELECT hash FROM audit_events WHERE revision = ?1";
    let hash = Sql::Sqlite(sql).query_row(hash, params![head.revision], |row| row.get(0));
    hash.is_ok_and(|hash: ChainHash| hash == head.hash)
}

impl Current {
    /// The highest revision that the history is known to have reached; `None` if this database can't show it.
    pub(super) fn reached(&self, backup: Position) -> Option<Revision> {
        match self {
            Self::Readable(found) if found.relation != HistoryRelation::Unrelated => {
                Some(found.position.revision.max(found.reported).max(backup.revision))
            }
            Self::Readable(_) | Self::Unavailable(_) => None,
        }
    }

    /// What is lost up to `reached`, given that everything up to `covered` is in the backup or replayed.
    pub(super) fn loss(&self, reached: Option<Revision>, covered: Revision) -> Loss {
        let why = match self {
            Self::Unavailable(why) => *why,
            Self::Readable(_) => "the database has another history than the backup",
        };
        let Some(reached) = reached else { return Loss::Unknown { why: why.to_owned() } };
        let has_other_changes = matches!(self, Self::Readable(found) if found.relation == HistoryRelation::Diverged);
        if reached > covered || has_other_changes { Loss::Some { reached, undone: self.undone() } } else { Loss::None }
    }

    /// The instances in it; `None` if there is no database, or it is unrelated or of an older schema.
    pub(super) fn instances(&self) -> Option<Vec<Instance>> {
        match self {
            Self::Readable(found) if found.relation != HistoryRelation::Unrelated => {
                instances::all(Sql::Sqlite(&found.sql)).ok()
            }
            Self::Readable(_) | Self::Unavailable(_) => None,
        }
    }

    /// What was revoked since the backup, according to this database.
    fn undone(&self) -> String {
        let Self::Readable(found) = self else { return String::new() };
        let count = |actions: &str| -> i64 {
            let statement = format!("SELECT count(*) FROM audit_events WHERE revision > ?1 AND action IN ({actions})");
            let sql = Sql::Sqlite(&found.sql);
            sql.query_row(&statement, params![found.backup], |row| row.get(0)).unwrap_or_default()
        };
        let counts = [
            ("deactivations", count("'key.deactivate'")),
            ("rotations", count("'key.rotate', 'key.end-overlap'")),
            ("deletions", count("'key.delete'")),
            ("revoked tokens", count("'admin-token.revoke', 'edge-token.revoke'")),
        ];
        let listed: Vec<_> =
            counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what}: {count}")).collect();
        if listed.is_empty() { String::new() } else { format!(" ({})", listed.join(", ")) }
    }
}
