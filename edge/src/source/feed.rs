//! Feed requests: when a worker sends them, and what it does with the responses.

use std::time::Duration;

use policy::Position;
use policy::protocol::{HEAD_HEADER, RETRY_AFTER_HEADER, TIME_HEADER};

use super::calls::CallKind;
use super::configurations::Bounds;
use super::replication::WorkerRole;
use super::reporting::{AcknowledgeWhen, Piggyback};
use super::{Source, clocks, log, random_byte};
use crate::host::{CallAnswer, Host, LogLevel};
use crate::keys::Clocks;
use crate::process::publisher::Wake;
use crate::subscription::{Failure, FeedOutcome, FeedParameters, FeedProgress, FeedResponse, FeedUpdate};

impl Source {
    /// Handles the response to a feed request that `root` sent, and logs a failure.
    pub(super) fn feed_answered(&mut self, host: &dyn Host, root: u32, received: CallAnswer) -> FeedProgress {
        let response = FeedResponse {
            status: header(&received, ":status"),
            time_ms: header(&received, TIME_HEADER),
            head: header(&received, HEAD_HEADER),
            retry_after_secs: header(&received, RETRY_AFTER_HEADER),
            body: received.body,
        };
        let now = clocks(host);
        if self.discard_if_late(now) {
            // The request is from before this worker was held up, and the response may have waited here since.
            self.request_feed(host, root, now);
            return FeedProgress::NoChange;
        }
        // Another worker may lead by now and continue from what this one published: a change applied now would be
        // undone.
        self.renew(host, now);
        if self.replication.depends_on_another() {
            // This worker was deposed as leader meanwhile.
            self.abandon(CallKind::Feed);
            return FeedProgress::NoChange;
        }
        let (before, wanted) = (self.keys.live_table.position(), self.subscription.wants_snapshot());
        let FeedOutcome { progress, update } =
            self.subscription.answered(&mut self.keys, now, random_byte(host), response);
        self.acknowledgements.feed_answered(!matches!(progress, FeedProgress::Failed(_)));
        let feed = &mut self.outages.feed;
        log(
            host,
            if let FeedProgress::Failed(failure) = &progress { feed.failed(failure, now) } else { feed.succeeded(now) },
        );
        if let (FeedUpdate::Snapshot(begins), Some(before)) = (&update, before)
            && (begins.epoch != before.epoch || (!wanted && begins.revision <= before.revision))
        {
            self.history_changes = self.history_changes.saturating_add(1);
            host.log(LogLevel::Error, &history_change_message(*begins, before));
        }
        self.publish(host, &update);
        if let FeedProgress::NoChange | FeedProgress::Updated(_) = progress {
            // The control plane has confirmed the newest position, unless something is still missing.
            let is_complete = !self.keys.live_table.is_loading() && !self.subscription.wants_snapshot();
            self.replication.on_feed_answer(is_complete);
        }
        if progress == FeedProgress::Failed(Failure::Retired) {
            self.retire(host);
        }
        if let FeedProgress::Updated(_) = progress {
            self.registration.renew_soon();
            self.renew(host, now);
        }
        self.request_feed(host, root, now);
        self.acknowledge(host, root, now, AcknowledgeWhen::Uniform);
        progress
    }

    /// If this worker leads, publishes the update of a response for its peers.
    fn publish(&mut self, host: &dyn Host, update: &FeedUpdate) {
        let newest = self.keys.live_table.newest().map(|newest| newest.revision);
        if let (FeedUpdate::Delta(_), Some(newest)) = (update, newest) {
            host.log(LogLevel::Debug, &format!("revision {newest} is received"));
        }
        let published = self.replication.publish(host, &self.store, &self.keys, update);
        match (&published, newest) {
            (Ok(Wake::Everybody), Some(newest)) => {
                host.log(LogLevel::Debug, &format!("revision {newest} is published"));
            }
            (Ok(_), _) => {}
            // No request was decided by this update, and none is before this worker is up to date again.
            (Err(_), _) => self.keys.discard_confirmation(),
        }
        self.wake_peers(host, published);
    }

    /// Sends the next feed request, if one is due and this worker subscribes. To Envoy it is a call of `root`, whose
    /// callback is running.
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
        let parameters = FeedParameters { instance, largest_bound: largest, smallest_bound: smallest, applied };
        let Some(fetch) = self.subscription.next_fetch(&self.keys, parameters, now) else { return };
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

fn history_change_message(begins: Position, before: Position) -> String {
    format!(
        "the control plane's history has changed: epoch {} at revision {}, after epoch {} at revision {}; the new \
         history is enforced, so if its database was restored, keys that were revoked since may be valid again: revoke \
         them again",
        begins.epoch, begins.revision, before.epoch, before.revision
    )
}

/// A header of a response, parsed.
pub(super) fn header<T: std::str::FromStr>(received: &CallAnswer, name: &str) -> Option<T> {
    let found = received.headers.iter().find(|(own, _)| own == name);
    found.and_then(|(_, value)| str::from_utf8(value).ok()).and_then(|text| text.parse().ok())
}
