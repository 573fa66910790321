//! Several workers of one Envoy and a control plane, turn by turn.

use policy::config::FeedMode;
use policy::decide::Knowledge;
use policy::wire::Op;
use policy::{Digest, Position};

use super::super::head::Head;
use super::super::shared_store::SharedStore;
use crate::fake_control_plane::{FakeControlPlane, answer_of, record, secret};
use crate::fake_envoy::FakeEnvoy;
use crate::host::CallAnswer;
use crate::keys::Clocks;
use crate::source::{Root, Source, TICK, clocks};
use crate::source_name::SourceName;

/// One turn of the test is one tick of every worker.
pub(super) const TICK_MS: u64 = TICK.as_millis() as u64;

pub(super) struct Worker {
    pub(super) host: FakeEnvoy,
    pub(super) source: Source,
    pub(super) root: u32,
    /// Whether its thread runs: it ticks, wakes and receives answers.
    pub(super) runs: bool,
}

impl Worker {
    pub(super) fn position(&self) -> Option<Position> {
        self.source.keys.live_table.position()
    }

    /// Whether it would find this key, without catching up; `None`: it would decide nothing.
    pub(super) fn has_key(&self, secret: &str) -> Option<bool> {
        self.find(secret, !self.source.is_late(clocks(&self.host)))
    }

    fn find(&self, secret: &str, is_current: bool) -> Option<bool> {
        match self.source.keys.knowledge(clocks(&self.host), Some(60)) {
            Knowledge::Serving(live_table) if is_current => {
                Some(live_table.find(&Digest::of(secret.as_bytes())).is_some())
            }
            Knowledge::Serving(_) | Knowledge::NotReady | Knowledge::Stale => None,
        }
    }

    /// Whether a request finds this key: a worker that may have missed a change catches up first.
    pub(super) fn decide(&mut self, secret: &str) -> Option<bool> {
        let is_current = !self.source.is_late(clocks(&self.host)) || self.source.catch_up(&self.host);
        self.find(secret, is_current)
    }
}

pub(super) struct Process {
    pub(super) workers: Vec<Worker>,
    pub(super) control_plane: FakeControlPlane,
    /// Whether answers arrive.
    pub(super) is_connected: bool,
    pub(super) delivers_wakes: bool,
}

pub(super) fn name(cluster: &str) -> SourceName {
    let text = |text: &str| text.to_owned();
    SourceName { cluster: text(cluster), authority: text("latchkey"), environment: text("live"), edge: text("edge") }
}

pub(super) fn root(id: u32, feed: FeedMode) -> Root {
    Root { id, token: None, max_staleness_secs: Some(60), feed }
}

impl Process {
    pub(super) fn new(workers: u8) -> Self {
        Self::with(workers, FeedMode::Process, "latchkey")
    }

    pub(super) fn with(workers: u8, feed: FeedMode, vm_id: &'static str) -> Self {
        let mut control_plane = FakeControlPlane::new(1);
        control_plane.change(&[Op::Upsert(record(&secret(1)))]);
        control_plane.snapshot_now();
        let mut process = Self { workers: Vec::new(), control_plane, is_connected: true, delivers_wakes: true };
        (0..workers).for_each(|_| process.start(feed, vm_id));
        process
    }

    /// Starts a new VM: at the start of Envoy, or in place of one that trapped.
    pub(super) fn start(&mut self, feed: FeedMode, vm_id: &'static str) {
        let mut host = FakeEnvoy { vm_id, ..FakeEnvoy::new("GET", "/", &[]) };
        host.worker = u8::try_from(self.workers.len()).unwrap() + 1;
        if let Some(first) = self.workers.first() {
            host.process = first.host.process.clone();
        }
        let mut source = Source::new(name("latchkey"));
        source.join(root(1, feed));
        self.workers.push(Worker { host, source, root: 1, runs: true });
    }

    pub(super) fn now(&self) -> Clocks {
        clocks(&self.workers[0].host)
    }

    pub(super) fn advance(&mut self, ms: u64) {
        let Clocks { wall_ms, monotonic_ms } = self.now();
        let now = Clocks { wall_ms: wall_ms + i64::try_from(ms).unwrap(), monotonic_ms: monotonic_ms + ms };
        self.workers[0].host.process.clocks.set(now);
    }

    /// Suspends a worker that doesn't lead, and returns its index.
    pub(super) fn suspend_follower(&mut self) -> usize {
        let held = (self.leader() + 1) % self.workers.len();
        self.workers[held].runs = false;
        held
    }

    /// Ticks every worker that runs, and delivers all wakes and answers that follow.
    pub(super) fn turn(&mut self) {
        self.advance(TICK_MS);
        for at in 0..self.workers.len() {
            self.tick(at);
        }
        self.wake();
        for at in 0..self.workers.len() {
            self.answer(at);
            self.wake();
        }
    }

    /// The timer of a worker, as often as it goes off in this turn.
    pub(super) fn tick(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        for _ in 0..10_000 {
            if worker.runs {
                worker.source.tick(&worker.host, worker.root);
            }
            if !worker.runs || worker.host.tick.get() == TICK {
                return;
            }
        }
        panic!("worker {at} is never idle");
    }

