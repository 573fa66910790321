//! Reports to the control plane: what the workers have applied, and what this worker counted; and what follows when the
//! instance is retired.

use std::time::Duration;

use policy::protocol::acknowledgement::Acknowledgement;
use policy::protocol::timing::{ACKNOWLEDGEMENT_TIMEOUT_MS, USAGE_TIMEOUT_MS};
use policy::protocol::{ACKNOWLEDGEMENTS_PATH, MISSING_WORKER_HEADER, USAGE_PATH, is_name};

use super::calls::CallKind;
use super::feed::header;
use super::registration::Sharing;
use super::replication::WorkerRole;
use super::{Source, clocks, log, random_byte};
use crate::acknowledgement::Fits;
use crate::host::{CallAnswer, Host};
use crate::keys::Clocks;
use crate::process::membership::Membership;
use crate::subscription::Failure;
use crate::usage::BatchOutcome;

/// Whether an acknowledgement waits for the workers that lag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Not before all workers have the same revision.
    Even,
    Now,
}

/// An acknowledgement that travels with a feed request.
pub(super) struct Piggyback {
    pub(super) applied: u64,
    pub(super) acknowledgement: Acknowledgement,
}

/// The feed request waits for workers that were woken a moment ago.
pub(super) struct Wait;

impl Source {
    /// The answer to an acknowledgement.
    pub(super) fn acknowledged(&mut self, host: &dyn Host, root: u32, received: &CallAnswer) {
        let now = clocks(host);
        let status = header(received, ":status");
        let failure = match (self.acknowledgements.answered(now, status), status) {
            (Some(acknowledged), _) => {
                let ended: Vec<_> = acknowledged.ended().collect();
                self.registration.forget_ended(host, &self.store, &ended);
                self.acknowledge(host, root, now, When::Even);
                return log(host, self.outages.acknowledgements.worked(now));
            }
            (None, Some(410)) => {
                self.retire(host);
                Failure::Retired
            }
            (None, Some(409)) => {
                let missing = header::<String>(received, MISSING_WORKER_HEADER).filter(|id| is_name(id));
                if let Some(id) = missing {
                    self.registration.add_tombstone(host, &self.store, &id);
                }
                Failure::NotAcknowledged(409)
            }
            // A control plane that is down is reported for the feed.
            (None, Some(503 | 504) | None) => return,
            (None, Some(other)) => Failure::NotAcknowledged(other),
        };
        log(host, self.outages.acknowledgements.failed(&failure, now));
    }

    /// The control plane no longer counts this instance: it takes a new id, and decides nothing before that was answered.
    pub(super) fn retire(&mut self, host: &dyn Host) {
        self.registration.retire(host, &self.store);
        self.keys.distrust();
        self.subscription.rests(clocks(host), random_byte(host));
        let announced = self.replication.announce(host, &self.store, &self.keys);
        self.wake_peers(host, announced);
    }

    /// What the workers have applied, if this worker acknowledges it.
    fn acknowledgement(&mut self, host: &dyn Host, now: Clocks) -> Option<Acknowledgement> {
        let epoch = self.keys.holding.position()?.epoch.to_string();
        let id = self.registration.id()?.to_owned();
        let alone = match self.registration.sharing() {
            Sharing::Unknown => return None,
            Sharing::Nothing => {
                let mut alone = Membership { instance: id.clone(), ..Membership::default() };
                alone.renew(self.entry(now), &id, now.monotonic_ms);
                Some(alone)
            }
            Sharing::Membership | Sharing::Everything => None,
        };
        let instance = self.registration.instance().map(str::to_owned);
        let membership = match &alone {
            Some(alone) => alone,
            None => self.registration.membership(host, &self.store),
        };
        let acknowledges = match self.replication.role() {
            WorkerRole::Leader(_) => true,
            WorkerRole::Independent => membership.is_first(&id),
            WorkerRole::Follower | WorkerRole::TakingOver { .. } => false,
        };
        let is_own_instance = instance.as_deref() == Some(membership.instance.as_str());
        (acknowledges && is_own_instance).then(|| membership.acknowledgement(&self.name.edge, &epoch))
    }

    /// What the next feed request acknowledges. `Err`: it has to wait, for workers that were woken a moment ago.
    pub(super) fn piggyback(&mut self, host: &dyn Host, now: Clocks) -> Result<Option<Piggyback>, Wait> {
        let subscribes_for_all = self.replication.is_leader() || self.registration.sharing() == Sharing::Nothing;
        if !subscribes_for_all || self.keys.holding.is_loading() || self.subscription.wants_snapshot() {
            return Ok(None);
        }
        if self.subscription.is_behind() {
            // What waits at the control plane may matter more than what an import brings just now.
            return Ok(None);
        }
        let Some(acknowledgement) = self.acknowledgement(host, now) else { return Ok(None) };
        match self.acknowledgements.fits(&acknowledgement, now) {
            Fits::Not => Ok(None),
            Fits::Applied(applied) => Ok(Some(Piggyback { applied, acknowledgement })),
            Fits::InAMoment => Err(Wait),
        }
    }

    /// Acknowledges what the workers have applied, if this worker does that and there is something to acknowledge.
    pub(super) fn acknowledge(&mut self, host: &dyn Host, root: u32, now: Clocks, when: When) {
        let Some(acknowledgement) = self.acknowledgement(host, now) else { return };
        // Workers that have it already wait for the others, which wake this worker; its next tick doesn't wait.
        if (when == When::Even && !acknowledgement.is_even()) || !self.acknowledgements.is_due(&acknowledgement, now) {
            return;
        }
        let Ok(body) = serde_json::to_string(&acknowledgement) else { return };
        let timeout = Duration::from_millis(ACKNOWLEDGEMENT_TIMEOUT_MS);
        match self.send(host, ACKNOWLEDGEMENTS_PATH, Some(&body), timeout) {
            Ok(number) => self.calls.sent(CallKind::Acknowledgement, root, number),
            Err(_) => {
                self.acknowledgements.answered(now, None);
            }
        }
    }

    /// Reports what this worker counted, if it is time: each VM for itself, so that nothing is lost with another.
    pub(super) fn report_usage(&mut self, host: &dyn Host, root: u32, now: Clocks) {
        let Some(instance) = self.registration.instance() else { return };
        let names = (self.name.edge.as_str(), instance);
        let Some(batch) = self.usage_reports.due(&self.usage, names, now, || host.random()) else { return };
        let Ok(body) = serde_json::to_string(batch) else { return };
        match self.send(host, USAGE_PATH, Some(&body), Duration::from_millis(USAGE_TIMEOUT_MS)) {
            Ok(number) => self.calls.sent(CallKind::Usage, root, number),
            Err(_) => self.usage_reports.abandon(),
        }
    }

    /// The answer to a batch of usage. A control plane that is down is reported for the feed.
    pub(super) fn usage_answered(&mut self, host: &dyn Host, received: &CallAnswer) {
        let (now, status) = (clocks(host), header(received, ":status"));
        let usage = &mut self.outages.usage;
        match self.usage_reports.answered(&self.usage, self.registration.instance(), status) {
            BatchOutcome::Counted => log(host, usage.worked(now)),
            BatchOutcome::SentAgain => {}
            BatchOutcome::Refused(status) => log(host, usage.failed(&Failure::UsageRefused(status), now)),
        }
    }
}
