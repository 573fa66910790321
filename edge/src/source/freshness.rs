//! Freshness: whether a worker may decide by its table, and whether all workers of the Envoy may.

use policy::protocol::timing::WORKER_HEARTBEAT_MS;

use super::calls::CallKind;
use super::registration::{self, Sharing};
use super::{Source, clocks};
use crate::host::Host;
use crate::keys::Clocks;

impl Source {
    /// Whether this worker's last heartbeat is so long ago that it may have missed a change: it was held up, or is new.
    pub fn is_late(&self, now: Clocks) -> bool {
        match self.registration.sharing() {
            Sharing::Unknown => true,
            Sharing::Nothing => false,
            Sharing::Membership => self.registration.is_overdue(now),
            Sharing::Everything => self.replication.is_resyncing() || self.registration.is_overdue(now),
        }
    }

    /// Catches up with what the leader published, before a request is decided. Returns whether this worker is up to
    /// date now; until its next heartbeat, that is valid only for this request.
    pub fn catch_up(&mut self, host: &dyn Host) -> bool {
        let now = clocks(host);
        self.registration.begin_event();
        if (self.registration.sharing() == Sharing::Unknown && !self.ensure_set_up(host, now))
            || self.discard_if_late(now)
        {
            return false;
        }
        self.replication.catch_up(host, &self.store, &mut self.keys)
    }

    /// Discards the confirmation of a late worker that subscribes for itself: other workers may have reported to the
    /// control plane that it has ended, so it decides nothing before its next response. Returns whether it is late.
    pub(super) fn discard_if_late(&mut self, now: Clocks) -> bool {
        let is_late = self.registration.sharing() == Sharing::Membership && self.is_late(now);
        if is_late {
            self.keys.discard_confirmation();
            self.abandon(CallKind::Feed);
            self.registration.renew_soon();
        }
        is_late
    }

    /// Whether every worker of this Envoy is ready, since a readiness probe reaches only one of them. If nothing is
    /// shared, this worker answers only for itself.
    pub fn are_all_workers_ready(&self, host: &dyn Host, now: Clocks) -> bool {
        match self.registration.sharing() {
            Sharing::Unknown => false,
            Sharing::Nothing => true,
            Sharing::Membership | Sharing::Everything => {
                // Workers start together: the missing ones send their first heartbeat within one interval.
                self.registration.age_ms(now) >= WORKER_HEARTBEAT_MS
                    && registration::read(host, &self.store).0.report().is_ready
            }
        }
    }
}
