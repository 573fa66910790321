//! Heartbeats, and what follows from a worker's role: leading, following and stepping down.

use super::Source;
use super::calls::CallKind;
use super::configurations::Bounds;
use super::registration::{Renewal, Sharing};
use super::replication::{Next, Takeover};
use crate::host::{Host, LogLevel};
use crate::keys::Clocks;
use crate::process::head::Head;
use crate::process::membership::{Lease, WorkerEntry};
use crate::process::publisher::{Publisher, Wake};
use crate::process::shared_store::Deposed;

impl Source {
    /// The heartbeat, if it is due: renews this worker's entry, and takes the role that the lease gives.
    pub(super) fn renew(&mut self, host: &dyn Host, now: Clocks) {
        let root = self.configurations.newest().map(|root| root.id);
        if !self.registration.prepare(host, &self.store, root, now) {
            return;
        }
        let (entry, was_late) = (self.entry(now), self.is_late(now));
        let Some(renewal) = self.registration.renew(host, &self.store, &entry, now) else { return };
        let Renewal { lease, broken } = renewal;
        let shares_all = self.registration.sharing() == Sharing::Everything;
        // What it has may be old, whatever its role was, and whatever made the heartbeat due.
        if was_late {
            self.replication.was_held_up(host, &self.store, shares_all);
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
            epoch: self.keys.holding.position().map(|position| position.epoch.to_string()).unwrap_or_default(),
            report: self.keys.report(now, smallest),
            broken: self.replication.broken(),
            largest_bound: largest,
            smallest_bound: smallest,
            ..self.registration.entry(now)
        }
    }

    /// Does the next piece of work of this worker's role, in a callback of `root`; has that one's timer run soon when there is
    /// more.
    pub(super) fn advance(&mut self, host: &dyn Host, root: u32, now: Clocks) {
        let before = self.keys.holding.position();
        let next = self.replication.advance(host, &self.store, &mut self.keys, now);
        match next {
            Next::Nothing | Next::More => {}
            Next::Lead(term, takeover) => self.lead(host, term, takeover),
            Next::StepDown => self.step_down(),
        }
        if let Some(reached) = self.keys.holding.position().filter(|reached| Some(*reached) != before)
            && self.replication.is_follower()
        {
            host.log(LogLevel::Debug, &format!("revision {} is applied", reached.revision));
            // The leader reads at once what this worker has now, and acknowledges it.
            self.registration.renew_soon();
            self.renew(host, now);
            if let Some(leader) = self.registration.leader() {
                host.wake(leader);
            }
        }
        self.timer.set(host, root, next == Next::More);
    }

    /// Begins to lead.
    fn lead(&mut self, host: &dyn Host, term: u64, takeover: Takeover) {
        let head = Head::read(host, &self.store);
        let publisher = match (takeover, head) {
            (Takeover::Complete, Some(head)) => Publisher::over(term, &head, &self.keys.holding),
            (Takeover::Complete | Takeover::Fresh, head) => Publisher::fresh(term, head.as_ref()),
        };
        self.subscription.take_up(&mut self.keys);
        if takeover == Takeover::Fresh {
            self.subscription.want_snapshot();
        }
        match publisher.announce(host, &self.store, &self.keys) {
            Ok(()) => {
                self.replication.lead(publisher, takeover);
                let message = format!("this worker asks the control plane for all of this Envoy (term {term})");
                host.log(LogLevel::Info, &message);
            }
            Err(Deposed) => self.step_down(),
        }
    }

    /// What was published reaches the other workers. `Deposed`: another worker leads.
    pub(super) fn wake_peers(&mut self, host: &dyn Host, published: Result<Wake, Deposed>) {
        match published {
            Ok(Wake::Everybody) => self.registration.peers().iter().for_each(|queue| host.wake(*queue)),
            Ok(Wake::Nobody) => {}
            Err(Deposed) => self.step_down(),
        }
    }

    /// Another worker leads: what is in flight is of no use, and this worker follows from where it is.
    pub(super) fn step_down(&mut self) {
        self.replication.step_down(&self.keys);
        self.abandon(CallKind::Feed);
        // The membership has the new leader.
        self.registration.renew_soon();
    }
}
