//! A source of keys in one worker: what it knows, and its part in keeping that up to date.
//!
//! With `feed: "process"` one worker of the Envoy asks the control plane and the others follow it; with `"worker"` each
//! asks by itself. Configurations that name the same source share one of these.

mod asking;
mod outage;
mod part;
mod telling;
mod trust;

use std::collections::BTreeMap;
use std::time::Duration;

use policy::Config;
use policy::config::Feed;

use crate::acknowledgement::Acknowledging;
use crate::host::{Host, LogLevel};
use crate::keys::{Clocks, Keys};
use crate::metrics::Report;
use crate::process::follower::Follower;
use crate::process::publisher::Publisher;
use crate::process::roster::Roster;
use crate::process::shelf::Shelf;
use crate::subscription::{Failure, Subscription};
use crate::usage::{Reporting, Usage};

use self::outage::Outages;
use self::trust::CatchUp;

/// How often a worker looks whether there is something to do, when nothing else wakes it.
pub const TICK: Duration = Duration::from_millis(100);

/// The same while there is more to do than one event should take: requests come in between.
const HURRY: Duration = Duration::from_millis(1);

/// A new leader that can't take over what the one before published begins by itself after so long.
const TAKE_OVER_MS: u64 = 1_000;

/// Said once where `feed: "process"` can't be.
const LONELY: &str = "the VM id is empty, so that any plugin could write what workers share: each worker asks the control plane \
                      by itself, and `ready_path` speaks for the one that is asked; set `vm_id` to change that";

/// Attempts to sign the roster when others write it at the same time; the next tick tries again.
const ATTEMPTS: u32 = 16;

/// What a table belongs to. Two configurations that differ in any of it never share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    pub cluster: String,
    pub authority: String,
    pub environment: String,
    pub edge: String,
}

impl SourceName {
    /// The source that a configuration asks for.
    pub fn of(config: &Config) -> Self {
        Self {
            cluster: config.control_plane.cluster.clone(),
            authority: config.control_plane.authority.clone(),
            environment: config.environment.to_string(),
            edge: config.edge.clone(),
        }
    }
}

/// What a root context brings: one configuration in one worker.
#[derive(Clone, Debug)]
pub struct Root {
    pub id: u32,
    pub token: Option<String>,
    pub max_staleness_secs: Option<u64>,
    pub feed: Feed,
}

/// A source of keys in one worker.
pub struct Source {
    name: SourceName,
    shelf: Shelf,
    pub keys: Keys,
    subscription: Subscription,
    /// The living root contexts, by their ids: the newest is the last.
    roots: BTreeMap<u32, Root>,
    /// This worker's random id.
    me: Option<String>,
    /// The process's, from the roster, or this worker's own where nothing is shared.
    instance: Option<String>,
    shares: Shares,
    /// Whether the VM's id is empty; `None` before the first look.
    is_lonely: Option<bool>,
    joined_ms: u64,
    /// When this worker signed the roster last, by the monotonic clock; `None`: never.
    signed_ms: Option<u64>,
    /// It was held up, and has not yet come into step with the others since: it decides nothing.
    was_held_up: bool,
    /// Where the others were when it signed the roster again.
    catches_up_to: Option<CatchUp>,
    /// When this worker is to sign the roster next; `None`: at once.
    signs_ms: Option<u64>,
    has_requests: bool,
    /// The root context that wakes are sent to, and its queue.
    queue: Option<(u32, u32)>,
    /// The root context that sent the call in flight, and the call's number.
    caller: Option<(u32, u32)>,
    /// The same of an acknowledgement.
    teller: Option<(u32, u32)>,
    acknowledging: Acknowledging,
    /// Since when the next feed request waits for other workers.
    waits_since_ms: Option<u64>,
    /// What requests of this worker counted.
    pub usage: Usage,
    reporting: Reporting,
    /// As `caller`, of a batch of usage.
    reporter: Option<(u32, u32)>,
    /// The queue of the worker that leads, as of the last look at the roster.
    leader: Option<u32>,
    /// When this worker began, in Unix seconds.
    started_at: i64,
    part: Part,
    follower: Follower,
    /// What was logged of each conversation since it last worked.
    outages: Outages,
    /// The root context whose timer runs at once, because there is more to do.
    hurries: Option<u32>,
    /// Other workers that can be woken, as of the last look at the roster.
    others: Vec<u32>,
    /// Of all workers, as of the last look at the roster.
    bounds: (Option<u64>, Option<u64>),
    /// Whether another worker could not take over what this one published.
    is_asked_again: bool,
    /// How often the control plane turned out to have another history, since [`Self::take_history_changes`].
    history_changes: u64,
}

