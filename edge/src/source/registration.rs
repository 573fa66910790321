//! This worker's registration in the membership of its Envoy: its ids, its heartbeat, and what the last one has read.

use policy::config::FeedMode;
use policy::protocol::timing::WORKER_LATE_MS;

use super::configurations::Bounds;
use super::random_id;
use crate::host::Host;
use crate::keys::Clocks;
use crate::process::membership::{Lease, Membership, WorkerEntry};
use crate::process::shared_store::SharedStore;

/// How often a write of the membership is tried while other workers write it, too. The next tick retries.
const ATTEMPTS: u32 = 16;

/// Which part of Envoy's shared data a source uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Not determined yet.
    Unknown,
    /// Nothing: the VM's id is empty, so any plugin could write there.
    Nothing,
    /// Only the membership: each worker subscribes for itself.
    Membership,
    /// Everything: one worker subscribes for all.
    Everything,
}

/// The result of a heartbeat.
pub(super) struct Renewal {
    pub(super) lease: Lease,
    /// Generations that other workers could not load.
    pub(super) broken: Vec<u64>,
}

/// This worker's registration.
pub(super) struct Registration {
    sharing: Sharing,
    /// Whether the VM's id is empty; `None` before it was read.
    vm_id_is_empty: Option<bool>,
    /// This worker's random id.
    id: Option<String>,
    /// The id of the Envoy process, from the membership; this worker's own id if nothing is shared.
    instance: Option<String>,
    /// When this worker started, by the monotonic clock and in Unix seconds.
    joined_ms: u64,
    started_at: i64,
    has_requests: bool,
    /// The root context that wakes are sent to, and its queue.
    queue: Option<(u32, u32)>,
    /// The last heartbeat, by the monotonic clock; `None`: never.
    renewed_ms: Option<u64>,
    /// When the next heartbeat is due; `None`: now.
    due_ms: Option<u64>,
    /// As of the last heartbeat: the leader's queue, the other workers' queues, and the bounds of all workers.
    leader: Option<u32>,
    peers: Vec<u32>,
    bounds: Bounds,
    /// The membership, if it was read or written in this event.
    current: Option<Membership>,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            sharing: Sharing::Unknown,
            vm_id_is_empty: None,
            id: None,
            instance: None,
            joined_ms: 0,
            started_at: 0,
            has_requests: false,
            queue: None,
            renewed_ms: None,
            due_ms: None,
            leader: None,
            peers: Vec::new(),
            bounds: Bounds::default(),
            current: None,
        }
    }
}

