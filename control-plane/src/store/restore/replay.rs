//! An exported audit log, and what of it is carried out again: all that made keys and tokens weaker.
//!
//! Nothing of a log makes a key stronger than both backup and log say. Where the log can't tell (it holds no digest, so a
//! rotation's new secret is lost) the key is left without a secret that anybody knows.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use policy::{Allowlist, ChainHash, KeyId, Revision, Scopes, WorkspaceId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::audit::FIRST_HASH;
use super::super::changes::{self, Change};
use super::super::definitions::Numbers;
use super::super::sql::{Sql, params};
use super::super::{
    Acting, AuditHead, KeyPatch, NewSecret, Precondition, Rotation, StoreError, admin_tokens, edge_tokens, keys,
    secrets,
};

/// Why a log can't be applied.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot read it: {0}")]
    Read(io::Error),
    #[error(
        "line {0} is no audit event with its hash; export all events: GET /v1/audit-events with `Accept: application/jsonl`"
    )]
    NoEvent(usize),
    #[error(
        "line {0} does not follow from the event before it: the log was changed, has a gap, or is one workspace's alone"
    )]
    Broken(usize),
    #[error("it is not the log of the database that the backup was made of: at revision {0} they differ")]
    Foreign(Revision),
}

/// The events of a log that come after a backup, each following from the one before.
pub(super) struct Log {
    events: Vec<Logged>,
    /// Of all events, those that the backup has included.
    last: Option<Revision>,
}

struct Logged {
    json: String,
    hash: ChainHash,
    event: Written,
}

/// An event, as far as it is looked at.
#[derive(Deserialize)]
struct Written {
    revision: Revision,
    action: String,
    target: Option<Target>,
    workspace_id: Option<WorkspaceId>,
    after: Option<Map<String, Value>>,
    /// Only in an export.
    hash: String,
}

#[derive(Deserialize)]
struct Target {
    kind: String,
    id: String,
    name: String,
}

/// What a log led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The log's last event.
    pub until: Option<Revision>,
    pub deactivated: usize,
    /// Keys whose secret was ended; the new one is lost with the database, so each needs another: id and name.
    pub rotated: Vec<(KeyId, String)>,
    pub deleted: usize,
    /// Keys whose scopes or allowlist were changed.
    pub updated: usize,
    pub revoked_tokens: usize,
    /// Keys that were made after the backup: they are unknown now, and so are their secrets.
    pub lost_keys: usize,
}

/// Reads the log at `path`, which must lead on from the backup's last event.
pub(super) fn read(path: &Path, backup: Revision, head: Option<AuditHead>) -> Result<Log, LogError> {
    let lines = BufReader::new(File::open(path).map_err(LogError::Read)?).lines();
    let mut log = Log { events: Vec::new(), last: None };
    let mut before = head.map_or(FIRST_HASH, |head| head.hash);
    for (number, line) in (1..).zip(lines) {
        let line = line.map_err(LogError::Read)?;
        let Some(Logged { json, hash, event }) = parse(&line) else { return Err(LogError::NoEvent(number)) };
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
        log.events.push(Logged { json, hash, event });
    }
    Ok(log)
}

/// A line of an export: the event as it was hashed, with its hash behind.
fn parse(line: &str) -> Option<Logged> {
    let event: Written = serde_json::from_str(line).ok()?;
    let hash = event.hash.parse().ok()?;
    let json = format!("{}}}", line.strip_suffix(&format!(",\"hash\":\"{hash}\"}}"))?);
    Some(Logged { json, hash, event })
}

impl Log {
    pub(super) fn last(&self) -> Option<Revision> {
        self.last
    }

    /// Adds the events as they were written, so that who did what after the backup is not forgotten.
    pub(super) fn append(&self, sql: Sql<'_>) -> Result<(), StoreError> {
        let mut insert = sql.prepare("INSERT INTO audit_events (revision, event, hash) VALUES (?1, ?2, ?3)")?;
        for Logged { json, hash, event } in &self.events {
            insert.execute(params![changes::number(event.revision)?, json, hash.0])?;
        }
        Ok(())
    }

