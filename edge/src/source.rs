//! A source of keys in one worker: what it knows, and how events keep that up to date.
//!
//! With `feed: "process"` one worker of the Envoy subscribes to the control plane and the others follow it; with `"worker"`
//! each subscribes for itself. Configurations that name the same source share one of these.

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

use std::time::Duration;

use policy::Config;
use policy::config::Feed;

pub use self::configurations::Root;
pub use self::timer::TICK;

use self::calls::{CallKind, PendingCalls};
use self::configurations::Configurations;
use self::outage::Outages;
use self::registration::{Registration, Sharing};
use self::replication::Replication;
use self::reporting::When;
use self::timer::FastTimer;
use crate::acknowledgement::AcknowledgementSender;
use crate::host::{Call, CallAnswer, Host, LogLevel, NotSent};
use crate::keys::{Clocks, Keys};
use crate::metrics::Report;
use crate::process::shared_store::SharedStore;
use crate::subscription::{Failure, Progress, Subscription};
use crate::usage::{Usage, UsageReporter};

/// Logged once where `feed: "process"` is impossible.
const LONELY: &str = "the VM id is empty, so that any plugin could write what workers share: each worker asks the control plane \
                      by itself, and `ready_path` speaks for the one that is asked; set `vm_id` to change that";

/// What a table belongs to. Two configurations that differ in any of it never share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    pub cluster: String,
    pub authority: String,
    pub environment: String,
    pub edge: String,
}

impl SourceName {
    /// The source of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            cluster: config.control_plane.cluster.clone(),
            authority: config.control_plane.authority.clone(),
            environment: config.environment.to_string(),
            edge: config.edge.clone(),
        }
    }
}

/// A source of keys in one worker: a router of events to the parts that have the state.
pub struct Source {
    name: SourceName,
    store: SharedStore,
    configurations: Configurations,
    pub keys: Keys,
    subscription: Subscription,
    registration: Registration,
    replication: Replication,
    acknowledgements: AcknowledgementSender,
    /// What requests of this worker counted.
    pub usage: Usage,
    usage_reports: UsageReporter,
    calls: PendingCalls,
    timer: FastTimer,
    outages: Outages,
    /// How often the control plane turned out to have another history, since [`Self::take_history_changes`].
    history_changes: u64,
}

impl Source {
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

    /// A configuration has ended. Envoy drops its calls and its queue; the next tick of another one replaces both.
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

    /// This worker was given a request: another worker is a better leader.
    pub fn takes_requests(&mut self) {
        self.registration.receives_requests();
    }

    /// The timer of `root`: everything that no other event brings.
    pub fn tick(&mut self, host: &dyn Host, root: u32) {
        // The newest configuration's timer drives; the others' would only repeat it.
        let is_newest = self.configurations.newest().is_some_and(|newest| newest.id == root);
        if !is_newest && !self.timer.is_of(root) {
            return;
        }
        let now = clocks(host);
        self.registration.begin_event();
        self.distrusts(now);
        if !self.is_set_up(host, now) {
            return;
        }
        self.renew(host, now);
        self.advance(host, root, now);
        self.report_usage(host, root, now);
        if self.replication.rebases_alone()
            && let Some(table) = self.keys.holding.table_mut()
        {
            table.rebase_a_page();
        }
        self.request_feed(host, root, now);
        self.acknowledge(host, root, now, When::Now);
    }

    /// Another worker, or this one, put something into this worker's queue.
    pub fn woken(&mut self, host: &dyn Host, queue: u32) {
        // Wakes for the queue of a context that has ended arrive here, too.
        if let Some(root) = self.registration.root_of_queue(queue) {
            let now = clocks(host);
            self.registration.begin_event();
            self.advance(host, root, now);
            self.request_feed(host, root, now);
            self.acknowledge(host, root, now, When::Even);
        }
    }

    /// The answer to the call with this number, which `root` sent. A failure is logged here.
    pub fn answered(&mut self, host: &dyn Host, root: u32, number: u32, received: CallAnswer) -> Progress {
        self.registration.begin_event();
        match self.calls.take(root, number) {
            Some(CallKind::Feed) => return self.feed_answered(host, root, received),
            Some(CallKind::Acknowledgement) => self.acknowledged(host, root, &received),
            Some(CallKind::Usage) => self.usage_answered(host, &received),
            None => {}
        }
        Progress::Quiet
    }

    /// The id under which the control plane knows this Envoy, or this worker where nothing is shared.
    pub fn instance(&self) -> Option<&str> {
        self.registration.instance()
    }

    /// Whether this worker subscribes to the control plane for the others.
    pub fn leads(&self) -> bool {
        self.replication.is_leader()
    }

    /// How often, since the last call, the control plane turned out to have another history than this worker's.
    pub fn take_history_changes(&mut self) -> u64 {
        std::mem::take(&mut self.history_changes)
    }

    /// What the gauges of this Envoy are to show; `None` when another worker shows them.
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

    /// Determines what there is to share, and gives this worker its names. False while it can't request anything.
    fn is_set_up(&mut self, host: &dyn Host, now: Clocks) -> bool {
        if !self.registration.draw_id(host, now) {
            log(host, self.outages.feed.failed(&Failure::NoName, now));
            return false;
        }
        let Some(feed) = self.configurations.newest().map(|root| root.feed) else { return false };
        if let Some(sharing) = self.registration.determine_sharing(host, feed) {
            if sharing == Sharing::Nothing && feed == Feed::Process {
                host.log(LogLevel::Warn, LONELY);
            }
            self.step_down();
            if sharing != Sharing::Everything {
                self.replication.become_independent();
                self.subscription.take_up(&mut self.keys);
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

    /// The answer to the call of this kind will never arrive, or is of no use.
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

/// 16 random bytes as text; `None` where Envoy has no randomness.
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