/// What of Envoy's shared data this source uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shares {
    /// Not looked yet.
    Unknown,
    /// Nothing: the VM's id is empty, so any plugin might write there.
    Nothing,
    /// The roster alone: each worker asks by itself.
    Roster,
    /// All: one worker asks.
    Everything,
}

/// What this worker does for its source.
enum Part {
    Follows,
    /// Has the lease, and is taking over what the leader before published.
    TakesOver {
        term: u64,
        since_ms: u64,
    },
    Leads(Box<Publisher>),
    /// Asks for itself alone.
    Alone,
}

impl Source {
    pub fn new(name: SourceName) -> Self {
        Self {
            shelf: Shelf::of(&name),
            subscription: Subscription::new(&name.edge),
            name,
            keys: Keys::default(),
            roots: BTreeMap::new(),
            me: None,
            instance: None,
            shares: Shares::Unknown,
            is_lonely: None,
            joined_ms: 0,
            signed_ms: None,
            was_held_up: false,
            catches_up_to: None,
            signs_ms: None,
            has_requests: false,
            queue: None,
            caller: None,
            teller: None,
            acknowledging: Acknowledging::default(),
            waits_since_ms: None,
            usage: Usage::default(),
            reporting: Reporting::default(),
            reporter: None,
            leader: None,
            started_at: 0,
            part: Part::Follows,
            follower: Follower::default(),
            outages: Outages::default(),
            hurries: None,
            others: Vec::new(),
            bounds: (None, None),
            is_asked_again: false,
            history_changes: 0,
        }
    }

    /// A configuration uses this source from now on. Calls nobody.
    pub fn join(&mut self, root: Root) {
        self.roots.insert(root.id, root);
    }

    /// A configuration went. Envoy drops its calls and its queue; the next tick of another takes both up.
    pub fn leave(&mut self, host: &dyn Host, root: u32) {
        self.roots.remove(&root);
        self.hurries.take_if(|own| *own == root);
        if self.caller.take_if(|(own, _)| *own == root).is_some() {
            self.subscription.abandon();
            self.acknowledging.arrived(false);
        }
        if self.teller.take_if(|(own, _)| *own == root).is_some() {
            self.acknowledging.abandon();
        }
        if self.reporter.take_if(|(own, _)| *own == root).is_some() {
            self.reporting.abandon();
        }
        if self.queue.take_if(|(own, _)| *own == root).is_some() {
            self.signs_ms = None;
        }
        if self.roots.is_empty()
            && let Some(me) = &self.me
            && matches!(self.shares, Shares::Roster | Shares::Everything)
        {
            let name = self.shelf.roster();
            let _ = change_roster(host, &name, |roster| roster.leave(me));
        }
    }

    /// This worker was given a request: another one should rather lead.
    pub fn takes_requests(&mut self) {
        self.has_requests = true;
    }

    /// The timer of `root`: everything that no event brings.
    pub fn tick(&mut self, host: &dyn Host, root: u32) {
        // The newest configuration's timer drives; the others' would do the same again.
        if self.roots.keys().next_back() != Some(&root) && self.hurries != Some(root) {
            return;
        }
        let now = clocks(host);
        self.doubts(now);
        if !self.is_set_up(host, now) {
            return;
        }
        self.sign(host, now);
        self.advance(host, root, now);
        self.report_usage(host, root, now);
        if matches!(self.part, Part::Follows | Part::Alone)
            && let Some(table) = self.keys.holding.table_mut()
        {
            table.rebase_a_page();
        }
        self.ask(host, root, now);
        self.acknowledge(host, root, now, When::Anyway);
    }

