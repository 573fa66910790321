//! An Envoy: a few VMs of the real filter, their shared data, and their calls.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use edge::edge::Edge;
use edge::host::CallAnswer;
use edge::metrics::Metrics;
use edge::request::{on_request, on_request_headers};
use edge::source::{Root, Source, TICK, clocks};
use edge::source_name::SourceName;
use policy::Position;

use crate::control_plane::EDGE;
use crate::network::{CallState, InFlightCall};
use crate::oracle::Probe;
use crate::time::Time;
use crate::vm::{Shared, Vm};

/// VMs of an Envoy: the main thread's, which gets no requests, and those of two workers.
const VMS: usize = 3;

/// A VM that isn't idle after this many ticks never will be.
const MAX_ROUNDS: usize = 10_000;

/// How the VMs of an Envoy get their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeedSharing {
    /// One of them subscribes for all.
    OneSubscriber,
    /// Each subscribes, all as one instance.
    EachSubscribes,
    /// Each subscribes, as an instance of its own: they have no VM id.
    SeparateInstances,
}

/// How calls between an Envoy and the control plane progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    Prompt,
    /// Only steps move them.
    Paused,
    Broken,
}

pub(crate) struct Envoy {
    sharing: FeedSharing,
    pub edge: Edge,
    pub shared: Rc<Shared>,
    time: Time,
    pub workers: Vec<Worker>,
    pub link: LinkState,
    pub calls: Vec<InFlightCall>,
    pub delivers_wakes: bool,
    /// Which control plane its calls go to; `None`: each in turn.
    pub target: Option<u8>,
    /// All ids under which the control plane may know it.
    pub instances: BTreeSet<String>,
}

pub(crate) struct Worker {
    pub vm: Vm,
    number: u32,
    source: RefCell<Source>,
    metrics: Metrics,
    root: u32,
    /// Its thread runs: it ticks, wakes, gets answers and decides.
    pub runs: bool,
    /// The position of its table at the last check.
    pub last_position: Option<Position>,
}

