//! A control plane for tests: real snapshots and deltas, no sockets.

use std::collections::BTreeMap;
use std::rc::Rc;

use policy::key_text::{Kind, compose};
use policy::wire::{KeyRecord, Op, Snapshot, SnapshotBuilder, encode_change, encode_delta};
use policy::{Allowlist, Digest, Environment, Epoch, KeyId, Level, Position, Revision, UnixSeconds, WorkspaceId};

use crate::host::CallAnswer;
use crate::subscription::FeedResponse;

/// The scopes it has, in the order of their numbers.
pub(crate) const SCOPES: [&str; 2] = ["reviews", "webhooks"];

/// Answers fetches like the real control plane, at once instead of after a long poll.
#[derive(Clone)]
pub(crate) struct FakeControlPlane {
    pub time_ms: i64,
    pub position: Position,
    first: Revision,
    bodies: Vec<Vec<u8>>,
    records: BTreeMap<Digest, KeyRecord>,
    /// The snapshot for edges that start, until [`Self::snapshot_now`].
    snapshot: Rc<Snapshot>,
}

impl FakeControlPlane {
    pub(crate) fn new(epoch: u8) -> Self {
        let position = Position::first(Epoch::from_bytes([epoch; 16]), Revision(u64::from(epoch) * 1_000));
        Self {
            time_ms: 1_000_000,
            position,
            first: position.revision,
            bodies: Vec::new(),
            records: BTreeMap::new(),
            snapshot: builder(position).finish().unwrap().into(),
        }
    }

    pub(crate) fn change(&mut self, ops: &[Op]) {
        let body = encode_change(ops).unwrap();
        self.position = self.position.then(&body).unwrap();
        self.bodies.push(body);
        for op in ops {
            match op {
                Op::Upsert(record) => drop(self.records.insert(record.digest, record.clone())),
                Op::Remove(digest) => drop(self.records.remove(digest)),
                Op::DefineScope { .. } | Op::DefineEnvironment { .. } => {}
            }
        }
    }

    /// Edges that start from now on get a snapshot of the current records.
    pub(crate) fn snapshot_now(&mut self) {
        let mut builder = builder(self.position);
        self.records.values().for_each(|record| builder.push(record).unwrap());
        self.snapshot = builder.finish().unwrap().into();
    }

    pub(crate) fn respond(&self, path: &str) -> FeedResponse {
        let (status, body) = self.status_and_body(path);
        FeedResponse { status: Some(status), time_ms: Some(self.time_ms), head: None, retry_after_secs: None, body }
    }

    /// Whether the edge's history is a prefix of this one.
    fn has_history(&self, epoch: &str, since: Revision, head: &str) -> bool {
        let known = since.0.checked_sub(self.first.0).and_then(|known| usize::try_from(known).ok());
        let Some(bodies) = known.and_then(|known| self.bodies.get(..known)) else { return false };
        let reached =
            bodies.iter().fold(Position::first(self.position.epoch, self.first), |at, body| at.then(body).unwrap());
        epoch == reached.epoch.to_string() && head == reached.head.to_string()
    }

    fn status_and_body(&self, path: &str) -> (u16, Vec<u8>) {
        if let Some(page) = path.strip_prefix("/edge/v1/snapshots/") {
            let mut parts = page.split('/');
            let wanted = format!("{}/{}", self.snapshot.position.epoch, self.snapshot.position.revision);
            if format!("{}/{}", parts.next().unwrap(), parts.next().unwrap()) != wanted {
                return (410, Vec::new());
            }
            let number: usize = parts.next().unwrap().parse().unwrap();
            return (200, self.snapshot.pages[number].clone());
        }
        let query: BTreeMap<&str, &str> =
            path.split_once('?').unwrap().1.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let since = query.get("since").map(|since| Revision(since.parse().unwrap()));
        match since {
            Some(since) if self.has_history(query["epoch"], since, query["head"]) => {
                if since == self.position.revision {
                    return (204, Vec::new());
                }
                let known = usize::try_from(since.0 - self.first.0).unwrap();
                (200, encode_delta(since, self.position, &self.bodies[known..]).unwrap())
            }
            _ => (200, self.snapshot.manifest.clone()),
        }
    }
}

/// The answer to a call for `path`, as Envoy would deliver it.
pub(crate) fn answer_of(control_plane: &FakeControlPlane, path: &str) -> CallAnswer {
    let FeedResponse { status, time_ms, body, .. } = control_plane.respond(path);
    let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
    let headers = [
        status.map(|status| header(":status", status.to_string())),
        time_ms.map(|time| header("latchkey-time", time.to_string())),
    ];
    CallAnswer { headers: headers.into_iter().flatten().collect(), body }
}

fn builder(position: Position) -> SnapshotBuilder {
    let scopes = SCOPES.iter().zip(0..).map(|(name, number)| (number, name.parse().unwrap())).collect();
    SnapshotBuilder::new(position, scopes, vec![(0, Environment::default())])
}

/// A secret that is derived from `seed`.
pub(crate) fn secret(seed: u8) -> String {
    let fill = |bytes: &mut [u8]| {
        bytes.fill(seed);
        Ok::<(), std::convert::Infallible>(())
    };
    compose(&Kind::Key(Environment::default()), fill).unwrap()
}

/// An active key that may read reviews, from any address, and never expires.
pub(crate) fn record(secret: &str) -> KeyRecord {
    KeyRecord {
        digest: Digest::of(secret.as_bytes()),
        key: KeyId::from_bytes([1; 16]),
        workspace: WorkspaceId::from_bytes([2; 16]),
        slug: "acme".to_owned(),
        environment: 0,
        active: true,
        expires_at: UnixSeconds::DISTANT_FUTURE,
        superseded_at: UnixSeconds::DISTANT_FUTURE,
        grants: vec![(0, Level::Read)],
        allowlist: Allowlist::Any,
    }
}
