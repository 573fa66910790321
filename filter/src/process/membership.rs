//! The roster: which workers there are, what each knows, and who leads.
//!
//! Rules without a host: each takes the roster as it was read and answers what to write.

use policy::protocol::acknowledgement::{Acknowledgement, WorkerReport};
use policy::protocol::timing::{LEADER_LEASE_MS, LEASE_PATIENCE_MS, WORKER_GONE_MS, WORKER_HEARTBEAT_MS};
use serde::{Deserialize, Serialize};

use crate::metrics::Report;

/// All workers of one source in this Envoy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// Names this Envoy to the control plane.
    pub instance: String,
    /// Grows with each change of the leader.
    pub term: u64,
    /// The id of the worker that leads.
    pub leader: String,
    /// When it renewed its lease, by the monotonic clock.
    pub renewed_ms: u64,
    pub workers: Vec<Worker>,
    /// Who is gone, until the control plane has been told.
    pub ended: Vec<Ended>,
}

/// A worker that is gone. If it was only held up, it comes back under another id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    pub id: String,
    /// Unix seconds.
    pub started_at: i64,
}

/// A worker, as it signed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Random, made at its start.
    pub id: String,
    /// The queue that wakes it.
    pub queue: Option<u32>,
    /// When it signed, by the monotonic clock.
    pub signed_ms: u64,
    /// When it signed first, by the monotonic clock.
    pub joined_ms: u64,
    /// The same by the wall clock, in Unix seconds.
    pub started_at: i64,
    /// The epoch of its table; empty without one.
    pub epoch: String,
    /// Whether it has ever been given a request: such a worker had better not lead, since loading takes its time.
    pub has_requests: bool,
    pub report: Report,
    /// The generation that it could not load from the other workers.
    pub broken: Option<u64>,
    /// The largest and the smallest staleness bound of its configurations; `None`: one has none, or all have none.
    pub largest_bound: Option<u64>,
    pub smallest_bound: Option<u64>,
}

/// What a worker has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leads { term: u64 },
    Follows,
}

impl Roster {
    /// Signs for `me`: strikes out who is gone, takes or renews the lease, or hands it to a worker that is better for it.
    /// `instance` is used when there is none yet.
    pub fn sign(&mut self, me: Worker, instance: &str, now_ms: u64) -> Role {
        if self.instance.is_empty() {
            instance.clone_into(&mut self.instance);
        }
        self.workers.retain(|worker| worker.id != me.id);
        let gone = self.workers.extract_if(.., |worker| now_ms.saturating_sub(worker.signed_ms) >= WORKER_GONE_MS);
        self.ended.extend(gone.map(Ended::from));
        let idle = |worker: &&Worker| {
            !worker.has_requests
                && now_ms.saturating_sub(worker.signed_ms) < LEADER_LEASE_MS
                && now_ms.saturating_sub(worker.joined_ms) > LEADER_LEASE_MS
        };
        let better = self.workers.iter().find(idle).filter(|_| me.has_requests).map(|worker| worker.id.clone());
        let role = if self.leader == me.id {
            self.renewed_ms = now_ms;
            match better {
                Some(better) => {
                    self.leader = better;
                    self.term = self.term.saturating_add(1);
                    Role::Follows
                }
                None => Role::Leads { term: self.term },
            }
        } else {
            let patience = if better.is_some() { LEASE_PATIENCE_MS } else { 0 };
            let is_free = if self.leader.is_empty() {
                // One without requests may come any moment.
                !me.has_requests || now_ms.saturating_sub(me.joined_ms) >= LEASE_PATIENCE_MS
            } else {
                now_ms.saturating_sub(self.renewed_ms) > LEADER_LEASE_MS.saturating_add(patience)
            };
            if is_free {
                self.leader.clone_from(&me.id);
                self.term = self.term.saturating_add(1);
                self.renewed_ms = now_ms;
                Role::Leads { term: self.term }
            } else {
                Role::Follows
            }
        };
        self.workers.push(me);
        role
    }

