//! Heartbeats, and the work of each role: leading, following and stepping down.

use super::Source;
use super::calls::CallKind;
use super::configurations::Bounds;
use super::registration::{Renewal, Sharing};
use super::replication::{NextAction, Takeover};
use crate::host::{Host, LogLevel};
use crate::keys::Clocks;
use crate::process::head::Head;
use crate::process::membership::{Lease, WorkerEntry};
use crate::process::publisher::{Publisher, Wake};
use crate::process::shared_store::LeaderDeposed;

impl Source {
    /// The heartbeat, if it is due: renews this worker's entry, and takes the role that follows from the lease.
    pub(super) fn renew(&mut self, host: &dyn Host, now: Clocks) {
        let root = self.configurations.newest().map(|root| root.id);
        if !self.registration.prepare_heartbeat(host, &self.store, root, now) {
            return;
        }
        let (entry, was_late) = (self.entry(now), self.is_late(now));
        let Some(renewal) = self.registration.renew(host, &self.store, &entry, now) else { return };
        let Renewal { lease, broken } = renewal;
        let shares_all = self.registration.sharing() == Sharing::Everything;
        // Its table may be old, regardless of its role and of what made the heartbeat due.
        if was_late {
            self.replication.begin_resync(host, &self.store, shares_all);
        }
        if shares_all && self.replication.must_step_down(lease, &broken) {
            self.step_down();
            if let Lease::Held { term } = lease {
                self.replication.take_over(term, now);
            }
        }
    }

    /// This worker's entry in the membership.
    pub(super) fn entry(&self, now: Clocks) -> WorkerEntry {
        let Bounds { largest, smallest } = self.configurations.bounds();
        WorkerEntry {
            epoch: self.keys.live_table.position().map(|position| position.epoch.to_string()).unwrap_or_default(),
            report: self.keys.report(now, smallest),
            broken: self.replication.broken(),
            largest_bound: largest,
            smallest_bound: smallest,
            ..self.registration.entry(now)
        }
    }

    /// Does the next piece of work of this worker's role, in a callback of `root`. If there is more, the timer of
    /// `root` runs soon.
    pub(super) fn advance(&mut self, host: &dyn Host, root: u32, now: Clocks) {
        let before = self.keys.live_table.position();
        let next = self.replication.advance(host, &self.store, &mut self.keys, now);
        match next {
            NextAction::Nothing | NextAction::More => {}
            NextAction::Lead(term, takeover) => self.lead(host, term, takeover),
            NextAction::StepDown => self.step_down(),
        }
        if let Some(reached) = self.keys.live_table.position().filter(|reached| Some(*reached) != before)
            && self.replication.is_follower()
        {
            host.log(LogLevel::Debug, &format!("revision {} is applied", reached.revision));
            // So that the leader reads this worker's new revision at once, and acknowledges it.
            self.registration.renew_soon();
            self.renew(host, now);
            if let Some(leader) = self.registration.leader() {
                host.wake(leader);
            }
        }
        self.timer.set(host, root, next == NextAction::More);
    }

    /// Begins to lead.
    fn lead(&mut self, host: &dyn Host, term: u64, takeover: Takeover) {
        let head = Head::read(host, &self.store);
        let publisher = match (takeover, head) {
            (Takeover::Complete, Some(head)) => Publisher::continue_from(term, &head, &self.keys.live_table),
            (Takeover::Complete | Takeover::Fresh, head) => Publisher::start_fresh(term, head.as_ref()),
        };
        self.subscription.become_subscriber(&mut self.keys);
        if takeover == Takeover::Fresh {
            self.subscription.request_snapshot();
        }
        match publisher.announce(host, &self.store, &self.keys) {
            Ok(()) => {
                self.replication.lead(publisher, takeover);
                let message =
                    format!("this worker subscribes to the control plane for all workers of this Envoy (term {term})");
                host.log(LogLevel::Info, &message);
            }
            Err(LeaderDeposed) => self.step_down(),
        }
    }

    /// Wakes the peers after something was published. `LeaderDeposed`: another worker leads, so this one steps down.
    pub(super) fn wake_peers(&mut self, host: &dyn Host, published: Result<Wake, LeaderDeposed>) {
        match published {
            Ok(Wake::Everybody) => self.registration.peers().iter().for_each(|queue| host.wake(*queue)),
            Ok(Wake::Nobody) => {}
            Err(LeaderDeposed) => self.step_down(),
        }
    }

    /// Another worker leads: abandons the feed request in flight, and follows from the current position.
    pub(super) fn step_down(&mut self) {
        self.replication.step_down(&self.keys);
        self.abandon(CallKind::Feed);
        // The membership has the new leader.
        self.registration.renew_soon();
    }
}
