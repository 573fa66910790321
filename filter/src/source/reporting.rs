//! A source's word to the control plane: what the workers have applied, what this one counted, and what follows when the
//! instance counts no more.

use std::time::Duration;

use policy::protocol::acknowledgement::Acknowledgement;
use policy::protocol::timing::{ACKNOWLEDGEMENT_TIMEOUT_MS, USAGE_TIMEOUT_MS};
use policy::protocol::{ACKNOWLEDGEMENTS_PATH, MISSING_WORKER_HEADER, USAGE_PATH, is_name};

use super::asking::header;
use super::{Part, Shares, Source, When, change_roster, clocks, hex, log, random, read_roster};
use crate::acknowledgement::Rides;
use crate::host::{Call, CallAnswer, Host};
use crate::keys::Clocks;
use crate::process::roster::{Roster, Worker};
use crate::process::shelf::Deposed;
use crate::subscription::Failure;
use crate::usage::Told;

/// The longest that a feed request waits for workers that were woken, in milliseconds. They take a few; one that hangs must not
/// keep the others from the next revocation, which comes at most a tick later then.
const UNEVEN_MS: u64 = 20;

/// The feed request waits.
pub(super) struct Waits;

impl Source {
    /// The answer to an acknowledgement.
    pub(super) fn acknowledged(&mut self, host: &dyn Host, root: u32, received: &CallAnswer) {
        let now = clocks(host);
        let status = header(received, ":status");
        let failure = match (self.acknowledging.answered(now, status), status) {
            (Some(told), _) => {
                let ended: Vec<_> = told.ended().collect();
                if !ended.is_empty() && self.shares != Shares::Nothing {
                    let name = self.shelf.roster();
                    change_roster(host, &name, |roster| roster.ended.retain(|own| !ended.contains(&own.id.as_str())));
                }
                self.acknowledge(host, root, now, When::Even);
                return log(host, self.outages.acknowledgements.worked(now));
            }
            (None, Some(410)) => {
                self.retire(host);
                Failure::Retired
            }
            (None, Some(409)) => {
                self.bury(host, header(received, MISSING_WORKER_HEADER));
                Failure::NotAcknowledged(409)
            }
            // A control plane that is down is the feed's to report.
            (None, Some(503 | 504) | None) => return,
            (None, Some(other)) => Failure::NotAcknowledged(other),
        };
        log(host, self.outages.acknowledgements.failed(&failure, now));
    }

    /// Has the next acknowledgement say that a worker has ended which the control plane counts, and the roster doesn't: all that
    /// decide stand there.
    fn bury(&self, host: &dyn Host, missing: Option<String>) {
        if let Some(id) = missing.filter(|id| is_name(id)).filter(|_| self.shares != Shares::Nothing) {
            change_roster(host, &self.shelf.roster(), |roster| roster.buries(&id));
        }
    }

    /// The control plane no longer counts this instance: it takes a new id, and nothing is decided before that was heard of.
    pub(super) fn retire(&mut self, host: &dyn Host) {
        let retired = self.instance.take().unwrap_or_default();
        if self.shares == Shares::Nothing {
            // The worker's id is the instance's.
            self.me = None;
        } else if let Some(fresh) = hex(host.random()) {
            let name = self.shelf.roster();
            let changed = change_roster(host, &name, |roster| {
                if roster.instance == retired {
                    roster.instance.clone_from(&fresh);
                    // The new instance never had them.
                    roster.ended.clear();
                }
            });
            self.instance = changed.map(|(roster, ())| roster.instance);
        }
        self.keys.distrust();
        self.subscription.rests(clocks(host), random(host));
        if let Part::Leads(publisher) = &self.part {
            match publisher.announce(host, &self.shelf, &self.keys) {
                Ok(()) => self.others.iter().for_each(|queue| host.wake(*queue)),
                Err(Deposed) => self.step_down(),
            }
        }
    }

    /// What the workers have applied, if it is this worker's part to tell.
    fn acknowledgement(&self, host: &dyn Host, now: Clocks) -> Option<Acknowledgement> {
        let (me, position) = (self.me.as_ref()?, self.keys.holding.position()?);
        let roster = match self.shares {
            Shares::Unknown => return None,
            Shares::Nothing => {
                let mut own = Roster { instance: me.clone(), ..Roster::default() };
                own.sign(self.entry(now, me), me, now.monotonic_ms);
                own
            }
            Shares::Roster | Shares::Everything => read_roster(host, &self.shelf.roster()).0,
        };
        let tells = match self.part {
            Part::Leads(_) => true,
            Part::Alone => roster.workers.iter().map(|worker| &worker.id).min() == Some(me),
            Part::Follows | Part::TakesOver { .. } => false,
        };
        let tells = tells && self.instance.as_ref() == Some(&roster.instance);
        tells.then(|| roster.acknowledgement(&self.name.edge, &position.epoch.to_string()))
    }