    /// Answers one call of a worker, if it has one that the control plane would answer by now.
    pub(super) fn answer(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if !self.is_connected || !worker.runs {
            return;
        }
        let Some((number, path)) = worker.host.calls.borrow_mut().pop_front() else { return };
        worker.source.answered(&worker.host, worker.root, number, answer_of(&self.control_plane, &path));
    }

    /// Ends all feed requests in flight without a response, as Envoy does on a time-out.
    pub(super) fn time_out(&mut self) {
        self.refuse(&[]);
    }

    /// Answers all feed requests in flight with these headers. Returns how many there were.
    pub(super) fn refuse(&mut self, headers: &[(&str, &str)]) -> usize {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let headers: Vec<_> = headers.collect();
        let mut refused = 0;
        for worker in &mut self.workers {
            let waiting = worker.host.calls.take();
            for (number, _) in waiting {
                let answer = CallAnswer { headers: headers.clone(), body: Vec::new() };
                worker.source.answered(&worker.host, worker.root, number, answer);
                refused += 1;
            }
        }
        refused
    }

    /// Answers the acknowledgements in flight with this status. Returns their contents: of each worker its id, its
    /// revision, and whether it has ended.
    pub(super) fn acknowledge(&mut self, status: u16) -> Vec<Vec<(String, u64, bool)>> {
        self.answer_acknowledgements(&[(":status".to_owned(), status.to_string().into_bytes())])
    }

    /// Answers the acknowledgements in flight with these headers.
    pub(super) fn answer_acknowledgements(&mut self, headers: &[(String, Vec<u8>)]) -> Vec<Vec<(String, u64, bool)>> {
        let mut contents = Vec::new();
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            let waiting: Vec<_> = worker.host.acknowledged.borrow_mut().drain(..).collect();
            for (number, body) in waiting {
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                let of = |own: &serde_json::Value| {
                    (
                        own["id"].as_str().unwrap().to_owned(),
                        own["applied"].as_u64().unwrap(),
                        own["ended"].as_bool().unwrap_or(false),
                    )
                };
                contents.push(body["workers"].as_array().unwrap().iter().map(of).collect());
                let answer = CallAnswer { headers: headers.to_vec(), body: Vec::new() };
                worker.source.answered(&worker.host, worker.root, number, answer);
            }
        }
        contents
    }

    /// Delivers wakes to the workers that run, until there are none.
    pub(super) fn wake(&mut self) {
        for _ in 0..10_000 {
            let Some(queue) = self.workers[0].host.process.wakes.borrow_mut().pop_front() else {
                return (0..self.workers.len())
                    .filter(|at| self.workers[*at].host.tick.get() != TICK)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|at| self.tick(at));
            };
            if !self.delivers_wakes {
                continue;
            }
            for worker in self.workers.iter_mut().filter(|worker| worker.runs) {
                worker.source.woken(&worker.host, queue);
            }
        }
        panic!("the workers wake each other forever");
    }

    /// Turns until every worker that runs has the control plane's position.
    pub(super) fn settle(&mut self) {
        self.settle_within(3_000);
    }

    pub(super) fn settle_within(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.turn();
            if self.are_all_up_to_date() {
                return;
            }
        }
        let seen: Vec<_> =
            self.workers.iter().map(|worker| (worker.runs, worker.position().map(|at| at.revision))).collect();
        panic!("within {ms} ms not all reached {:?}: {seen:?}", self.control_plane.position.revision);
    }

    pub(super) fn are_all_up_to_date(&self) -> bool {
        let newest = Some(self.control_plane.position);
        self.workers
            .iter()
            .filter(|worker| worker.runs)
            .all(|worker| worker.position() == newest && !worker.source.keys.live_table.is_loading())
    }

    pub(super) fn revoke(&mut self, seed: u8) {
        self.control_plane.change(&[Op::Remove(Digest::of(secret(seed).as_bytes()))]);
    }

    pub(super) fn add(&mut self, seed: u8) {
        self.control_plane.change(&[Op::Upsert(record(&secret(seed)))]);
    }

    /// [`Worker::has_key`] of each worker that runs.
    pub(super) fn have_key(&self, seed: u8) -> Vec<Option<bool>> {
        self.workers.iter().filter(|worker| worker.runs).map(|worker| worker.has_key(&secret(seed))).collect()
    }

    /// The leader: the one worker with feed requests in flight.
    pub(super) fn leader(&self) -> usize {
        let subscribes = |worker: &Worker| worker.runs && !worker.host.calls.borrow().is_empty();
        let subscribers: Vec<_> = (0..self.workers.len()).filter(|at| subscribes(&self.workers[*at])).collect();
        assert_eq!(subscribers.len(), 1, "one worker subscribes, not {subscribers:?}");
        subscribers[0]
    }

    /// The paths of a worker's feed requests in flight.
    pub(super) fn feed_requests(&self, at: usize) -> Vec<String> {
        self.workers[at].host.calls.borrow().iter().map(|(_, path)| path.clone()).collect()
    }

    pub(super) fn head(&self) -> Head {
        Head::read(&self.workers[0].host, &SharedStore::of(&name("latchkey"))).expect("there is a head")
    }

    pub(super) fn instances(&self) -> Vec<String> {
        let instance = |path: &str| path.split_once("instance=").unwrap().1.split('&').next().unwrap().to_owned();
        let paths = self.workers.iter().flat_map(|worker| worker.host.calls.borrow().clone());
        paths.map(|(_, path)| instance(&path)).collect()
    }
}
