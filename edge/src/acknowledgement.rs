//! Acknowledgements: when and how an Envoy reports the revisions that its workers have applied.
//!
//! If only the revision differs from the last acknowledgement, it is piggybacked on the next feed request, as
//! `applied`. So a change costs the control plane one request for each Envoy, not two.

use policy::protocol::acknowledgement::Acknowledgement;
use policy::protocol::timing::{ACKNOWLEDGEMENT_HEARTBEAT_MS, ACKNOWLEDGEMENT_TIMEOUT_MS};

use crate::keys::Clocks;

/// The retry delay after a response other than 200, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// The longest that a feed request waits for workers that were woken, in milliseconds. They usually need only a few. A
/// worker that hangs must not delay the next revocation for the others by more than a tick.
const MAX_PIGGYBACK_WAIT_MS: u64 = 20;

/// Whether the next feed request can carry an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PiggybackState {
    /// No: there is nothing new, or one revision does not describe it.
    Unavailable,
    /// Yes: all workers have applied this revision.
    Applied(u64),
    /// Soon: some workers were woken a moment ago and have not applied it yet.
    Pending,
}

/// Sends acknowledgements: at once when something changed, as a heartbeat when nothing did, and one at a time.
#[derive(Default)]
pub struct AcknowledgementSender {
    /// The request in flight, and when it was sent.
    in_flight: Option<(Acknowledgement, u64)>,
    /// The last acknowledgement that the control plane has, and when it got it.
    acknowledged: Option<Acknowledgement>,
    acknowledged_ms: u64,
    retry_ms: u64,
    /// `acknowledged` was piggybacked on a feed request that isn't answered yet.
    is_piggybacked: bool,
    /// When the next feed request began to wait for other workers.
    waits_since_ms: Option<u64>,
}

impl AcknowledgementSender {
    /// Whether to send this acknowledgement now. The caller sends it, then calls [`Self::answered`] once.
    pub fn is_due(&mut self, acknowledgement: &Acknowledgement, now: Clocks) -> bool {
        let now_ms = now.monotonic_ms;
        // Envoy reports the end of each call, except when the context that sent it has ended: hence the deadline.
        self.in_flight
            .take_if(|(_, sent_ms)| now_ms.saturating_sub(*sent_ms) > ACKNOWLEDGEMENT_TIMEOUT_MS.saturating_mul(2));
        let needs_sending = self.acknowledged.as_ref() != Some(acknowledgement)
            || now_ms.saturating_sub(self.acknowledged_ms) > ACKNOWLEDGEMENT_HEARTBEAT_MS;
        let is_due = self.in_flight.is_none() && now_ms >= self.retry_ms && needs_sending;
        if is_due {
            self.in_flight = Some((acknowledgement.clone(), now_ms));
        }
        is_due
    }

    /// Whether the next feed request can carry this acknowledgement.
    pub fn piggyback_state(&mut self, acknowledgement: &Acknowledgement, now: Clocks) -> PiggybackState {
        let Some(acknowledged) = self.acknowledged.as_ref().filter(|_| self.in_flight.is_none()) else {
            return PiggybackState::Unavailable;
        };
        if acknowledged == acknowledgement || !differ_only_in_revisions(acknowledged, acknowledgement) {
            return PiggybackState::Unavailable;
        }
        match acknowledgement.workers.first() {
            Some(worker) if acknowledgement.is_uniform() => PiggybackState::Applied(worker.applied),
            Some(_) => {
                let since_ms = *self.waits_since_ms.get_or_insert(now.monotonic_ms);
                if now.monotonic_ms.saturating_sub(since_ms) < MAX_PIGGYBACK_WAIT_MS {
                    PiggybackState::Pending
                } else {
                    PiggybackState::Unavailable
                }
            }
            None => PiggybackState::Unavailable,
        }
    }

    /// A feed request was sent, perhaps with a piggybacked acknowledgement.
    pub fn feed_requested(&mut self, piggybacked: Option<Acknowledgement>, now: Clocks) {
        self.waits_since_ms = None;
        if piggybacked.is_some() {
            (self.acknowledged, self.acknowledged_ms, self.is_piggybacked) = (piggybacked, now.monotonic_ms, true);
        }
    }

    /// A feed request was answered, or never will be. Unless it succeeded, its acknowledgement has to be sent again.
    pub fn feed_answered(&mut self, is_acknowledged: bool) {
        if std::mem::take(&mut self.is_piggybacked) && !is_acknowledged {
            self.acknowledged = None;
        }
    }

    /// The response's status, `None` without a response. Returns the acknowledgement if the control plane accepted it.
    pub fn answered(&mut self, now: Clocks, status: Option<u16>) -> Option<Acknowledgement> {
        let (acknowledgement, _) = self.in_flight.take()?;
        if status == Some(200) {
            self.acknowledged = Some(acknowledgement.clone());
            self.acknowledged_ms = now.monotonic_ms;
            return Some(acknowledgement);
        }
        self.retry_ms = now.monotonic_ms.saturating_add(RETRY_MS);
        None
    }

    /// The answer to the call in flight will never arrive.
    pub fn abandon(&mut self) {
        self.in_flight = None;
    }
}

/// Whether two acknowledgements name the same workers, none of which has ended.
fn differ_only_in_revisions(one: &Acknowledgement, other: &Acknowledgement) -> bool {
    let sender = |of: &Acknowledgement| (of.instance.clone(), of.epoch.clone(), of.max_staleness_secs);
    let ids =
        |of: &Acknowledgement| of.workers.iter().map(|worker| (worker.id.clone(), worker.ended)).collect::<Vec<_>>();
    sender(one) == sender(other) && ids(one) == ids(other) && one.ended().next().is_none()
}
