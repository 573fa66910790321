//! Replays an exported audit log: the events that restricted keys and revoked tokens.
//!
//! After a replay no key may do more than in both the backup and the log. A log contains no digests, so a rotation's
//! new secret is lost: the key is left without a secret that anybody knows.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use policy::{Allowlist, ChainHash, KeyId, Revision, Scopes, WorkspaceId};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::store::db::sql::{Sql, params};
use crate::store::history::audit::FIRST_HASH;
use crate::store::history::changes::Change;
use crate::store::records::{edge_tokens, keys, secrets, tokens};
use crate::store::{AdminToken, AuditHead, KeyPatch, NewSecret, Precondition, Rotation, StoreError};

/// Why a log can't be applied.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot read it: {0}")]
    Read(io::Error),
    #[error(
        "line {0} is not an audit event with its hash; export all events: GET /v1/audit-events with `Accept: application/jsonl`"
    )]
    NoEvent(usize),
    #[error(
        "line {0} does not follow from the event before it: the log was changed, has a gap, or has only one workspace's events"
    )]
    Broken(usize),
    #[error("it is not the log of the database that the backup was made of: at revision {0} they differ")]
    Foreign(Revision),
}

/// The events of a log after a backup, each chained to the one before.
pub(super) struct Log {
    events: Vec<LogEntry>,
    /// The highest revision of all events, including those that the backup has.
    last: Option<Revision>,
}

struct LogEntry {
    json: String,
    hash: ChainHash,
    event: LogEvent,
}

/// The fields of an event that a replay reads.
#[derive(Deserialize)]
struct LogEvent {
    revision: Revision,
    action: String,
    target: Option<LogTarget>,
    workspace_id: Option<WorkspaceId>,
    after: Option<Map<String, Value>>,
    /// Only in an export.
    hash: String,
}

#[derive(Deserialize)]
struct LogTarget {
    kind: String,
    id: String,
    name: String,
}

/// The result of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplaySummary {
    /// The revision of the log's last event.
    pub until: Option<Revision>,
    pub deactivated: usize,
    /// Id and name of keys whose secret was ended. The new secret is lost, so each key must be rotated again.
    pub rotated: Vec<(KeyId, String)>,
    pub deleted: usize,
    /// Keys whose scopes or allowlist were changed.
    pub updated: usize,
    pub revoked_tokens: usize,
    /// Keys created after the backup. They don't exist in the restored database, and their secrets are unknown.
    pub lost_keys: usize,
}

/// Reads the log at `path`. It must continue from the backup's last event.
pub(super) fn read(path: &Path, backup: Revision, head: Option<AuditHead>) -> Result<Log, LogError> {
    let lines = BufReader::new(File::open(path).map_err(LogError::Read)?).lines();
    let mut log = Log { events: Vec::new(), last: None };
    let mut before = head.map_or(FIRST_HASH, |head| head.hash);
    for (number, line) in (1..).zip(lines) {
        let line = line.map_err(LogError::Read)?;
        let Some(LogEntry { json, hash, event }) = parse(&line) else { return Err(LogError::NoEvent(number)) };
        log.last = log.last.max(Some(event.revision));
        if event.revision < backup {
            continue;
        }
        if event.revision == backup {
            if hash != before {
                return Err(LogError::Foreign(backup));
            }
            continue;
        }
        if before.then(event.revision, json.as_bytes()) != hash {
            return Err(LogError::Broken(number));
        }
        before = hash;
        log.events.push(LogEntry { json, hash, event });
    }
    Ok(log)
}

/// Parses a line of an export: the event as it was hashed, followed by its hash.
fn parse(line: &str) -> Option<LogEntry> {
    let event: LogEvent = serde_json::from_str(line).ok()?;
    let hash = event.hash.parse().ok()?;
    let json = format!("{}}}", line.strip_suffix(&format!(",\"hash\":\"{hash}\"}}"))?);
    Some(LogEntry { json, hash, event })
}

impl Log {
    pub(super) fn last(&self) -> Option<Revision> {
        self.last
    }

    /// Appends the events unchanged, so that the audit log shows who did what after the backup.
    pub(super) fn append(&self, sql: Sql<'_>) -> Result<(), StoreError> {
        let mut insert = sql.prepare("INSERT INTO audit_events (revision, event, hash) VALUES (?1, ?2, ?3)")?;
        for LogEntry { json, hash, event } in &self.events {
            insert.execute(params![event.revision, json, hash])?;
        }
        Ok(())
    }

