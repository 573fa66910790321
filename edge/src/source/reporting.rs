//! Reports to the control plane: acknowledgements and usage; and what a worker does when its instance is retired.

use std::time::Duration;

use policy::protocol::acknowledgement::Acknowledgement;
use policy::protocol::timing::{ACKNOWLEDGEMENT_TIMEOUT_MS, USAGE_TIMEOUT_MS};
use policy::protocol::{ACKNOWLEDGEMENTS_PATH, MISSING_WORKER_HEADER, USAGE_PATH, is_name};

use super::calls::CallKind;
use super::feed::header;
use super::registration::Sharing;
use super::replication::WorkerRole;
use super::{Source, clocks, log, random_byte};
use crate::acknowledgement::PiggybackState;
use crate::host::{CallAnswer, Host};
use crate::keys::Clocks;
use crate::process::membership::Membership;
use crate::subscription::Failure;
use crate::usage::BatchOutcome;

/// Whether an acknowledgement waits for workers that lag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AcknowledgeWhen {
    /// Not before all workers have the same revision.
    Uniform,
    Now,
}

/// An acknowledgement that is piggybacked on a feed request.
pub(super) struct Piggyback {
    pub(super) applied: u64,
    pub(super) acknowledgement: Acknowledgement,
}

/// The feed request has to wait for workers that were woken a moment ago.
pub(super) struct FeedDeferred;

impl Source {
    /// Handles the response to an acknowledgement.
    pub(super) fn acknowledged(&mut self, host: &dyn Host, root: u32, received: &CallAnswer) {
        let now = clocks(host);
        let status = header(received, ":status");
        let failure = match (self.acknowledgements.answered(now, status), status) {
            (Some(acknowledged), _) => {
                let ended: Vec<_> = acknowledged.ended().collect();
                self.registration.remove_tombstones(host, &self.store, &ended);
                self.acknowledge(host, root, now, AcknowledgeWhen::Uniform);
                return log(host, self.outages.acknowledgements.succeeded(now));
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
            // The feed logs that the control plane is down.
            (None, Some(503 | 504) | None) => return,
            (None, Some(other)) => Failure::NotAcknowledged(other),
        };
        log(host, self.outages.acknowledgements.failed(&failure, now));
    }

    /// The control plane has retired this instance: it takes a new id, and decides nothing before a response under that
    /// id.
    pub(super) fn retire(&mut self, host: &dyn Host) {
        self.registration.retire(host, &self.store);
        self.keys.discard_confirmation();
        self.subscription.pause_after_retirement(clocks(host), random_byte(host));
        let announced = self.replication.announce(host, &self.store, &self.keys);
        self.wake_peers(host, announced);
    }

    /// The acknowledgement of what the workers have applied, if it is this worker that sends it.
    fn acknowledgement(&mut self, host: &dyn Host, now: Clocks) -> Option<Acknowledgement> {
        let epoch = self.keys.live_table.position()?.epoch.to_string();
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
        let is_sender = match self.replication.role() {
            WorkerRole::Leader(_) => true,
            WorkerRole::Independent => membership.is_first(&id),
            WorkerRole::Follower | WorkerRole::TakingOver { .. } => false,
        };
        let is_own_instance = instance.as_deref() == Some(membership.instance.as_str());
        (is_sender && is_own_instance).then(|| membership.acknowledgement(&self.name.edge, &epoch))
    }

    /// The acknowledgement to piggyback on the next feed request. `Err`: the request has to wait.
    pub(super) fn piggyback(&mut self, host: &dyn Host, now: Clocks) -> Result<Option<Piggyback>, FeedDeferred> {
        let subscribes_for_all = self.replication.is_leader() || self.registration.sharing() == Sharing::Nothing;
        if !subscribes_for_all || self.keys.live_table.is_loading() || self.subscription.wants_snapshot() {
            return Ok(None);
        }
        if self.subscription.is_behind() {
            // A revocation may be waiting at the control plane behind the changes of an import.
            return Ok(None);
        }
        let Some(acknowledgement) = self.acknowledgement(host, now) else { return Ok(None) };
        match self.acknowledgements.piggyback_state(&acknowledgement, now) {
            PiggybackState::Unavailable => Ok(None),
            PiggybackState::Applied(applied) => Ok(Some(Piggyback { applied, acknowledgement })),
            PiggybackState::Pending => Err(FeedDeferred),
        }
    }

    /// Acknowledges what the workers have applied, if this worker does that and there is something to acknowledge.
    pub(super) fn acknowledge(&mut self, host: &dyn Host, root: u32, now: Clocks, when: AcknowledgeWhen) {
        let Some(acknowledgement) = self.acknowledgement(host, now) else { return };
        // Wait until the other workers have the revision, too: they wake this worker then. Its next tick doesn't wait.
        if (when == AcknowledgeWhen::Uniform && !acknowledgement.is_uniform())
            || !self.acknowledgements.is_due(&acknowledgement, now)
        {
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

    /// Reports this worker's usage, if a batch is due. Each VM reports for itself, so that a VM that ends loses only
    /// its own.
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

    /// Handles the response to a usage batch. If the control plane is down, the feed logs that.
    pub(super) fn usage_answered(&mut self, host: &dyn Host, received: &CallAnswer) {
        let (now, status) = (clocks(host), header(received, ":status"));
        let usage = &mut self.outages.usage;
        match self.usage_reports.answered(&self.usage, self.registration.instance(), status) {
            BatchOutcome::Acknowledged => log(host, usage.succeeded(now)),
            BatchOutcome::Retry => {}
            BatchOutcome::Refused(status) => log(host, usage.failed(&Failure::UsageRefused(status), now)),
        }
    }
}
