//! A source of keys in one worker: its table, and the events that keep it up to date.
//!
//! With `feed: "process"` one worker of the Envoy subscribes to the control plane and the others follow it; with
//! `"worker"` each subscribes for itself. Configurations that name the same source share one [`Source`].

mod calls;
mod configurations;
mod feed;
mod freshness;
mod outage;
mod registration;
mod replication;
mod reporting;
mod role;
mod timer;

use crate::source_name::SourceName;
use std::time::Duration;

use policy::config::FeedMode;

pub use self::configurations::Root;
pub use self::timer::TICK;

use self::calls::{CallKind, PendingCalls};
use self::configurations::Configurations;
use self::outage::Outages;
use self::registration::{Registration, Sharing};
use self::replication::Replication;
use self::reporting::AcknowledgeWhen;
use self::timer::FastTimer;
use crate::acknowledgement::AcknowledgementSender;
use crate::host::{Call, CallAnswer, Host, LogLevel, NotSent};
use crate::keys::{Clocks, Keys};
use crate::metrics::Report;
use crate::process::shared_store::SharedStore;
use crate::subscription::{Failure, FeedProgress, Subscription};
use crate::usage::{Usage, UsageReporter};

/// Logged once if `feed: "process"` is impossible.
const NOTHING_SHARED_WARNING: &str = "the VM id is empty, so any plugin could write to the workers' shared data: \
                                      each worker subscribes to the control plane by itself, and `ready_path` reports \
                                      only the worker that receives the probe; set `vm_id` to change that";

/// A source of keys in one worker: it routes events to the parts that hold the state.
pub struct Source {
    name: SourceName,
    store: SharedStore,
    configurations: Configurations,
    /// This worker's table and its freshness, which all configurations of the source share.
    pub keys: Keys,
    subscription: Subscription,
    registration: Registration,
    replication: Replication,
    acknowledgements: AcknowledgementSender,
    /// The usage that this worker's requests counted.
    pub usage: Usage,
    usage_reports: UsageReporter,
    calls: PendingCalls,
    timer: FastTimer,
    outages: Outages,
    /// How often the control plane's history has changed since [`Self::take_history_changes`].
    history_changes: u64,
}

impl Source {
    /// A source without keys that no configuration uses yet. Makes no host call.
    pub fn new(name: SourceName) -> Self {
        Self {
            store: SharedStore::of(&name),
            subscription: Subscription::new(&name.edge),
            name,
            configurations: Configurations::default(),
            keys: Keys::default(),
            registration: Registration::default(),
            replication: Replication::default(),
            acknowledgements: AcknowledgementSender::default(),
            usage: Usage::default(),
            usage_reports: UsageReporter::default(),
            calls: PendingCalls::default(),
            timer: FastTimer::default(),
            outages: Outages::default(),
            history_changes: 0,
        }
    }

    /// A configuration uses this source from now on. Makes no host call.
    pub fn join(&mut self, root: Root) {
        self.configurations.add(root);
    }

    /// A configuration has ended. Envoy drops its calls and its queue; the next tick of another configuration replaces
    /// both.
    pub fn leave(&mut self, host: &dyn Host, root: u32) {
        self.configurations.remove(root);
        self.timer.forget_root(root);
        for kind in self.calls.forget_root(root) {
            self.abandon(kind);
        }
        self.registration.forget_root(root);
        if self.configurations.is_empty() {
            self.registration.leave(host, &self.store);
        }
    }

    /// This worker has received a request, so a worker without requests is a better leader.
    pub fn record_request(&mut self) {
        self.registration.record_request();
    }

    /// The timer of `root`: all work that no other event starts.
    pub fn tick(&mut self, host: &dyn Host, root: u32) {
        // Only the newest configuration's timer: the others would repeat the same work.
        let is_newest = self.configurations.newest().is_some_and(|newest| newest.id == root);
        if !is_newest && !self.timer.is_of(root) {
            return;
        }
        let now = clocks(host);
        self.registration.begin_event();
        self.discard_if_late(now);
        if !self.ensure_set_up(host, now) {
            return;
        }
        self.renew(host, now);
        self.advance(host, root, now);
        self.report_usage(host, root, now);
        if self.replication.rebases_alone()
            && let Some(table) = self.keys.live_table.table_mut()
        {
            table.rebase_a_page();
        }
        self.request_feed(host, root, now);
        self.acknowledge(host, root, now, AcknowledgeWhen::Now);
    }