    /// When a worker should sign again: soon enough to be known as there, and at once when the lease runs out.
    pub fn next_signature_ms(&self, has_requests: bool, now_ms: u64) -> u64 {
        let patience = if has_requests { LEASE_PATIENCE_MS } else { 0 };
        let lease_ms = if self.leader.is_empty() { 0 } else { LEADER_LEASE_MS };
        let runs_out = self.renewed_ms.saturating_add(lease_ms).saturating_add(patience).saturating_add(1);
        // One that has run out and was left to a better worker is looked at with each tick.
        runs_out.max(now_ms.saturating_add(1)).min(now_ms.saturating_add(WORKER_HEARTBEAT_MS))
    }

    /// Strikes out a worker whose last configuration went.
    pub fn leave(&mut self, id: &str) {
        self.ended.extend(self.workers.extract_if(.., |worker| worker.id == id).map(Ended::from));
        if self.leader == id {
            self.leader.clear();
        }
    }

    /// Notes that the control plane counts a worker that isn't here. It was struck out, and told so; an older word that came
    /// late has brought it back.
    pub fn buries(&mut self, id: &str) {
        let is_here = self.workers.iter().any(|worker| worker.id == id) || self.ended.iter().any(|own| own.id == id);
        if !is_here {
            self.ended.push(Ended { id: id.to_owned(), started_at: 0 });
        }
    }

    /// The queues that wake the others.
    pub fn queues_but_mine<'a>(&'a self, me: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.workers.iter().filter(move |worker| worker.id != me).filter_map(|worker| worker.queue)
    }

    /// What the Envoy as a whole knows: the lowest revision, the greatest age, and whether all are ready.
    pub fn report(&self) -> Report {
        let reports = || self.workers.iter().map(|worker| worker.report);
        Report {
            revision: reports().map(|report| report.revision).min().unwrap_or(0),
            keys: reports().map(|report| report.keys).min().unwrap_or(0),
            age_secs: reports().map(|report| report.age_secs).max().unwrap_or(0),
            is_ready: !self.workers.is_empty() && reports().all(|report| report.is_ready),
        }
    }

    /// What the workers have applied of this epoch.
    pub fn acknowledgement(&self, edge: &str, epoch: &str) -> Acknowledgement {
        let living = self.workers.iter().map(|worker| WorkerReport {
            id: worker.id.clone(),
            applied: if worker.epoch == epoch { worker.report.revision } else { 0 },
            started_at: worker.started_at,
            ended: false,
        });
        let gone = self.ended.iter().map(|ended| WorkerReport {
            id: ended.id.clone(),
            applied: 0,
            started_at: ended.started_at,
            ended: true,
        });
        let mut workers: Vec<_> = living.chain(gone).collect();
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

    /// The largest and the smallest staleness bound; the largest is `None` when anybody has none.
    pub fn bounds(&self) -> (Option<u64>, Option<u64>) {
        let largest = self.workers.iter().map(|worker| worker.largest_bound);
        let largest = largest.reduce(|one, other| one.zip(other).map(|(one, other)| one.max(other))).flatten();
        (largest, self.workers.iter().filter_map(|worker| worker.smallest_bound).min())
    }
}