    /// What the next feed request says of the workers, and what it is known by once it was sent. `Err`: it has to wait, for
    /// those that were woken a moment ago.
    pub(super) fn rides(&mut self, host: &dyn Host, now: Clocks) -> Result<Option<(u64, Acknowledgement)>, Waits> {
        let asks_for_all = matches!(self.part, Part::Leads(_)) || self.shares == Shares::Nothing;
        if !asks_for_all || self.keys.holding.is_loading() || self.subscription.wants_snapshot() {
            return Ok(None);
        }
        if self.subscription.is_behind() {
            // What waits there may matter more than what an import brings just now.
            return Ok(None);
        }
        let Some(acknowledgement) = self.acknowledgement(host, now) else { return Ok(None) };
        match self.acknowledging.rides(&acknowledgement) {
            Rides::Nothing => Ok(None),
            Rides::Applied(revision) => Ok(Some((revision, acknowledgement))),
            Rides::Uneven => {
                let since_ms = *self.waits_since_ms.get_or_insert(now.monotonic_ms);
                if now.monotonic_ms.saturating_sub(since_ms) < UNEVEN_MS { Err(Waits) } else { Ok(None) }
            }
        }
    }

    /// Tells the control plane what the workers have applied, if that is this worker's part and there is something to tell.
    pub(super) fn acknowledge(&mut self, host: &dyn Host, root: u32, now: Clocks, when: When) {
        let Some(newest) = self.roots.values().next_back() else { return };
        let Some(acknowledgement) = self.acknowledgement(host, now) else { return };
        // Those that have it already wait for the others, which tell this worker; its next tick doesn't.
        if (when == When::Even && !acknowledgement.is_even()) || !self.acknowledging.is_due(&acknowledgement, now) {
            return;
        }
        let Ok(body) = serde_json::to_string(&acknowledgement) else { return };
        let call = Call {
            cluster: &self.name.cluster,
            authority: &self.name.authority,
            path: ACKNOWLEDGEMENTS_PATH,
            token: newest.token.as_deref(),
            body: Some(&body),
            timeout: Duration::from_millis(ACKNOWLEDGEMENT_TIMEOUT_MS),
        };
        match host.dispatch(&call) {
            Ok(number) => self.teller = Some((root, number)),
            Err(_) => {
                self.acknowledging.answered(now, None);
            }
        }
    }

    /// Tells the control plane what this worker counted, if it is time: each VM for itself, so that nothing is lost with another.
    pub(super) fn report_usage(&mut self, host: &dyn Host, root: u32, now: Clocks) {
        let (Some(instance), Some(newest)) = (&self.instance, self.roots.values().next_back()) else { return };
        let names = (self.name.edge.as_str(), instance.as_str());
        let Some(batch) = self.reporting.due(&self.usage, names, now, || host.random()) else { return };
        let Ok(body) = serde_json::to_string(batch) else { return };
        let call = Call {
            cluster: &self.name.cluster,
            authority: &self.name.authority,
            path: USAGE_PATH,
            token: newest.token.as_deref(),
            body: Some(&body),
            timeout: Duration::from_millis(USAGE_TIMEOUT_MS),
        };
        match host.dispatch(&call) {
            Ok(number) => self.reporter = Some((root, number)),
            Err(_) => self.reporting.abandon(),
        }
    }

    /// The answer to a batch of usage. A control plane that is down is the feed's to report.
    pub(super) fn usage_reported(&mut self, host: &dyn Host, received: &CallAnswer) {
        let now = clocks(host);
        let status = header(received, ":status");
        let usage = &mut self.outages.usage;
        match self.reporting.answered(&self.usage, self.instance.as_deref(), status) {
            Told::Counted => log(host, usage.worked(now)),
            Told::Again => {}
            Told::Refused(status) => log(host, usage.failed(&Failure::UsageRefused(status), now)),
        }
    }

    /// This worker, as it signs.
    pub(super) fn entry(&self, now: Clocks, id: &str) -> Worker {
        let (largest_bound, smallest_bound) = self.own_bounds();
        Worker {
            id: id.to_owned(),
            queue: self.queue.map(|(_, queue)| queue),
            signed_ms: now.monotonic_ms,
            joined_ms: self.joined_ms,
            started_at: self.started_at,
            epoch: self.keys.holding.position().map(|position| position.epoch.to_string()).unwrap_or_default(),
            has_requests: self.has_requests,
            report: self.keys.report(now, smallest_bound),
            broken: self.follower.broken(),
            largest_bound,
            smallest_bound,
        }
    }
}
