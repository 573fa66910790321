//! When to acknowledge what the workers of this Envoy have applied, and how.
//!
//! Where nothing but a revision differs from the last acknowledgement, the next feed request carries it, as `applied`: so a
//! change costs the control plane one request for each Envoy, not two.

use policy::protocol::acknowledgement::Acknowledgement;
use policy::protocol::timing::{ACKNOWLEDGEMENT_HEARTBEAT_MS, ACKNOWLEDGEMENT_TIMEOUT_MS};

use crate::keys::Clocks;

/// How long to wait after an answer other than 200, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// The longest that a feed request waits for workers that were woken, in milliseconds. They take a few; one that hangs must not
/// keep the others from the next revocation, which arrives at most a tick later then.
const UNEVEN_MS: u64 = 20;

/// Whether the next feed request can carry an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fits {
    /// There is nothing new, or it needs more than one revision.
    Not,
    /// All workers have this revision.
    Applied(u64),
    /// Not all workers have it yet, and those that lack it will in a moment.
    InAMoment,
}

/// Sends acknowledgements: at once when something changed, as a heartbeat when nothing did, and one at a time.
#[derive(Default)]
pub struct AcknowledgementSender {
    /// The request in flight, and when it was sent.
    in_flight: Option<(Acknowledgement, u64)>,
    /// What the control plane has, and since when.
    known: Option<Acknowledgement>,
    known_ms: u64,
    retry_ms: u64,
    /// `known` was sent with a feed request that isn't answered yet.
    is_with_feed: bool,
    /// Since when the next feed request waits for other workers.
    waits_since_ms: Option<u64>,
}

impl AcknowledgementSender {
    /// Whether to send this now; the caller sends it, then calls [`Self::answered`] once.
    pub fn is_due(&mut self, acknowledgement: &Acknowledgement, now: Clocks) -> bool {
        let now_ms = now.monotonic_ms;
        // Envoy reports the end of each call; the deadline is for one whose context has ended.
        self.in_flight
            .take_if(|(_, sent_ms)| now_ms.saturating_sub(*sent_ms) > ACKNOWLEDGEMENT_TIMEOUT_MS.saturating_mul(2));
        let is_news = self.known.as_ref() != Some(acknowledgement)
            || now_ms.saturating_sub(self.known_ms) > ACKNOWLEDGEMENT_HEARTBEAT_MS;
        let is_due = self.in_flight.is_none() && now_ms >= self.retry_ms && is_news;
        if is_due {
            self.in_flight = Some((acknowledgement.clone(), now_ms));
        }
        is_due
    }

    /// Whether the next feed request can carry this.
    pub fn fits(&mut self, acknowledgement: &Acknowledgement, now: Clocks) -> Fits {
        let Some(known) = self.known.as_ref().filter(|_| self.in_flight.is_none()) else { return Fits::Not };
        if known == acknowledgement || !differ_in_revisions_alone(known, acknowledgement) {
            return Fits::Not;
        }
        match acknowledgement.workers.first() {
            Some(worker) if acknowledgement.is_even() => Fits::Applied(worker.applied),
            Some(_) => {
                let since_ms = *self.waits_since_ms.get_or_insert(now.monotonic_ms);
                if now.monotonic_ms.saturating_sub(since_ms) < UNEVEN_MS { Fits::InAMoment } else { Fits::Not }
            }
            None => Fits::Not,
        }
    }

    /// A feed request was sent, and may carry an acknowledgement.
    pub fn feed_requested(&mut self, carried: Option<Acknowledgement>, now: Clocks) {
        self.waits_since_ms = None;
        if carried.is_some() {
            (self.known, self.known_ms, self.is_with_feed) = (carried, now.monotonic_ms, true);
        }
    }

    /// A feed request was answered, or never will be: what it carried is known, or has to be sent again.
    pub fn feed_answered(&mut self, is_known: bool) {
        if std::mem::take(&mut self.is_with_feed) && !is_known {
            self.known = None;
        }
    }

    /// The answer's status, `None` without one. Returns what was acknowledged, if it was.
    pub fn answered(&mut self, now: Clocks, status: Option<u16>) -> Option<Acknowledgement> {
        let (acknowledgement, _) = self.in_flight.take()?;
        if status == Some(200) {
            self.known = Some(acknowledgement.clone());
            self.known_ms = now.monotonic_ms;
            return Some(acknowledgement);
        }
        self.retry_ms = now.monotonic_ms.saturating_add(RETRY_MS);
        None
    }

    /// The call in flight will never be answered here.
    pub fn abandon(&mut self) {
        self.in_flight = None;
    }
}

/// Whether two acknowledgements name the same workers, none of which has ended.
fn differ_in_revisions_alone(one: &Acknowledgement, other: &Acknowledgement) -> bool {
    let sender = |of: &Acknowledgement| (of.instance.clone(), of.epoch.clone(), of.max_staleness_secs);
    let ids =
        |of: &Acknowledgement| of.workers.iter().map(|worker| (worker.id.clone(), worker.ended)).collect::<Vec<_>>();
    sender(one) == sender(other) && ids(one) == ids(other) && one.ended().next().is_none()
}