impl From<Worker> for Ended {
    fn from(Worker { id, started_at, .. }: Worker) -> Self {
        Self { id, started_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, now_ms: u64) -> Worker {
        Worker {
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

    fn busy(id: &str, now_ms: u64) -> Worker {
        Worker { has_requests: true, ..worker(id, now_ms) }
    }

    #[test]
    fn the_first_leads_until_it_stops_renewing() {
        let mut roster = Roster::default();
        assert_eq!(roster.sign(worker("a", 0), "i", 0), Role::Leads { term: 1 });
        assert_eq!(roster.sign(worker("b", 10), "j", 10), Role::Follows);
        assert_eq!(roster.instance, "i", "the first names the instance");
        assert_eq!(roster.sign(worker("a", 500), "i", 500), Role::Leads { term: 1 });
        assert_eq!(roster.sign(worker("b", 2_500), "j", 2_500), Role::Follows, "the lease runs out after its length");
        assert_eq!(roster.sign(worker("b", 2_501), "j", 2_501), Role::Leads { term: 2 });
        assert_eq!(roster.sign(worker("a", 2_600), "i", 2_600), Role::Follows, "one that comes back late follows");
    }

    #[test]
    fn a_worker_with_requests_hands_the_lease_to_one_without() {
        let mut roster = Roster::default();
        roster.sign(worker("idle", 0), "i", 0);
        roster.leader = "busy".to_owned();
        roster.sign(worker("idle", 2_400), "i", 2_400);
        let role = roster.sign(busy("busy", 2_500), "i", 2_500);
        assert_eq!((role, roster.leader.as_str(), roster.term), (Role::Follows, "idle", 2));
        assert_eq!(roster.sign(worker("idle", 2_600), "i", 2_600), Role::Leads { term: 2 });
    }

    #[test]
    fn a_worker_with_requests_leaves_a_free_lease_to_one_without_for_a_while() {
        let mut roster = Roster::default();
        roster.sign(worker("gone", 0), "i", 0);
        roster.sign(worker("idle", 2_100), "i", 1_900);
        assert_eq!(roster.sign(busy("busy", 2_100), "i", 2_100), Role::Follows);
        assert_eq!(roster.sign(busy("busy", 2_201), "i", 2_201), Role::Leads { term: 2 });
    }

    #[test]
    fn a_lease_that_runs_out_is_looked_at_at_once() {
        let mut roster = Roster::default();
        roster.sign(worker("a", 0), "i", 0);
        assert_eq!(roster.next_signature_ms(false, 0), WORKER_HEARTBEAT_MS);
        assert_eq!(roster.next_signature_ms(false, 1_800), LEADER_LEASE_MS + 1);
        assert_eq!(roster.next_signature_ms(true, 1_800), LEADER_LEASE_MS + LEASE_PATIENCE_MS + 1);
        assert_eq!(roster.next_signature_ms(false, 2_050), 2_051);
    }

    #[test]
    fn a_worker_with_requests_lets_one_without_begin() {
        let mut roster = Roster::default();
        let new = |id: &str, now_ms| Worker { joined_ms: 1_000, ..busy(id, now_ms) };
        assert_eq!(roster.sign(new("busy", 1_000), "i", 1_000), Role::Follows);
        assert_eq!(roster.next_signature_ms(true, 1_000), 1_001, "it looks again with its next tick");
        assert_eq!(roster.sign(new("busy", 1_200), "i", 1_200), Role::Leads { term: 1 }, "nobody came");
    }

    #[test]
    fn who_left_or_stopped_signing_is_struck_out() {
        let mut roster = Roster::default();
        roster.sign(worker("a", 0), "i", 0);
        roster.sign(worker("b", 0), "i", 0);
        roster.sign(worker("c", WORKER_GONE_MS), "i", WORKER_GONE_MS);
        assert_eq!(roster.workers.len(), 1);
        assert_eq!(roster.ended.iter().map(|ended| ended.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        roster.leave("c");
        assert!(roster.workers.is_empty() && roster.leader.is_empty());
    }

    #[test]
    fn who_is_counted_and_not_here_has_ended_and_nobody_else_has() {
        let mut roster = Roster::default();
        roster.sign(worker("a", 0), "i", 0);
        for id in ["a", "b", "b"] {
            roster.buries(id);
        }
        assert_eq!(roster.workers.len(), 1);
        assert_eq!(roster.ended, [Ended { id: "b".to_owned(), started_at: 0 }]);
    }

    #[test]
    fn an_envoy_is_as_ready_as_its_last_worker() {
        let mut roster = Roster::default();
        let report = |revision, age_secs, is_ready| Report { revision, keys: 3, age_secs, is_ready };
        assert!(!roster.report().is_ready);
        for (id, own) in [("a", report(7, 1, true)), ("b", report(5, 9, true))] {
            roster.sign(Worker { report: own, ..worker(id, 0) }, "i", 0);
        }
        assert_eq!(roster.report(), report(5, 9, true));
        roster.sign(Worker { report: Report::default(), ..worker("c", 0) }, "i", 0);
        assert!(!roster.report().is_ready);
    }

    #[test]
    fn bounds_are_those_of_all_workers() {
        let mut roster = Roster::default();
        for (id, largest, smallest) in [("a", Some(60), Some(10)), ("b", Some(90), Some(90))] {
            roster.sign(Worker { largest_bound: largest, smallest_bound: smallest, ..worker(id, 0) }, "i", 0);
        }
        assert_eq!(roster.bounds(), (Some(90), Some(10)));
        roster.sign(worker("c", 0), "i", 0);
        assert_eq!(roster.bounds(), (None, Some(10)), "one that is never stale");
    }
}
