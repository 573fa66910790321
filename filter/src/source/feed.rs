//! What a worker asks the control plane, and what it makes of the answers.

use std::time::Duration;

use policy::Position;
use policy::protocol::{HEAD_HEADER, RETRY_AFTER_HEADER, TIME_HEADER};

use super::{Part, Source, When, clocks, log, random};
use crate::host::{Call, CallAnswer, Host, LogLevel};
use crate::keys::Clocks;
use crate::process::publisher::Wake;
use crate::process::shelf::Deposed;
use crate::subscription::{Answer, Asking, Failure, News, Outcome, Progress};

impl Source {
    /// The answer to the call with this number, which `root` sent. What went wrong is logged here.
    pub fn answered(&mut self, host: &dyn Host, root: u32, number: u32, received: CallAnswer) -> Progress {
        if self.teller.take_if(|teller| *teller == (root, number)).is_some() {
            self.acknowledged(host, root, &received);
            return Progress::Quiet;
        }
        if self.reporter.take_if(|reporter| *reporter == (root, number)).is_some() {
            self.usage_reported(host, &received);
            return Progress::Quiet;
        }
        if self.caller.take_if(|caller| *caller == (root, number)).is_none() {
            return Progress::Quiet;
        }
        let answer = Answer {
            status: header(&received, ":status"),
            time_ms: header(&received, TIME_HEADER),
            head: header(&received, HEAD_HEADER),
            retry_after_secs: header(&received, RETRY_AFTER_HEADER),
            body: received.body,
        };
        let now = clocks(host);
        if self.doubts(now) {
            // An answer to what was asked before this worker was held up: it may have lain there as long.
            self.ask(host, root, now);
            return Progress::Quiet;
        }
        // Another one may lead by now, and go on from what this one published: a change taken in now would be taken back.
        self.sign(host, now);
        if matches!(self.part, Part::Follows | Part::TakesOver { .. }) {
            // An answer to a leader that was deposed meanwhile.
            self.subscription.abandon();
            self.acknowledging.arrived(false);
            return Progress::Quiet;
        }
        let (before, wanted) = (self.keys.holding.position(), self.subscription.wants_snapshot());
        let Outcome { progress, news } = self.subscription.answered(&mut self.keys, now, random(host), answer);
        self.acknowledging.arrived(!matches!(progress, Progress::Failed(_)));
        let feed = &mut self.outages.feed;
        log(host, if let Progress::Failed(failure) = &progress { feed.failed(failure, now) } else { feed.worked(now) });
        if let (News::Snapshot(begins), Some(before)) = (&news, before)
            && (begins.epoch != before.epoch || (!wanted && begins.revision <= before.revision))
        {
            self.history_changes = self.history_changes.saturating_add(1);
            host.log(LogLevel::Error, &another_history(*begins, before));
        }
        if let (News::Delta(_), Some(newest)) = (&news, self.keys.holding.newest()) {
            host.log(LogLevel::Debug, &format!("revision {} has come", newest.revision));
        }
        if let Part::Leads(publisher) = &mut self.part {
            match publisher.publish(host, &self.shelf, &self.keys, &news) {
                Ok(Wake::Everybody) => {
                    self.others.iter().for_each(|queue| host.wake(*queue));
                    if let Some(newest) = self.keys.holding.newest() {
                        host.log(LogLevel::Debug, &format!("revision {} is published", newest.revision));
                    }
                }
                Ok(Wake::Nobody) => {}
                Err(Deposed) => {
                    // Nothing was decided by what the answer brought, and nothing is before this worker is in step again.
                    self.keys.distrust();
                    self.step_down();
                }
            }
        }
        if let (Part::Leads(_), Progress::Quiet | Progress::Serves(_)) = (&self.part, &progress) {
            // The control plane itself has said what holds, once nothing is missing.
            self.was_held_up &= self.keys.holding.is_loading() || self.subscription.wants_snapshot();
        }
        if progress == Progress::Failed(Failure::Retired) {
            self.retire(host);
        }
        if let Progress::Serves(_) = progress {
            self.signs_ms = None;
            self.sign(host, now);
        }
        self.ask(host, root, now);
        self.acknowledge(host, root, now, When::Even);
        progress
    }

    /// Sends what is to be known next, if it is time and this worker's part. Envoy takes it for a call of `root`, whose callback
    /// is running.
    pub(super) fn ask(&mut self, host: &dyn Host, root: u32, now: Clocks) {
        let (largest_bound, smallest_bound) = match (&self.part, self.shares) {
            (Part::Alone, _) => self.own_bounds(),
            (Part::Leads(_), _) => self.bounds,
            (Part::Follows | Part::TakesOver { .. }, _) => return,
        };
        if !self.subscription.is_due(now) {
            return;
        }
        let Ok(rides) = self.rides(host, now) else { return };
        let (Some(instance), Some(newest)) = (&self.instance, self.roots.values().next_back()) else { return };
        let applied = rides.as_ref().map(|(revision, _)| *revision);
        let asking = Asking { instance, largest_bound, smallest_bound, applied };
        let Some(fetch) = self.subscription.next_fetch(&self.keys, asking, now) else { return };
        let call = Call {
            cluster: &self.name.cluster,
            authority: &self.name.authority,
            path: &fetch.path,
            token: newest.token.as_deref(),
            body: None,
            timeout: Duration::from_millis(fetch.timeout_ms),
        };
        match host.dispatch(&call) {
            Ok(number) => {
                self.caller = Some((root, number));
                self.waits_since_ms = None;
                if let Some((_, acknowledgement)) = rides {
                    self.acknowledging.rode(acknowledgement, now);
                }
            }
            Err(_) => {
                let failure = self.subscription.not_sent(now, random(host));
                log(host, self.outages.feed.failed(&failure, now));
            }
        }
    }
}

fn another_history(begins: Position, before: Position) -> String {
    format!(
        "the control plane's history is another one: epoch {} at revision {}, after epoch {} at revision {}; what it says now is \
         enforced, so if its database was restored, keys that were revoked since may be valid again: revoke them again",
        begins.epoch, begins.revision, before.epoch, before.revision
    )
}

/// A header of an answer, read as what it should be.
pub(super) fn header<T: std::str::FromStr>(received: &CallAnswer, name: &str) -> Option<T> {
    let found = received.headers.iter().find(|(own, _)| own == name);
    found.and_then(|(_, value)| str::from_utf8(value).ok()).and_then(|text| text.parse().ok())
}