impl Envoy {
    /// `first` numbers its VMs: each VM of a run has its own number.
    pub(crate) fn start(sharing: FeedSharing, max_staleness_secs: u64, time: &Time, first: &mut u32) -> Self {
        let feed = if sharing == FeedSharing::EachSubscribes { "worker" } else { "process" };
        let config = format!(
            r#"{{"edge": "edge-1", "feed": "{feed}", "max_staleness_secs": {max_staleness_secs},
                "control_plane": {{"cluster": "latchkey", "authority": "latchkey"}},
                "routes": [{{"path": "/v1/reviews", "rule": "reviews"}}]}}"#
        );
        let mut envoy = Self {
            sharing,
            edge: Edge::parse(config.as_bytes()).expect("the configuration is right"),
            shared: Rc::default(),
            time: time.clone(),
            workers: Vec::new(),
            link: LinkState::Prompt,
            calls: Vec::new(),
            delivers_wakes: true,
            target: None,
            instances: BTreeSet::new(),
        };
        envoy.workers = (0..VMS).map(|_| envoy.vm(first)).collect();
        envoy
    }

    pub(crate) fn sharing(&self) -> FeedSharing {
        self.sharing
    }

    fn vm(&self, next: &mut u32) -> Worker {
        let number = *next;
        *next += 1;
        let vm =
            Vm::new(Rc::clone(&self.shared), self.time.clone(), number, self.sharing == FeedSharing::SeparateInstances);
        let mut source = Source::new(SourceName::of(&self.edge.config));
        source.join(self.root(1));
        let metrics = Metrics::define(&vm);
        Worker { vm, number, source: RefCell::new(source), metrics, root: 1, runs: true, last_position: None }
    }

    fn root(&self, id: u32) -> Root {
        let (max_staleness_secs, feed) = (self.edge.config.max_staleness_secs, self.edge.config.feed);
        Root { id, token: Some(EDGE.to_owned()), max_staleness_secs, feed }
    }

    pub(crate) fn worker(&mut self, number: u8) -> &mut Worker {
        &mut self.workers[usize::from(number) % VMS]
    }

    /// A VM traps, and Envoy replaces it.
    pub(crate) fn replace(&mut self, number: u8, next: &mut u32) {
        let fresh = self.vm(next);
        let gone = std::mem::replace(self.worker(number), fresh);
        self.drop_calls(|call| call.vm == gone.number);
    }

    /// A new configuration replaces the old one, in all VMs that run.
    pub(crate) fn reconfigure(&mut self) {
        let id = self.workers.iter().map(|worker| worker.root).max().expect("there are VMs") + 1;
        let root = self.root(id);
        for worker in self.workers.iter_mut().filter(|worker| worker.runs) {
            let mut source = worker.source.borrow_mut();
            source.join(root.clone());
            source.leave(&worker.vm, worker.root);
            worker.root = id;
        }
        // Envoy drops the calls of a configuration that it removes. A VM that hangs keeps its configuration and its
        // calls.
        let running: BTreeSet<u32> =
            self.workers.iter().filter(|worker| worker.runs).map(|worker| worker.number).collect();
        self.drop_calls(|call| running.contains(&call.vm));
    }

    /// The process ends.
    pub(crate) fn end(&mut self) {
        self.record_instances();
        self.drop_calls(|_| true);
    }

    fn drop_calls(&mut self, is_dropped: impl Fn(&InFlightCall) -> bool) {
        for call in &mut self.calls {
            if is_dropped(call) {
                call.lose();
            }
        }
        self.calls.retain(|call| !is_dropped(call));
    }

    fn record_instances(&mut self) {
        let named = self.workers.iter().filter_map(|worker| worker.source.borrow().instance().map(str::to_owned));
        self.instances.extend(named);
    }

    /// Fires the timer of each VM that runs, as often as the VM wants.
    pub(crate) fn tick(&mut self) {
        for worker in &self.workers {
            worker.tick();
        }
        self.collect();
    }

    /// Delivers wakes to VMs that run, until there are none.
    pub(crate) fn wake(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let Some(queue) = self.shared.wakes.borrow_mut().pop_front() else {
                self.workers.iter().filter(|worker| worker.vm.tick.get() != TICK).for_each(Worker::tick);
                return self.collect();
            };
            for worker in self.workers.iter().filter(|worker| worker.runs && self.delivers_wakes) {
                worker.source.borrow_mut().woken(&worker.vm, queue);
            }
        }
        panic!("the VMs never stop waking each other");
    }

    /// Collects new calls.
    fn collect(&mut self) {
        let now_ms = self.time.elapsed_ms();
        for worker in &self.workers {
            for (number, request) in worker.vm.calls.borrow_mut().drain(..) {
                let mut call = InFlightCall::new(worker.number, number, request, now_ms);
                if self.link == LinkState::Broken {
                    call.break_connection();
                }
                self.calls.push(call);
            }
        }
        self.record_instances();
    }

    /// Delivers the answer of a call that has one, if its VM runs. Returns whether it did.
    pub(crate) fn deliver(&mut self, at: usize) -> bool {
        let call = &self.calls[at];
        let Some(worker) = self.workers.iter().find(|worker| worker.number == call.vm && worker.runs) else {
            return false;
        };
        let CallState::Answered(answer) = &call.state else { return false };
        let (number, answer): (u32, CallAnswer) = (call.number, answer.clone());
        worker.source.borrow_mut().answered(&worker.vm, worker.root, number, answer);
        self.calls.remove(at);
        self.collect();
        true
    }
}

impl Worker {
    fn tick(&self) {
        for _ in 0..MAX_ROUNDS {
            if self.runs {
                self.source.borrow_mut().tick(&self.vm, self.root);
            }
            if !self.runs || self.vm.tick.get() == TICK {
                return;
            }
        }
        panic!("a VM is never idle");
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.source.borrow().keys.live_table.position()
    }

    pub(crate) fn is_current(&self, head: Position) -> bool {
        self.position() == Some(head) && !self.source.borrow().keys.live_table.is_loading()
    }

    /// What it would decide now, without catching up with the other workers first.
    pub(crate) fn would_decide(&self, edge: &Edge, probe: &Probe, secret: &str) -> String {
        self.vm.begin_request(probe.method, "/v1/reviews", secret, probe.address);
        let (source, now) = (self.source.borrow(), clocks(&self.vm));
        on_request_headers(&self.vm, edge, Some(&source), !source.is_late(now), now, &self.metrics);
        self.vm.verdict()
    }

    /// A request, as Envoy passes it to the filter.
    pub(crate) fn decide_request(&self, edge: &Edge, probe: &Probe, secret: &str) -> String {
        self.vm.begin_request(probe.method, "/v1/reviews", secret, probe.address);
        on_request(&self.vm, edge, &self.source, &self.metrics);
        self.vm.verdict()
    }
}
