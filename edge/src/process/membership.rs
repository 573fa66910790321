//! The membership: which workers one Envoy has, the state of each, and which of them leads.
//!
//! Pure rules, without a host: each changes a membership that was read into the one to write.

use policy::protocol::acknowledgement::{Acknowledgement, WorkerReport};
use policy::protocol::timing::{LEADER_LEASE_MS, LEASE_PATIENCE_MS, WORKER_GONE_MS, WORKER_HEARTBEAT_MS};
use serde::{Deserialize, Serialize};

use crate::metrics::Report;

/// All workers of one source in this Envoy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Names this Envoy to the control plane.
    pub instance: String,
    /// Grows with each change of the leader: a fencing token for what leaders write.
    pub term: u64,
    /// The id of the worker that leads.
    pub leader: String,
    /// When the leader renewed its lease, by the monotonic clock.
    pub renewed_ms: u64,
    /// The live workers, ordered by their last heartbeats. One without any for [`WORKER_GONE_MS`] is removed.
    pub workers: Vec<WorkerEntry>,
    /// Tombstones of workers that have ended, until the control plane has acknowledged that.
    pub ended: Vec<EndedWorker>,
}

/// A worker that has ended. If it was only held up, it returns under another id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndedWorker {
    /// The id under which the control plane counts it.
    pub id: String,
    /// Unix seconds.
    pub started_at: i64,
}

/// A worker, as of its last heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerEntry {
    /// Random, drawn at its start.
    pub id: String,
    /// The queue that wakes it.
    pub queue: Option<u32>,
    /// Its last heartbeat, by the monotonic clock.
    pub signed_ms: u64,
    /// Its first heartbeat, by the monotonic clock.
    pub joined_ms: u64,
    /// Its first heartbeat, by the wall clock in Unix seconds.
    pub started_at: i64,
    /// The epoch of its table; empty without one.
    pub epoch: String,
    /// Whether it has ever received a request. Such a worker is a worse leader: loading a table would delay its
    /// requests.
    pub has_requests: bool,
    /// The state of its table, under its smallest staleness bound.
    pub report: Report,
    /// The generation that it could not load from the shared store.
    pub broken: Option<u64>,
    /// The largest staleness bound of its configurations, in seconds; `None` if one has no bound.
    pub largest_bound: Option<u64>,
    /// The smallest of these bounds, in seconds; `None` if no configuration has one.
    pub smallest_bound: Option<u64>,
}

/// Whether a worker holds the leader's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// This worker leads. Others may take over once it hasn't renewed the lease for [`LEADER_LEASE_MS`].
    Held {
        /// The fencing token for what it writes as the leader.
        term: u64,
    },
    /// Another worker leads, or none does yet: this worker must not write as a leader.
    NotHeld,
}

impl Membership {
    /// The heartbeat of a worker: removes workers without a heartbeat, and takes or renews the lease, or hands it over
    /// to a better leader. `instance` becomes the id of this Envoy if it has none yet.
    pub fn renew(&mut self, entry: WorkerEntry, instance: &str, now_ms: u64) -> Lease {
        if self.instance.is_empty() {
            instance.clone_into(&mut self.instance);
        }
        self.workers.retain(|worker| worker.id != entry.id);
        let ended = self.workers.extract_if(.., |worker| now_ms.saturating_sub(worker.signed_ms) >= WORKER_GONE_MS);
        self.ended.extend(ended.map(EndedWorker::from));
        let is_idle = |worker: &&WorkerEntry| {
            !worker.has_requests
                && now_ms.saturating_sub(worker.signed_ms) < LEADER_LEASE_MS
                && now_ms.saturating_sub(worker.joined_ms) > LEADER_LEASE_MS
        };
        let better = self.workers.iter().find(is_idle).filter(|_| entry.has_requests).map(|worker| worker.id.clone());
        let lease = if self.leader == entry.id {
            self.renewed_ms = now_ms;
            match better {
                Some(better) => {
                    self.leader = better;
                    self.term = self.term.saturating_add(1);
                    Lease::NotHeld
                }
                None => Lease::Held { term: self.term },
            }
        } else {
            let patience = if better.is_some() { LEASE_PATIENCE_MS } else { 0 };
            let is_free = if self.leader.is_empty() {
                // A worker without requests may join at any moment.
                !entry.has_requests || now_ms.saturating_sub(entry.joined_ms) >= LEASE_PATIENCE_MS
            } else {
                now_ms.saturating_sub(self.renewed_ms) > LEADER_LEASE_MS.saturating_add(patience)
            };
            if is_free {
                self.leader.clone_from(&entry.id);
                self.term = self.term.saturating_add(1);
                self.renewed_ms = now_ms;
                Lease::Held { term: self.term }
            } else {
                Lease::NotHeld
            }
        };
        self.workers.push(entry);
        lease
    }