    /// Another worker, or this one, put something into this worker's queue.
    pub fn woken(&mut self, host: &dyn Host, queue: u32) {
        // Wakes for the queue of a context that is gone come here too.
        if let Some((root, own)) = self.queue
            && own == queue
        {
            let now = clocks(host);
            self.advance(host, root, now);
            self.ask(host, root, now);
            self.acknowledge(host, root, now, When::Even);
        }
    }

    /// The id under which the control plane knows this Envoy, or this worker where nothing is shared.
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// Whether this worker asks the control plane for the others.
    pub fn leads(&self) -> bool {
        matches!(self.part, Part::Leads(_))
    }

    /// How often, since this was asked last, the control plane turned out to have another history than this worker's.
    pub fn take_history_changes(&mut self) -> u64 {
        std::mem::take(&mut self.history_changes)
    }

    /// What the gauges of this Envoy are to show; `None` when another worker shows them.
    pub fn report(&self, host: &dyn Host) -> Option<Report> {
        let now = clocks(host);
        let own = || self.keys.report(now, self.own_bounds().1);
        match self.shares {
            Shares::Unknown => None,
            Shares::Nothing => Some(own()),
            Shares::Roster | Shares::Everything => {
                let (roster, _) = read_roster(host, &self.shelf.roster());
                let speaks = roster.workers.iter().map(|worker| &worker.id).min() == self.me.as_ref();
                speaks.then(|| roster.report())
            }
        }
    }

    /// Finds out what there is to share, and gives this worker its names. False while it can't ask anything.
    fn is_set_up(&mut self, host: &dyn Host, now: Clocks) -> bool {
        if self.me.is_none() {
            self.me = hex(host.random());
            self.joined_ms = now.monotonic_ms;
            self.started_at = now.wall_ms.div_euclid(1_000);
        }
        let Some(me) = self.me.clone() else {
            log(host, self.outages.feed.failed(&Failure::NoName, now));
            return false;
        };
        let Some(newest) = self.roots.values().next_back() else { return false };
        let is_lonely = *self.is_lonely.get_or_insert_with(|| host.vm_id_is_empty());
        let shares = match (is_lonely, newest.feed) {
            (true, Feed::Process | Feed::Worker) => Shares::Nothing,
            (false, Feed::Worker) => Shares::Roster,
            (false, Feed::Process) => Shares::Everything,
        };
        if shares != self.shares {
            if is_lonely && newest.feed == Feed::Process {
                host.log(LogLevel::Warn, LONELY);
            }
            self.shares = shares;
            self.step_down();
            if shares != Shares::Everything {
                self.part = Part::Alone;
                self.subscription.take_up(&mut self.keys);
            }
        }
        if self.shares == Shares::Nothing {
            self.instance = Some(me);
        }
        true
    }

    /// The largest staleness bound of this worker's configurations, `None` when one has none; and the smallest.
    fn own_bounds(&self) -> (Option<u64>, Option<u64>) {
        let bounds = || self.roots.values().map(|root| root.max_staleness_secs);
        let largest = bounds().reduce(|one, other| one.zip(other).map(|(one, other)| one.max(other))).flatten();
        (largest, bounds().flatten().min())
    }
}

/// Whether an acknowledgement waits for the workers that lag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Even,
    Anyway,
}

fn hex(bytes: Option<[u8; 16]>) -> Option<String> {
    Some(bytes?.iter().map(|byte| format!("{byte:02x}")).collect())
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

fn random(host: &dyn Host) -> u8 {
    host.random().map_or(0, |[byte, ..]| byte)
}

/// The roster as it is; an empty one when there is none or it can't be read.
fn read_roster(host: &dyn Host, name: &str) -> (Roster, Option<u32>) {
    match host.shared(name) {
        Some((bytes, cas)) => (serde_json::from_slice(&bytes).unwrap_or_default(), Some(cas)),
        None => (Roster::default(), None),
    }
}

/// Changes the roster, unless others wrote it each time that this worker tried.
fn change_roster<T>(host: &dyn Host, name: &str, mut change: impl FnMut(&mut Roster) -> T) -> Option<(Roster, T)> {
    for _ in 0..ATTEMPTS {
        let (mut roster, cas) = read_roster(host, name);
        let result = change(&mut roster);
        let bytes = serde_json::to_vec(&roster).ok()?;
        if host.set_shared(name, &bytes, cas) {
            return Some((roster, result));
        }
    }
    None
}
