//! Telling the control plane what each worker of this Envoy has applied.
//!
//! Where nothing but a revision differs from what was told, the feed's next request says it, in its `applied`: so a change costs
//! the control plane one request an Envoy, not two.

use policy::protocol::acknowledgement::Acknowledgement;
use policy::protocol::timing::{ACKNOWLEDGEMENT_HEARTBEAT_MS, ACKNOWLEDGEMENT_TIMEOUT_MS};

use crate::keys::Clocks;

/// How long to wait after an answer that was no acknowledgement's.
const RETRY_MS: u64 = 1_000;

/// What the next feed request says of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rides {
    /// Nothing: it is known, or needs more words than one.
    Nothing,
    /// All workers have this revision.
    Applied(u64),
    /// Not all have it yet, and those that lack it will have it in a moment.
    Uneven,
}

/// When to say it: at once when it changed, now and then when it didn't, and one at a time.
#[derive(Default)]
pub struct Acknowledging {
    flight: Option<(Acknowledgement, u64)>,
    told: Option<Acknowledgement>,
    told_ms: u64,
    retry_ms: u64,
    /// Whether what was told last stands in a feed request that was not answered yet.
    rides: bool,
}

impl Acknowledging {
    /// Whether this should be said now; the caller sends it, then hands in [`Self::answered`] once.
    pub fn is_due(&mut self, acknowledgement: &Acknowledgement, now: Clocks) -> bool {
        let now_ms = now.monotonic_ms;
        // Envoy reports each call's end; the deadline is for one whose context went away.
        self.flight
            .take_if(|(_, sent_ms)| now_ms.saturating_sub(*sent_ms) > ACKNOWLEDGEMENT_TIMEOUT_MS.saturating_mul(2));
        let is_news = self.told.as_ref() != Some(acknowledgement)
            || now_ms.saturating_sub(self.told_ms) > ACKNOWLEDGEMENT_HEARTBEAT_MS;
        let is_due = self.flight.is_none() && now_ms >= self.retry_ms && is_news;
        if is_due {
            self.flight = Some((acknowledgement.clone(), now_ms));
        }
        is_due
    }

    /// What of this a feed request can say.
    pub fn rides(&self, acknowledgement: &Acknowledgement) -> Rides {
        let Some(told) = self.told.as_ref().filter(|_| self.flight.is_none()) else { return Rides::Nothing };
        if told == acknowledgement || !differ_in_revisions_alone(told, acknowledgement) {
            return Rides::Nothing;
        }
        match acknowledgement.workers.first() {
            Some(worker) if acknowledgement.is_even() => Rides::Applied(worker.applied),
            Some(_) => Rides::Uneven,
            None => Rides::Nothing,
        }
    }

    /// A feed request that says this was sent.
    pub fn rode(&mut self, acknowledgement: Acknowledgement, now: Clocks) {
        (self.told, self.told_ms, self.rides) = (Some(acknowledgement), now.monotonic_ms, true);
    }

    /// A feed request was answered, or never will be: what it said is known, or has to be said again.
    pub fn arrived(&mut self, is_known: bool) {
        if std::mem::take(&mut self.rides) && !is_known {
            self.told = None;
        }
    }

    /// The answer's status, `None` without one. Answers what was acknowledged, if it was.
    pub fn answered(&mut self, now: Clocks, status: Option<u16>) -> Option<Acknowledgement> {
        let (acknowledgement, _) = self.flight.take()?;
        if status == Some(200) {
            self.told = Some(acknowledgement.clone());
            self.told_ms = now.monotonic_ms;
            return Some(acknowledgement);
        }
        self.retry_ms = now.monotonic_ms.saturating_add(RETRY_MS);
        None
    }

    /// The call in flight will never be answered here.
    pub fn abandon(&mut self) {
        self.flight = None;
    }
}

/// Whether two acknowledgements name the same workers, none of which has ended.
fn differ_in_revisions_alone(one: &Acknowledgement, other: &Acknowledgement) -> bool {
    let sender = |of: &Acknowledgement| (of.instance.clone(), of.epoch.clone(), of.max_staleness_secs);
    let ids =
        |of: &Acknowledgement| of.workers.iter().map(|worker| (worker.id.clone(), worker.ended)).collect::<Vec<_>>();
    sender(one) == sender(other) && ids(one) == ids(other) && one.ended().next().is_none()
}