    /// When a worker's next heartbeat is due: often enough to stay in the membership, and at once when the lease
    /// expires.
    pub fn next_heartbeat_ms(&self, has_requests: bool, now_ms: u64) -> u64 {
        let patience = if has_requests { LEASE_PATIENCE_MS } else { 0 };
        let lease_ms = if self.leader.is_empty() { 0 } else { LEADER_LEASE_MS };
        let expires_ms = self.renewed_ms.saturating_add(lease_ms).saturating_add(patience).saturating_add(1);
        // An expired lease that is left to a better worker is checked with each tick.
        expires_ms.max(now_ms.saturating_add(1)).min(now_ms.saturating_add(WORKER_HEARTBEAT_MS))
    }

    /// Removes a worker whose last configuration has ended.
    pub fn leave(&mut self, id: &str) {
        self.ended.extend(self.workers.extract_if(.., |worker| worker.id == id).map(EndedWorker::from));
        if self.leader == id {
            self.leader.clear();
        }
    }

    /// Adds a tombstone for a worker that the control plane counts, but that is not in the membership. Its end was
    /// acknowledged before, but an older message that arrived late has added it again.
    pub fn add_tombstone(&mut self, id: &str) {
        let is_listed = self.workers.iter().any(|worker| worker.id == id) || self.ended.iter().any(|own| own.id == id);
        if !is_listed {
            self.ended.push(EndedWorker { id: id.to_owned(), started_at: 0 });
        }
    }

    /// The queues that wake the peers of worker `id`.
    pub fn peer_queues<'a>(&'a self, id: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.workers.iter().filter(move |worker| worker.id != id).filter_map(|worker| worker.queue)
    }

    /// Whether this worker has the lowest id. Such a worker reports for all workers if none leads.
    pub fn is_first(&self, id: &str) -> bool {
        self.workers.iter().map(|worker| worker.id.as_str()).min() == Some(id)
    }

    /// The state of the whole Envoy: the lowest revision, the greatest age, and whether all workers are ready.
    pub fn report(&self) -> Report {
        let reports = || self.workers.iter().map(|worker| worker.report);
        Report {
            revision: reports().map(|report| report.revision).min().unwrap_or(0),
            keys: reports().map(|report| report.keys).min().unwrap_or(0),
            age_secs: reports().map(|report| report.age_secs).max().unwrap_or(0),
            is_ready: !self.workers.is_empty() && reports().all(|report| report.is_ready),
        }
    }

    /// The acknowledgement of what all workers have applied in this epoch.
    pub fn acknowledgement(&self, edge: &str, epoch: &str) -> Acknowledgement {
        let living = self.workers.iter().map(|worker| WorkerReport {
            id: worker.id.clone(),
            applied: if worker.epoch == epoch { worker.report.revision } else { 0 },
            started_at: worker.started_at,
            ended: false,
        });
        let ended = self.ended.iter().map(|ended| WorkerReport {
            id: ended.id.clone(),
            applied: 0,
            started_at: ended.started_at,
            ended: true,
        });
        let mut workers: Vec<_> = living.chain(ended).collect();
        workers.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        Acknowledgement {
            edge: edge.to_owned(),
            instance: self.instance.clone(),
            epoch: epoch.to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            max_staleness_secs: self.bounds().0,
            workers,
        }
    }

    /// The largest and the smallest staleness bound of all workers; the largest is `None` when one has no bound.
    pub fn bounds(&self) -> (Option<u64>, Option<u64>) {
        let largest = self.workers.iter().map(|worker| worker.largest_bound);
        let largest = largest.reduce(|one, other| one.zip(other).map(|(one, other)| one.max(other))).flatten();
        (largest, self.workers.iter().filter_map(|worker| worker.smallest_bound).min())
    }
}