impl Registration {
    pub(super) fn sharing(&self) -> Sharing {
        self.sharing
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// The other workers' queues, as of the last heartbeat.
    pub(super) fn peers(&self) -> &[u32] {
        &self.peers
    }

    /// The leader's queue, as of the last heartbeat.
    pub(super) fn leader(&self) -> Option<u32> {
        self.leader
    }

    /// The staleness bounds of all workers, as of the last heartbeat.
    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The root context whose queue this is.
    pub(super) fn root_of_queue(&self, queue: u32) -> Option<u32> {
        self.queue.filter(|(_, own)| *own == queue).map(|(root, _)| root)
    }

    /// How long ago this worker started.
    pub(super) fn age_ms(&self, now: Clocks) -> u64 {
        now.monotonic_ms.saturating_sub(self.joined_ms)
    }

    /// A new event begins: the membership is read again when it is needed.
    pub(super) fn begin_event(&mut self) {
        self.current = None;
    }

    /// This worker has received a request.
    pub(super) fn record_request(&mut self) {
        self.has_requests = true;
    }

    /// Makes the next heartbeat due now.
    pub(super) fn renew_soon(&mut self) {
        self.due_ms = None;
    }

    /// Draws this worker's id if it has none. False if Envoy has no randomness.
    pub(super) fn draw_id(&mut self, host: &dyn Host, now: Clocks) -> bool {
        if self.id.is_none() {
            self.id = random_id(host);
            self.joined_ms = now.monotonic_ms;
            self.started_at = now.wall_ms.div_euclid(1_000);
        }
        self.id.is_some()
    }

    /// Determines what is shared under the newest configuration. Returns it if it has changed.
    pub(super) fn determine_sharing(&mut self, host: &dyn Host, feed: FeedMode) -> Option<Sharing> {
        let vm_id_is_empty = *self.vm_id_is_empty.get_or_insert_with(|| host.vm_id_is_empty());
        let sharing = match (vm_id_is_empty, feed) {
            (true, FeedMode::Process | FeedMode::Worker) => Sharing::Nothing,
            (false, FeedMode::Worker) => Sharing::Membership,
            (false, FeedMode::Process) => Sharing::Everything,
        };
        if sharing == Sharing::Nothing {
            self.instance.clone_from(&self.id);
        }
        (std::mem::replace(&mut self.sharing, sharing) != sharing).then_some(sharing)
    }

    /// Whether this worker has a membership at all.
    pub(super) fn is_member(&self) -> bool {
        matches!(self.sharing, Sharing::Membership | Sharing::Everything)
    }

    /// Whether the last heartbeat is so long ago that others may have removed this worker.
    pub(super) fn is_overdue(&self, now: Clocks) -> bool {
        self.renewed_ms.is_none_or(|renewed| now.monotonic_ms.saturating_sub(renewed) > WORKER_LATE_MS)
    }

    /// Whether a heartbeat is due. Registers the queue that wakes this worker, in a callback of `root`, if there is
    /// none.
    pub(super) fn prepare_heartbeat(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        root: Option<u32>,
        now: Clocks,
    ) -> bool {
        let is_due = self.due_ms.is_none_or(|due| now.monotonic_ms >= due);
        let (Some(id), true, true) = (&self.id, is_due, self.is_member()) else { return false };
        if self.queue.is_none()
            && let Some(root) = root
        {
            self.queue = Some((root, host.register_queue(&store.queue(id, root))));
        }
        true
    }

    /// This worker's entry, without the state of its keys.
    pub(super) fn entry(&self, now: Clocks) -> WorkerEntry {
        WorkerEntry {
            id: self.id.clone().unwrap_or_default(),
            queue: self.queue.map(|(_, queue)| queue),
            signed_ms: now.monotonic_ms,
            joined_ms: self.joined_ms,
            started_at: self.started_at,
            has_requests: self.has_requests,
            ..WorkerEntry::default()
        }
    }

    /// Writes `entry` into the membership. `None`: each attempt conflicted with a write of another worker.
    pub(super) fn renew(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        entry: &WorkerEntry,
        now: Clocks,
    ) -> Option<Renewal> {
        let another_id = random_id(host);
        let (has_renewed, shares_all) = (self.renewed_ms.is_some(), self.sharing == Sharing::Everything);
        let (lease, id) = self.update(host, store, |membership| {
            // It was removed while it was held up: the control plane counts that id as ended, so it takes a new one.
            let was_removed = has_renewed && membership.workers.iter().all(|worker| worker.id != entry.id);
            let id = another_id.as_ref().filter(|_| was_removed).unwrap_or(&entry.id);
            let lease = membership.renew(WorkerEntry { id: id.clone(), ..entry.clone() }, &entry.id, now.monotonic_ms);
            if !shares_all && membership.leader == *id {
                // Each worker subscribes for itself, so none leads.
                membership.leader.clear();
            }
            (lease, id.clone())
        })?;
        let membership = self.current.as_ref()?;
        let leader = membership.workers.iter().find(|worker| worker.id == membership.leader);
        self.leader = leader.and_then(|worker| worker.queue);
        self.peers = membership.peer_queues(&id).collect();
        self.due_ms = Some(membership.next_heartbeat_ms(self.has_requests, now.monotonic_ms));
        let (largest, smallest) = membership.bounds();
        self.bounds = Bounds { largest, smallest };
        self.instance = Some(membership.instance.clone());
        let broken = membership.workers.iter().filter_map(|worker| worker.broken).collect();
        (self.renewed_ms, self.id) = (Some(now.monotonic_ms), Some(id));
        Some(Renewal { lease, broken })
    }

    /// The membership as of this event; empty if nothing is shared.
    pub(super) fn membership(&mut self, host: &dyn Host, store: &SharedStore) -> &Membership {
        self.current.get_or_insert_with(|| read(host, store).0)
    }

    /// Removes tombstones: the control plane has acknowledged the end of these workers.
    pub(super) fn remove_tombstones(&mut self, host: &dyn Host, store: &SharedStore, ended: &[&str]) {
        if !ended.is_empty() && self.sharing != Sharing::Nothing {
            self.update(host, store, |membership| membership.ended.retain(|own| !ended.contains(&own.id.as_str())));
        }
    }

    /// Adds a tombstone for a worker that the control plane counts, but that is not in the membership, so decides
    /// nothing.
    pub(super) fn add_tombstone(&mut self, host: &dyn Host, store: &SharedStore, id: &str) {
        if self.sharing != Sharing::Nothing {
            self.update(host, store, |membership| membership.add_tombstone(id));
        }
    }

    /// The control plane has retired this instance: it takes a new id.
    pub(super) fn retire(&mut self, host: &dyn Host, store: &SharedStore) {
        let retired = self.instance.take().unwrap_or_default();
        if self.sharing == Sharing::Nothing {
            // The worker's id is the instance's.
            self.id = None;
        } else if let Some(fresh) = random_id(host) {
            let instance = self.update(host, store, |membership| {
                if membership.instance == retired {
                    membership.instance.clone_from(&fresh);
                    // The control plane doesn't know these workers under the new id.
                    membership.ended.clear();
                }
                membership.instance.clone()
            });
            self.instance = instance;
        }
    }

    /// A root context has ended, and its queue with it.
    pub(super) fn forget_root(&mut self, root: u32) {
        if self.queue.take_if(|(own, _)| *own == root).is_some() {
            self.renew_soon();
        }
    }

    /// The last configuration has ended: this worker leaves the membership.
    pub(super) fn leave(&mut self, host: &dyn Host, store: &SharedStore) {
        if let (Some(id), true) = (self.id.clone(), self.is_member()) {
            self.update(host, store, |membership| membership.leave(&id));
        }
    }

    /// Changes the membership by compare-and-swap. `None`: each attempt conflicted with a write of another worker.
    fn update<T>(
        &mut self,
        host: &dyn Host,
        store: &SharedStore,
        mut change: impl FnMut(&mut Membership) -> T,
    ) -> Option<T> {
        for _ in 0..ATTEMPTS {
            let (mut membership, last_write) = read(host, store);
            let result = change(&mut membership);
            let bytes = serde_json::to_vec(&membership).ok()?;
            if host.set_shared(&store.membership(), &bytes, last_write) {
                self.current = Some(membership);
                return Some(result);
            }
        }
        None
    }
}

/// The membership, and the number of its last write. An empty one if there is none or it can't be read.
pub(super) fn read(host: &dyn Host, store: &SharedStore) -> (Membership, Option<u32>) {
    match host.shared(&store.membership()) {
        Some((bytes, last_write)) => (serde_json::from_slice(&bytes).unwrap_or_default(), Some(last_write)),
        None => (Membership::default(), None),
    }
}
