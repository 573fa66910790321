//! Whether a worker may decide by what it has, and whether all workers of the Envoy may.

use policy::protocol::timing::WORKER_HEARTBEAT_MS;

use super::calls::CallKind;
use super::registration::{self, Sharing};
use super::{Source, clocks};
use crate::host::Host;
use crate::keys::Clocks;

impl Source {
    /// True when the last heartbeat of this worker is so long ago that it may have missed a change: it was held up, or is new.
    pub fn is_late(&self, now: Clocks) -> bool {
        match self.registration.sharing() {
            Sharing::Unknown => true,
            Sharing::Nothing => false,
            Sharing::Membership => self.registration.is_overdue(now),
            Sharing::Everything => self.replication.is_resyncing() || self.registration.is_overdue(now),
        }
    }

    /// Catches up with what the leader published, before a request is decided. Answers whether this worker is up to date now:
    /// that holds for this request alone until its next heartbeat.
    pub fn catches_up(&mut self, host: &dyn Host) -> bool {
        let now = clocks(host);
        self.registration.begin_event();
        if (self.registration.sharing() == Sharing::Unknown && !self.is_set_up(host, now)) || self.distrusts(now) {
            return false;
        }
        self.replication.catch_up(host, &self.store, &mut self.keys)
    }

    /// A worker that was held up, and that subscribes for itself, may have been ended at the control plane by others: it decides
    /// nothing until it has a new answer. Answers whether that is so.
    pub(super) fn distrusts(&mut self, now: Clocks) -> bool {
        let distrusts = self.registration.sharing() == Sharing::Membership && self.is_late(now);
        if distrusts {
            self.keys.distrust();
            self.abandon(CallKind::Feed);
            self.registration.renew_soon();
        }
        distrusts
    }

    /// Whether every worker of this Envoy is ready: a readiness probe reaches only one of them. Where nothing is shared, this
    /// worker answers for itself.
    pub fn is_everybody_ready(&self, host: &dyn Host, now: Clocks) -> bool {
        match self.registration.sharing() {
            Sharing::Unknown => false,
            Sharing::Nothing => true,
            Sharing::Membership | Sharing::Everything => {
                // Workers start together: those that are still to come have their first heartbeat within one interval.
                self.registration.age_ms(now) >= WORKER_HEARTBEAT_MS
                    && registration::read(host, &self.store).0.report().is_ready
            }
        }
    }
}