    /// Carries out, as changes of the new history, what made keys and tokens weaker.
    pub(super) fn apply(
        &self,
        change: &Change<'_>,
        numbers: &Numbers,
        acting: &Acting,
        secret: &mut dyn FnMut() -> Result<NewSecret, StoreError>,
    ) -> Result<Replayed, StoreError> {
        let mut replay = Replay {
            change,
            numbers,
            acting,
            secret,
            deactivated: BTreeSet::new(),
            rotated: BTreeSet::new(),
            done: Replayed { until: self.last, ..Replayed::default() },
        };
        for Logged { event, .. } in &self.events {
            match replay.event(event) {
                // What was made after the backup isn't there; what has expired is dead.
                Ok(()) | Err(StoreError::NotFound | StoreError::ExpiredKey) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(replay.done)
    }
}

struct Replay<'a> {
    change: &'a Change<'a>,
    numbers: &'a Numbers,
    acting: &'a Acting,
    secret: &'a mut dyn FnMut() -> Result<NewSecret, StoreError>,
    /// Deactivated by this log.
    deactivated: BTreeSet<KeyId>,
    /// Left without a secret that anybody knows.
    rotated: BTreeSet<KeyId>,
    done: Replayed,
}

impl Replay<'_> {
    fn event(&mut self, event: &Written) -> Result<(), StoreError> {
        let Some(target) = &event.target else {
            if event.action == "keys.import" {
                let keys = event.after.as_ref().and_then(|after| after.get("keys")?.as_array().map(Vec::len));
                self.done.lost_keys = self.done.lost_keys.saturating_add(keys.unwrap_or_default());
            }
            return Ok(());
        };
        match (event.action.as_str(), target.kind.as_str()) {
            ("admin-token.revoke", _) => {
                let id = target.id.parse().map_err(|_| StoreError::NotFound)?;
                admin_tokens::revoke(self.change, id, None, &Precondition::None, self.acting)?;
                self.done.revoked_tokens = self.done.revoked_tokens.saturating_add(1);
                Ok(())
            }
            ("edge-token.revoke", _) => {
                let id = target.id.parse().map_err(|_| StoreError::NotFound)?;
                edge_tokens::revoke(self.change, id, &Precondition::None, self.acting)?;
                self.done.revoked_tokens = self.done.revoked_tokens.saturating_add(1);
                Ok(())
            }
            ("key.create", _) => {
                self.done.lost_keys = self.done.lost_keys.saturating_add(1);
                Ok(())
            }
            (action, "key") => {
                let id = target.id.parse().map_err(|_| StoreError::NotFound)?;
                let key = (event.workspace_id.ok_or(StoreError::NotFound)?, id);
                self.of_key(action, key, &target.name, event.after.as_ref())
            }
            // Of workspaces, instances and tokens that were made: nothing that a key could gain or lose by.
            _ => Ok(()),
        }
    }

    fn of_key(
        &mut self,
        action: &str,
        key: (WorkspaceId, KeyId),
        name: &str,
        after: Option<&Map<String, Value>>,
    ) -> Result<(), StoreError> {
        match action {
            "key.delete" => {
                keys::delete(self.change, key, &Precondition::None, self.acting)?;
                self.done.deleted = self.done.deleted.saturating_add(1);
            }
            "key.rotate" => self.rotate(key, name)?,
            "key.end-overlap" => {
                secrets::end_overlap(self.change, self.numbers, key, &Precondition::None, self.acting)?;
            }
            "key.update" => self.update(key, after)?,
            // What the backup has as inactive stays so: only a deactivation of this log is undone by it.
            "key.activate" => {
                if self.deactivated.remove(&key.1) {
                    keys::set_active(self.change, self.numbers, key, true, &Precondition::None, self.acting)?;
                    self.done.deactivated = self.done.deactivated.saturating_sub(1);
                }
            }
            // Whatever else it was, of a newer version: in doubt the key is stopped, which can be undone.
            _ => self.deactivate(key)?,
        }
        Ok(())
    }

    fn deactivate(&mut self, key: (WorkspaceId, KeyId)) -> Result<(), StoreError> {
        if keys::find(self.change.sql(), key.0, key.1)?.active {
            keys::set_active(self.change, self.numbers, key, false, &Precondition::None, self.acting)?;
            self.deactivated.insert(key.1);
            self.done.deactivated = self.done.deactivated.saturating_add(1);
        }
        Ok(())
    }

    /// The old secret ends at once, also where the log says that it had an overlap: nobody can say whether it was rotated
    /// because it had leaked. The new one is lost, so one takes its place that nobody knows.
    fn rotate(&mut self, key: (WorkspaceId, KeyId), name: &str) -> Result<(), StoreError> {
        if !self.rotated.contains(&key.1) {
            let secret = (self.secret)()?;
            let new = (&secret, Rotation::EndAll);
            secrets::rotate(self.change, self.numbers, key, new, &Precondition::None, self.acting)?;
            self.rotated.insert(key.1);
            self.done.rotated.push((key.1, name.to_owned()));
        }
        Ok(())
    }

    /// What a key may do, and from where. A scope that the backup's catalogue lacks is left out.
    fn update(&mut self, key: (WorkspaceId, KeyId), after: Option<&Map<String, Value>>) -> Result<(), StoreError> {
        let field = |name: &str| after.and_then(|after| after.get(name)).cloned();
        let scopes = field("scopes").map(serde_json::from_value::<Scopes>).transpose();
        let allowlist = field("ip_allowlist").map(serde_json::from_value::<Allowlist>).transpose();
        let (Ok(scopes), Ok(allowlist)) = (scopes, allowlist) else { return self.deactivate(key) };
        let scopes = scopes.map(|mut scopes| {
            scopes.retain(|scope, _| self.numbers.knows(scope));
            scopes
        });
        if scopes.is_some() || allowlist.is_some() {
            let patch = KeyPatch { name: None, scopes, allowlist, metadata: None };
            keys::update(self.change, self.numbers, key, patch, &Precondition::None, self.acting)?;
            self.done.updated = self.done.updated.saturating_add(1);
        }
        Ok(())
    }
}