impl From<WorkerEntry> for EndedWorker {
    fn from(WorkerEntry { id, started_at, .. }: WorkerEntry) -> Self {
        Self { id, started_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, now_ms: u64) -> WorkerEntry {
        WorkerEntry {
            id: id.to_owned(),
            queue: None,
            signed_ms: now_ms,
            joined_ms: 0,
            started_at: 0,
            epoch: String::new(),
            has_requests: false,
            report: Report::default(),
            broken: None,
            largest_bound: None,
            smallest_bound: None,
        }
    }

    fn busy(id: &str, now_ms: u64) -> WorkerEntry {
        WorkerEntry { has_requests: true, ..worker(id, now_ms) }
    }

    #[test]
    fn the_first_leads_until_it_stops_renewing() {
        let mut membership = Membership::default();
        assert_eq!(membership.renew(worker("a", 0), "i", 0), Lease::Held { term: 1 });
        assert_eq!(membership.renew(worker("b", 10), "j", 10), Lease::NotHeld);
        assert_eq!(membership.instance, "i", "the first names the instance");
        assert_eq!(membership.renew(worker("a", 500), "i", 500), Lease::Held { term: 1 });
        assert_eq!(
            membership.renew(worker("b", 2_500), "j", 2_500),
            Lease::NotHeld,
            "the lease is valid for its whole length"
        );
        assert_eq!(membership.renew(worker("b", 2_501), "j", 2_501), Lease::Held { term: 2 });
        assert_eq!(
            membership.renew(worker("a", 2_600), "i", 2_600),
            Lease::NotHeld,
            "the former leader returns as a follower"
        );
    }

    #[test]
    fn a_busy_leader_hands_the_lease_over_to_an_idle_worker() {
        let mut membership = Membership::default();
        membership.renew(worker("idle", 0), "i", 0);
        membership.leader = "busy".to_owned();
        membership.renew(worker("idle", 2_400), "i", 2_400);
        let lease = membership.renew(busy("busy", 2_500), "i", 2_500);
        assert_eq!((lease, membership.leader.as_str(), membership.term), (Lease::NotHeld, "idle", 2));
        assert_eq!(membership.renew(worker("idle", 2_600), "i", 2_600), Lease::Held { term: 2 });
    }

    #[test]
    fn a_busy_worker_leaves_an_expired_lease_to_an_idle_one_for_some_time() {
        let mut membership = Membership::default();
        membership.renew(worker("gone", 0), "i", 0);
        membership.renew(worker("idle", 2_100), "i", 1_900);
        assert_eq!(membership.renew(busy("busy", 2_100), "i", 2_100), Lease::NotHeld);
        assert_eq!(membership.renew(busy("busy", 2_201), "i", 2_201), Lease::Held { term: 2 });
    }

    #[test]
    fn an_expiring_lease_makes_a_heartbeat_due() {
        let mut membership = Membership::default();
        membership.renew(worker("a", 0), "i", 0);
        assert_eq!(membership.next_heartbeat_ms(false, 0), WORKER_HEARTBEAT_MS);
        assert_eq!(membership.next_heartbeat_ms(false, 1_800), LEADER_LEASE_MS + 1);
        assert_eq!(membership.next_heartbeat_ms(true, 1_800), LEADER_LEASE_MS + LEASE_PATIENCE_MS + 1);
        assert_eq!(membership.next_heartbeat_ms(false, 2_050), 2_051);
    }

    #[test]
    fn a_busy_worker_leaves_the_first_lease_to_an_idle_one() {
        let mut membership = Membership::default();
        let new = |id: &str, now_ms| WorkerEntry { joined_ms: 1_000, ..busy(id, now_ms) };
        assert_eq!(membership.renew(new("busy", 1_000), "i", 1_000), Lease::NotHeld);
        assert_eq!(membership.next_heartbeat_ms(true, 1_000), 1_001, "it checks again with its next tick");
        assert_eq!(membership.renew(new("busy", 1_200), "i", 1_200), Lease::Held { term: 1 }, "no idle worker joined");
    }

    #[test]
    fn a_worker_that_left_or_has_no_heartbeat_is_removed() {
        let mut membership = Membership::default();
        membership.renew(worker("a", 0), "i", 0);
        membership.renew(worker("b", 0), "i", 0);
        membership.renew(worker("c", WORKER_GONE_MS), "i", WORKER_GONE_MS);
        assert_eq!(membership.workers.len(), 1);
        assert_eq!(membership.ended.iter().map(|ended| ended.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        membership.leave("c");
        assert!(membership.workers.is_empty() && membership.leader.is_empty());
    }

    #[test]
    fn only_a_worker_outside_the_membership_gets_a_tombstone() {
        let mut membership = Membership::default();
        membership.renew(worker("a", 0), "i", 0);
        for id in ["a", "b", "b"] {
            membership.add_tombstone(id);
        }
        assert_eq!(membership.workers.len(), 1);
        assert_eq!(membership.ended, [EndedWorker { id: "b".to_owned(), started_at: 0 }]);
    }

    #[test]
    fn an_envoy_is_ready_when_all_its_workers_are() {
        let mut membership = Membership::default();
        let report = |revision, age_secs, is_ready| Report { revision, keys: 3, age_secs, is_ready };
        assert!(!membership.report().is_ready);
        for (id, own) in [("a", report(7, 1, true)), ("b", report(5, 9, true))] {
            membership.renew(WorkerEntry { report: own, ..worker(id, 0) }, "i", 0);
        }
        assert_eq!(membership.report(), report(5, 9, true));
        membership.renew(WorkerEntry { report: Report::default(), ..worker("c", 0) }, "i", 0);
        assert!(!membership.report().is_ready);
    }

    #[test]
    fn bounds_are_those_of_all_workers() {
        let mut membership = Membership::default();
        for (id, largest, smallest) in [("a", Some(60), Some(10)), ("b", Some(90), Some(90))] {
            membership.renew(WorkerEntry { largest_bound: largest, smallest_bound: smallest, ..worker(id, 0) }, "i", 0);
        }
        assert_eq!(membership.bounds(), (Some(90), Some(10)));
        membership.renew(worker("c", 0), "i", 0);
        assert_eq!(membership.bounds(), (None, Some(10)), "one worker is never stale");
    }
}
