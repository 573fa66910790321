//! Telling the control plane what each worker of this Envoy has applied.
//!
//! Where nothing but a revision differs from what was told, the feed's next request says it, in its `applied`: so a change costs
//! the control plane one request an Envoy, not two.

use serde::Serialize;

use crate::keys::Clocks;
use crate::process::roster::Roster;

/// The longest that nothing is said although nothing has changed: well below the lease of 30 s.
const QUIET_MS: u64 = 10_000;

/// How long to wait after an answer that was no acknowledgement's.
const RETRY_MS: u64 = 1_000;

/// Milliseconds an answer may take.
pub const TIMEOUT_MS: u64 = 5_000;

/// Where acknowledgements go.
pub const PATH: &str = "/edge/v1/acknowledgements";

/// What the control plane is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Acknowledgement {
    pub edge: String,
    pub instance: String,
    pub epoch: String,
    pub version: &'static str,
    pub max_staleness_secs: Option<u64>,
    pub workers: Vec<AppliedBy>,
}

/// What one worker has applied. A worker that is gone, or was held up for so long that it looks before it decides, has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AppliedBy {
    pub id: String,
    /// A revision of the epoch above; 0 while the worker has no table of it, and denies.
    pub applied: u64,
    /// Unix seconds.
    pub started_at: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

impl Acknowledgement {
    /// What the roster says of this epoch.
    pub fn of(roster: &Roster, edge: &str, epoch: &str) -> Self {
        let living = roster.workers.iter().map(|worker| AppliedBy {
            id: worker.id.clone(),
            applied: if worker.epoch == epoch { worker.report.revision } else { 0 },
            started_at: worker.started_at,
            ended: false,
        });
        let gone = roster.ended.iter().map(|ended| AppliedBy {
            id: ended.id.clone(),
            applied: 0,
            started_at: ended.started_at,
            ended: true,
        });
        let mut workers: Vec<_> = living.chain(gone).collect();
        workers.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        Self {
            edge: edge.to_owned(),
            instance: roster.instance.clone(),
            epoch: epoch.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            max_staleness_secs: roster.bounds().0,
            workers,
        }
    }

    /// Whether every worker that lives has applied the same: then there is nothing to wait for.
    pub fn is_even(&self) -> bool {
        let mut living = self.workers.iter().filter(|worker| !worker.ended).map(|worker| worker.applied);
        let first = living.next();
        living.all(|applied| Some(applied) == first)
    }

    /// Whether it is of the same workers, all of which live.
    fn differs_in_revisions_alone(&self, other: &Self) -> bool {
        let parts = |of: &Self| (of.instance.clone(), of.epoch.clone(), of.max_staleness_secs);
        let ids = |of: &Self| of.workers.iter().map(|worker| (worker.id.clone(), worker.ended)).collect::<Vec<_>>();
        parts(self) == parts(other) && ids(self) == ids(other) && self.ended().is_empty()
    }

    /// Who has ended, by this.
    pub fn ended(&self) -> Vec<String> {
        self.workers.iter().filter(|worker| worker.ended).map(|worker| worker.id.clone()).collect()
    }
}

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
        self.flight.take_if(|(_, sent_ms)| now_ms.saturating_sub(*sent_ms) > TIMEOUT_MS.saturating_mul(2));
        let is_news = self.told.as_ref() != Some(acknowledgement) || now_ms.saturating_sub(self.told_ms) > QUIET_MS;
        let is_due = self.flight.is_none() && now_ms >= self.retry_ms && is_news;
        if is_due {
            self.flight = Some((acknowledgement.clone(), now_ms));
        }
        is_due
    }

    /// What of this a feed request can say.
    pub fn rides(&self, acknowledgement: &Acknowledgement) -> Rides {
        let Some(told) = self.told.as_ref().filter(|_| self.flight.is_none()) else { return Rides::Nothing };
        if told == acknowledgement || !told.differs_in_revisions_alone(acknowledgement) {
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
