//! Feed requests: what a worker requests from the control plane, and what it does with the answers.

use std::time::Duration;

use policy::Position;
use policy::protocol::{HEAD_HEADER, RETRY_AFTER_HEADER, TIME_HEADER};

use super::calls::CallKind;
use super::configurations::Bounds;
use super::replication::WorkerRole;
use super::reporting::{Piggyback, When};
use super::{Source, clocks, log, random_byte};
use crate::host::{CallAnswer, Host, LogLevel};
use crate::keys::Clocks;
use crate::process::publisher::Wake;
use crate::subscription::{Answer, Asking, Failure, News, Outcome, Progress};

impl Source {
    /// The answer to a feed request that `root` sent. A failure is logged here.
    pub(super) fn feed_answered(&mut self, host: &dyn Host, root: u32, received: CallAnswer) -> Progress {
        let answer = Answer {
            status: header(&received, ":status"),
            time_ms: header(&received, TIME_HEADER),
            head: header(&received, HEAD_HEADER),
            retry_after_secs: header(&received, RETRY_AFTER_HEADER),
            body: received.body,
        };
        let now = clocks(host);
        if self.distrusts(now) {
            // It answers what was requested before this worker was held up, and may have waited here as long.
            self.request_feed(host, root, now);
            return Progress::Quiet;
        }
        // Another worker may lead by now, and go on from what this one published: a change applied now would be undone.
        self.renew(host, now);
        if self.replication.depends_on_another() {
            // It answers a leader that was deposed meanwhile.
            self.abandon(CallKind::Feed);
            return Progress::Quiet;
        }
        let (before, wanted) = (self.keys.holding.position(), self.subscription.wants_snapshot());
        let Outcome { progress, news } = self.subscription.answered(&mut self.keys, now, random_byte(host), answer);
        self.acknowledgements.feed_answered(!matches!(progress, Progress::Failed(_)));
        let feed = &mut self.outages.feed;
        log(host, if let Progress::Failed(failure) = &progress { feed.failed(failure, now) } else { feed.worked(now) });
        if let (News::Snapshot(begins), Some(before)) = (&news, before)
            && (begins.epoch != before.epoch || (!wanted && begins.revision <= before.revision))
        {
            self.history_changes = self.history_changes.saturating_add(1);
            host.log(LogLevel::Error, &another_history(*begins, before));
        }
        self.publish(host, &news);
        if let Progress::Quiet | Progress::Serves(_) = progress {
            // The control plane itself has answered what is newest, unless something is still missing.
            let is_complete = !self.keys.holding.is_loading() && !self.subscription.wants_snapshot();
            self.replication.was_answered(is_complete);
        }
        if progress == Progress::Failed(Failure::Retired) {
            self.retire(host);
        }
        if let Progress::Serves(_) = progress {
            self.registration.renew_soon();
            self.renew(host, now);
        }
        self.request_feed(host, root, now);
        self.acknowledge(host, root, now, When::Even);
        progress
    }

    /// A leader hands on what an answer brought.
    fn publish(&mut self, host: &dyn Host, news: &News) {
        let newest = self.keys.holding.newest().map(|newest| newest.revision);
        if let (News::Delta(_), Some(newest)) = (news, newest) {
            host.log(LogLevel::Debug, &format!("revision {newest} has come"));
        }
        let published = self.replication.publish(host, &self.store, &self.keys, news);
        match (&published, newest) {
            (Ok(Wake::Everybody), Some(newest)) => {
                host.log(LogLevel::Debug, &format!("revision {newest} is published"));
            }
            (Ok(_), _) => {}
            // Nothing was decided by what the answer brought, and nothing is before this worker is in step again.
            (Err(_), _) => self.keys.distrust(),
        }
        self.wake_peers(host, published);
    }

    /// Sends the next feed request, if one is due and this worker subscribes. Envoy takes it for a call of `root`, whose callback
    /// is running.
    pub(super) fn request_feed(&mut self, host: &dyn Host, root: u32, now: Clocks) {
        let Bounds { largest, smallest } = match self.replication.role() {
            WorkerRole::Independent => self.configurations.bounds(),
            WorkerRole::Leader(_) => self.registration.bounds(),
            WorkerRole::Follower | WorkerRole::TakingOver { .. } => return,
        };
        if !self.subscription.is_due(now) {
            return;
        }
        let Ok(piggyback) = self.piggyback(host, now) else { return };
        let Some(instance) = self.registration.instance() else { return };
        let applied = piggyback.as_ref().map(|Piggyback { applied, .. }| *applied);
        let asking = Asking { instance, largest_bound: largest, smallest_bound: smallest, applied };
        let Some(fetch) = self.subscription.next_fetch(&self.keys, asking, now) else { return };
        match self.send(host, &fetch.path, None, Duration::from_millis(fetch.timeout_ms)) {
            Ok(number) => {
                self.calls.sent(CallKind::Feed, root, number);
                self.acknowledgements.feed_requested(piggyback.map(|sent| sent.acknowledgement), now);
            }
            Err(_) => {
                let failure = self.subscription.not_sent(now, random_byte(host));
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

/// A header of an answer, parsed.
pub(super) fn header<T: std::str::FromStr>(received: &CallAnswer, name: &str) -> Option<T> {
    let found = received.headers.iter().find(|(own, _)| own == name);
    found.and_then(|(_, value)| str::from_utf8(value).ok()).and_then(|text| text.parse().ok())
}