    /// A worker has put a message into this worker's queue.
    pub fn woken(&mut self, host: &dyn Host, queue: u32) {
        // Wakes for the queue of an ended context arrive here, too.
        if let Some(root) = self.registration.root_of_queue(queue) {
            let now = clocks(host);
            self.registration.begin_event();
            self.advance(host, root, now);
            self.request_feed(host, root, now);
            self.acknowledge(host, root, now, AcknowledgeWhen::Uniform);
        }
    }

    /// Handles the answer to the call with this number, which `root` sent, and logs a failure.
    pub fn answered(&mut self, host: &dyn Host, root: u32, number: u32, received: CallAnswer) -> FeedProgress {
        self.registration.begin_event();
        match self.calls.take(root, number) {
            Some(CallKind::Feed) => return self.feed_answered(host, root, received),
            Some(CallKind::Acknowledgement) => self.acknowledged(host, root, &received),
            Some(CallKind::Usage) => self.usage_answered(host, &received),
            None => {}
        }
        FeedProgress::NoChange
    }

    /// The instance id of this Envoy at the control plane; of this worker alone if nothing is shared.
    pub fn instance(&self) -> Option<&str> {
        self.registration.instance()
    }

    /// Whether this worker subscribes to the control plane for the others.
    pub fn is_leader(&self) -> bool {
        self.replication.is_leader()
    }

    /// How often the control plane's history has changed since the last call.
    pub fn take_history_changes(&mut self) -> u64 {
        std::mem::take(&mut self.history_changes)
    }

    /// The values for the gauges of this Envoy; `None` if another worker sets them.
    pub fn report(&self, host: &dyn Host) -> Option<Report> {
        match self.registration.sharing() {
            Sharing::Unknown => None,
            Sharing::Nothing => Some(self.keys.report(clocks(host), self.configurations.bounds().smallest)),
            Sharing::Membership | Sharing::Everything => {
                let (membership, _) = registration::read(host, &self.store);
                let is_first = self.registration.id().is_some_and(|id| membership.is_first(id));
                is_first.then(|| membership.report())
            }
        }
    }

    /// Determines what is shared, and draws this worker's ids if needed. False while this worker can't request
    /// anything.
    fn ensure_set_up(&mut self, host: &dyn Host, now: Clocks) -> bool {
        if !self.registration.draw_id(host, now) {
            log(host, self.outages.feed.failed(&Failure::NoName, now));
            return false;
        }
        let Some(feed) = self.configurations.newest().map(|root| root.feed) else { return false };
        if let Some(sharing) = self.registration.determine_sharing(host, feed) {
            if sharing == Sharing::Nothing && feed == FeedMode::Process {
                host.log(LogLevel::Warn, NOTHING_SHARED_WARNING);
            }
            self.step_down();
            if sharing != Sharing::Everything {
                self.replication.become_independent();
                self.subscription.become_subscriber(&mut self.keys);
            }
        }
        true
    }

    /// Sends a call to the control plane with the newest configuration's token.
    fn send(&self, host: &dyn Host, path: &str, body: Option<&str>, timeout: Duration) -> Result<u32, NotSent> {
        let newest = self.configurations.newest().ok_or(NotSent)?;
        let SourceName { cluster, authority, .. } = &self.name;
        host.dispatch(&Call { cluster, authority, path, token: newest.token.as_deref(), body, timeout })
    }

    /// The answer to the call of this kind will never arrive, or is no longer of use.
    fn abandon(&mut self, kind: CallKind) {
        self.calls.forget(kind);
        match kind {
            CallKind::Feed => {
                self.subscription.abandon();
                self.acknowledgements.feed_answered(false);
            }
            CallKind::Acknowledgement => self.acknowledgements.abandon(),
            CallKind::Usage => self.usage_reports.abandon(),
        }
    }
}

/// 16 random bytes in hexadecimal; `None` if Envoy has no randomness.
fn random_id(host: &dyn Host) -> Option<String> {
    host.random().map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random_byte(host: &dyn Host) -> u8 {
    host.random().map_or(0, |[byte, ..]| byte)
}

/// Both clocks now.
pub fn clocks(host: &dyn Host) -> Clocks {
    Clocks { wall_ms: host.wall_clock_ms(), monotonic_ms: host.monotonic_ms() }
}

/// Logs a warning, if there is one.
fn log(host: &dyn Host, line: Option<String>) {
    if let Some(line) = line {
        host.log(LogLevel::Warn, &line);
    }
}