    /// Repeats, as changes of the new history, the events that restricted keys and revoked tokens.
    pub(super) fn apply(
        &self,
        change: &Change<'_>,
        secret: &mut dyn FnMut() -> Result<NewSecret, StoreError>,
    ) -> Result<ReplaySummary, StoreError> {
        let mut replay = Replay {
            change,
            secret,
            deactivated: BTreeSet::new(),
            rotated: BTreeSet::new(),
            summary: ReplaySummary { until: self.last, ..ReplaySummary::default() },
        };
        for LogEntry { event, .. } in &self.events {
            match replay.apply_event(event) {
                // What was created after the backup doesn't exist here, and an expired key needs no change.
                Ok(()) | Err(StoreError::NotFound | StoreError::ExpiredKey) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(replay.summary)
    }
}

struct Replay<'a> {
    change: &'a Change<'a>,
    secret: &'a mut dyn FnMut() -> Result<NewSecret, StoreError>,
    /// Deactivated by this log.
    deactivated: BTreeSet<KeyId>,
    /// Given a secret that nobody knows.
    rotated: BTreeSet<KeyId>,
    summary: ReplaySummary,
}

impl Replay<'_> {
    fn apply_event(&mut self, event: &LogEvent) -> Result<(), StoreError> {
        let Some(target) = &event.target else {
            if event.action == "keys.import" {
                let keys = event.after.as_ref().and_then(|after| after.get("keys")?.as_array().map(Vec::len));
                self.summary.lost_keys = self.summary.lost_keys.saturating_add(keys.unwrap_or_default());
            }
            return Ok(());
        };
        match (event.action.as_str(), target.kind.as_str()) {
            ("admin-token.revoke", _) => {
                let id = target.id.parse().map_err(|_| StoreError::NotFound)?;
                tokens::revoke::<AdminToken>(self.change, id, None, &Precondition::None)?;
                self.summary.revoked_tokens = self.summary.revoked_tokens.saturating_add(1);
                Ok(())
            }
            ("edge-token.revoke", _) => {
                let id = target.id.parse().map_err(|_| StoreError::NotFound)?;
                edge_tokens::revoke(self.change, id, &Precondition::None)?;
                self.summary.revoked_tokens = self.summary.revoked_tokens.saturating_add(1);
                Ok(())
            }
            ("key.create", _) => {
                self.summary.lost_keys = self.summary.lost_keys.saturating_add(1);
                Ok(())
            }
            (action, "key") => {
                let id = target.id.parse().map_err(|_| StoreError::NotFound)?;
                let key = (event.workspace_id.ok_or(StoreError::NotFound)?, id);
                self.apply_key_event(action, key, &target.name, event.after.as_ref())
            }
            // Events of workspaces, of instances and of created tokens: they change no key's rights.
            _ => Ok(()),
        }
    }

    fn apply_key_event(
        &mut self,
        action: &str,
        key: (WorkspaceId, KeyId),
        name: &str,
        after: Option<&Map<String, Value>>,
    ) -> Result<(), StoreError> {
        match action {
            "key.delete" => {
                keys::delete(self.change, key, &Precondition::None)?;
                self.summary.deleted = self.summary.deleted.saturating_add(1);
            }
            "key.rotate" => self.rotate(key, name)?,
            "key.end-overlap" => {
                secrets::end_overlap(self.change, key, &Precondition::None)?;
            }
            "key.update" => self.update(key, after)?,
            // A key that is inactive in the backup stays inactive: only a deactivation by this log is undone.
            "key.activate" => {
                if self.deactivated.remove(&key.1) {
                    keys::set_active(self.change, key, true, &Precondition::None)?;
                    self.summary.deactivated = self.summary.deactivated.saturating_sub(1);
                }
            }
            // A deactivation, or an action of a newer version: in doubt the key is deactivated, which can be undone.
            _ => self.deactivate(key)?,
        }
        Ok(())
    }

    fn deactivate(&mut self, key: (WorkspaceId, KeyId)) -> Result<(), StoreError> {
        if keys::find(self.change.sql(), key.0, key.1)?.active {
            keys::set_active(self.change, key, false, &Precondition::None)?;
            self.deactivated.insert(key.1);
            self.summary.deactivated = self.summary.deactivated.saturating_add(1);
        }
        Ok(())
    }

    /// Ends the old secret immediately, even if the log has an overlap, because the rotation may have been due to a
    /// leak. The new secret is lost, so one that nobody knows replaces it.
    fn rotate(&mut self, key: (WorkspaceId, KeyId), name: &str) -> Result<(), StoreError> {
        if !self.rotated.contains(&key.1) {
            let secret = (self.secret)()?;
            let new = (&secret, Rotation::EndAll);
            secrets::rotate(self.change, key, new, &Precondition::None)?;
            self.rotated.insert(key.1);
            self.summary.rotated.push((key.1, name.to_owned()));
        }
        Ok(())
    }

    /// Sets a key's scopes and allowlist. A scope that the backup's catalogue lacks is left out.
    fn update(&mut self, key: (WorkspaceId, KeyId), after: Option<&Map<String, Value>>) -> Result<(), StoreError> {
        let field = |name: &str| after.and_then(|after| after.get(name)).cloned();
        let scopes = field("scopes").map(serde_json::from_value::<Scopes>).transpose();
        let allowlist = field("ip_allowlist").map(serde_json::from_value::<Allowlist>).transpose();
        let (Ok(scopes), Ok(allowlist)) = (scopes, allowlist) else { return self.deactivate(key) };
        let scopes = scopes.map(|mut scopes| {
            scopes.retain(|scope, _| self.change.catalogue().contains_scope(scope));
            scopes
        });
        if scopes.is_some() || allowlist.is_some() {
            let patch = KeyPatch { name: None, scopes, allowlist, metadata: None };
            keys::update(self.change, key, patch, &Precondition::None)?;
            self.summary.updated = self.summary.updated.saturating_add(1);
        }
        Ok(())
    }
}
