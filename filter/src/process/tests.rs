//! Several workers of one Envoy, a control plane, and what happens when one of them goes, stops or comes.

use policy::config::Feed;
use policy::decide::Knowledge;
use policy::wire::Op;
use policy::{Digest, Position};

use super::head::Head;
use super::shelf::{SLOTS, Shelf};
use crate::fake_control_plane::{FakeControlPlane, answer_of, record, secret};
use crate::fake_envoy::FakeEnvoy;
use crate::host::CallAnswer;
use crate::keys::Clocks;
use crate::source::{Root, Source, SourceName, TICK, clocks};

mod acknowledging;
mod shared_data;

/// One turn of the test is one tick of every worker.
const TICK_MS: u64 = TICK.as_millis() as u64;

struct Worker {
    host: FakeEnvoy,
    source: Source,
    root: u32,
    /// Its thread runs: it ticks, wakes and gets answers.
    runs: bool,
}

impl Worker {
    fn position(&self) -> Option<Position> {
        self.source.keys.holding.position()
    }

    fn knows(&self, secret: &str) -> Option<bool> {
        let now = clocks(&self.host);
        match self.source.keys.knowledge(now, Some(60)) {
            Knowledge::Serving(holding) if !self.source.is_late(now) => {
                Some(holding.find(&Digest::of(secret.as_bytes())).is_some())
            }
            Knowledge::Serving(_) | Knowledge::NotReady | Knowledge::Stale => None,
        }
    }
}

struct Process {
    workers: Vec<Worker>,
    control_plane: FakeControlPlane,
    /// Answers arrive.
    is_connected: bool,
    delivers_wakes: bool,
}

fn name(cluster: &str) -> SourceName {
    let word = |word: &str| word.to_owned();
    SourceName { cluster: word(cluster), authority: word("latchkey"), environment: word("live"), edge: word("edge") }
}

fn root(id: u32, feed: Feed) -> Root {
    Root { id, token: None, max_staleness_secs: Some(60), feed }
}

impl Process {
    fn new(workers: u8) -> Self {
        Self::with(workers, Feed::Process, "latchkey")
    }

    fn with(workers: u8, feed: Feed, vm_id: &'static str) -> Self {
        let mut control_plane = FakeControlPlane::new(1);
        control_plane.change(&[Op::Upsert(record(&secret(1)))]);
        control_plane.snapshot_now();
        let mut process = Self { workers: Vec::new(), control_plane, is_connected: true, delivers_wakes: true };
        (0..workers).for_each(|_| process.start(feed, vm_id));
        process
    }

    /// A new VM: a worker of a start, or one that takes the place of a VM that trapped.
    fn start(&mut self, feed: Feed, vm_id: &'static str) {
        let mut host = FakeEnvoy { vm_id, ..FakeEnvoy::new("GET", "/", &[]) };
        host.worker = u8::try_from(self.workers.len()).unwrap() + 1;
        if let Some(first) = self.workers.first() {
            host.process = first.host.process.clone();
        }
        let mut source = Source::new(name("latchkey"));
        source.join(root(1, feed));
        self.workers.push(Worker { host, source, root: 1, runs: true });
    }

    fn now(&self) -> Clocks {
        clocks(&self.workers[0].host)
    }

    fn advance(&mut self, ms: u64) {
        let Clocks { wall_ms, monotonic_ms } = self.now();
        let now = Clocks { wall_ms: wall_ms + i64::try_from(ms).unwrap(), monotonic_ms: monotonic_ms + ms };
        self.workers[0].host.process.clocks.set(now);
    }

    /// A tick of every worker that runs, and all that follows from it.
    fn turn(&mut self) {
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
    fn tick(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        for _ in 0..10_000 {
            if worker.runs {
                worker.source.tick(&worker.host, worker.root);
            }
            if !worker.runs || worker.host.tick.get() == TICK {
                return;
            }
        }
        panic!("worker {at} never comes to rest");
    }

    /// Answers one call of a worker, if it has one that the control plane would answer by now.
    fn answer(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if !self.is_connected || !worker.runs {
            return;
        }
        let Some((number, path)) = worker.host.calls.borrow_mut().pop_front() else { return };
        worker.source.answered(&worker.host, worker.root, number, answer_of(&self.control_plane, &path));
    }

    /// Answers the acknowledgements that wait with this status; answers what they said: of each worker its id, its revision, and
    /// whether it has ended.
    fn acknowledge(&mut self, status: u16) -> Vec<Vec<(String, u64, bool)>> {
        let mut said = Vec::new();
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
                said.push(body["workers"].as_array().unwrap().iter().map(of).collect());
                let headers = vec![(":status".to_owned(), status.to_string().into_bytes())];
                worker.source.answered(&worker.host, worker.root, number, CallAnswer { headers, body: Vec::new() });
            }
        }
        said
    }

    /// Delivers wakes to workers that run, until there are none.
    fn wake(&mut self) {
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
        panic!("the workers wake each other for ever");
    }

    /// Turns until every worker that runs is where the control plane is.
    fn settle(&mut self) {
        self.settle_within(3_000);
    }

    fn settle_within(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.turn();
            if self.all_are_there() {
                return;
            }
        }
        let seen: Vec<_> =
            self.workers.iter().map(|worker| (worker.runs, worker.position().map(|at| at.revision))).collect();
        panic!("within {ms} ms not all reached {:?}: {seen:?}", self.control_plane.position.revision);
    }

    fn all_are_there(&self) -> bool {
        let there = Some(self.control_plane.position);
        self.workers
            .iter()
            .filter(|worker| worker.runs)
            .all(|worker| worker.position() == there && !worker.source.keys.holding.is_loading())
    }

    fn revoke(&mut self, seed: u8) {
        self.control_plane.change(&[Op::Remove(Digest::of(secret(seed).as_bytes()))]);
    }

    fn add(&mut self, seed: u8) {
        self.control_plane.change(&[Op::Upsert(record(&secret(seed)))]);
    }

    fn know(&self, seed: u8) -> Vec<Option<bool>> {
        self.workers.iter().filter(|worker| worker.runs).map(|worker| worker.knows(&secret(seed))).collect()
    }

    /// Who has calls under way: the one that leads.
    fn leader(&self) -> usize {
        let asks = |worker: &Worker| worker.runs && !worker.host.calls.borrow().is_empty();
        let asking: Vec<_> = (0..self.workers.len()).filter(|at| asks(&self.workers[*at])).collect();
        assert_eq!(asking.len(), 1, "one worker asks, not {asking:?}");
        asking[0]
    }

    /// What a worker asked the control plane, and was not answered yet.
    fn questions(&self, at: usize) -> Vec<String> {
        self.workers[at].host.calls.borrow().iter().map(|(_, path)| path.clone()).collect()
    }

    fn head(&self) -> Head {
        Head::read(&self.workers[0].host, &Shelf::of(&name("latchkey"))).expect("there is a head")
    }

    fn instances(&self) -> Vec<String> {
        let instance = |path: &str| path.split_once("instance=").unwrap().1.split('&').next().unwrap().to_owned();
        let paths = self.workers.iter().flat_map(|worker| worker.host.calls.borrow().clone());
        paths.map(|(_, path)| instance(&path)).collect()
    }
}

#[test]
fn one_worker_asks_and_every_worker_knows() {
    let mut process = Process::new(3);
    process.settle();
    assert_eq!(process.know(1), vec![Some(true); 3]);
    let leader = process.leader();
    let others = process.workers.iter().enumerate().filter(|(at, _)| *at != leader);
    assert_eq!(others.map(|(_, worker)| worker.host.called.get()).sum::<u32>(), 0, "the others never asked");
}

#[test]
fn a_change_reaches_every_worker_without_waiting_for_a_tick() {
    let mut process = Process::new(3);
    process.settle();
    process.revoke(1);
    let leader = process.leader();
    process.answer(leader);
    process.wake();
    assert_eq!(process.know(1), vec![Some(false); 3]);
}

#[test]
fn a_lost_wake_heals_at_the_next_tick() {
    let mut process = Process::new(3);
    process.settle();
    process.delivers_wakes = false;
    process.revoke(1);
    process.turn();
    process.turn();
    assert_eq!(process.know(1), vec![Some(false); 3]);
}

#[test]
fn when_the_leader_is_gone_another_takes_over() {
    let mut process = Process::new(3);
    process.settle();
    let leader = process.leader();
    process.workers[leader].runs = false;
    process.revoke(1);
    process.settle();
    assert_eq!(process.know(1), vec![Some(false); 2]);
    assert_ne!(process.leader(), leader);
    assert_eq!(process.head().generation, 1, "it goes on with what the leader before published");
}

#[test]
fn a_leader_that_stood_still_and_comes_back_publishes_nothing() {
    let mut process = Process::new(3);
    process.settle();
    let leader = process.leader();
    // Its answer lies unread in its socket.
    process.add(2);
    let stale = process.workers[leader].host.calls.borrow_mut().pop_front().unwrap();
    let answer = answer_of(&process.control_plane, &stale.1);
    process.workers[leader].runs = false;
    for seed in 3..9 {
        process.add(seed);
        process.settle();
    }
    process.revoke(1);
    process.settle_within(10_000);
    let before = process.head();

    let old = &mut process.workers[leader];
    old.runs = true;
    assert!(old.source.is_late(clocks(&old.host)), "it decides nothing before it has looked");
    old.source.answered(&old.host, old.root, stale.0, answer);
    assert_eq!(process.head().to, before.to, "the others go on from where they were");
    assert!(process.head().term >= before.term);
    process.settle();
    assert_eq!(process.know(1), vec![Some(false); 3]);
    assert_eq!(process.know(8), vec![Some(true); 3]);
    process.leader();
}

#[test]
fn a_worker_that_was_held_up_looks_before_it_decides() {
    let mut process = Process::new(3);
    process.settle();
    let held = (process.leader() + 1) % 3;
    process.workers[held].runs = false;
    process.revoke(1);
    (0..30).for_each(|_| process.turn());
    let worker = &mut process.workers[held];
    assert_eq!(worker.knows(&secret(1)), None, "too long without a tick");
    assert!(worker.source.catches_up(&worker.host));
    assert_eq!(worker.knows(&secret(1)), Some(false));
}

/// Its table is too old for the deltas that are left, so it takes more than one step to come back.
#[test]
fn a_worker_that_comes_back_decides_nothing_before_it_is_in_step() {
    let mut process = Process::new(3);
    process.settle();
    let held = (process.leader() + 1) % 3;
    process.workers[held].runs = false;
    process.revoke(1);
    for seed in 0..u8::try_from(4 * SLOTS).unwrap() {
        process.add(seed);
        process.turn();
    }
    let worker = &mut process.workers[held];
    let mut ticks = 0;
    while worker.position() != Some(process.control_plane.position) {
        assert_eq!(worker.knows(&secret(1)), None, "it was held up, and is not in step after {ticks} ticks");
        worker.source.tick(&worker.host, worker.root);
        ticks += 1;
    }
    assert!(ticks > 1, "one step was enough");
    assert_eq!(worker.knows(&secret(1)), Some(true), "key 1 was added again");
}

#[test]
fn a_new_worker_needs_no_control_plane() {
    let mut process = Process::new(2);
    process.settle();
    process.add(2);
    process.settle();
    process.is_connected = false;
    process.start(Feed::Process, "latchkey");
    process.settle();
    assert_eq!((process.know(1), process.know(2)), (vec![Some(true); 3], vec![Some(true); 3]));
}

#[test]
fn all_workers_may_be_replaced_and_the_table_stays() {
    let mut process = Process::new(2);
    process.settle();
    process.is_connected = false;
    for _ in 0..2 {
        process.start(Feed::Process, "latchkey");
        process.settle();
    }
    process.workers[0].runs = false;
    process.workers[1].runs = false;
    process.is_connected = true;
    process.revoke(1);
    process.settle_within(6_000);
    assert_eq!(process.know(1), vec![Some(false); 2]);
}

#[test]
fn a_new_configuration_keeps_table_and_lead() {
    let mut process = Process::new(2);
    process.settle();
    for round in 2..8 {
        for worker in &mut process.workers {
            worker.source.join(root(round, Feed::Process));
            worker.source.leave(&worker.host, worker.root);
            worker.root = round;
            assert_eq!(worker.knows(&secret(1)), Some(true), "configuration {round}");
        }
        process.add(u8::try_from(round).unwrap());
        process.settle();
        process.leader();
    }
    assert_eq!(process.head().generation, 1, "nothing was loaded anew");
}

/// Envoy hands an answer to the context in whose callback the call was made, and that may be an older configuration's.
#[test]
fn an_answer_to_an_older_configuration_is_taken_while_that_one_lives() {
    let mut process = Process::new(1);
    process.settle();
    let worker = &mut process.workers[0];
    worker.source.join(root(2, Feed::Process));
    for seed in 2..6 {
        process.add(seed);
        process.answer(0);
        assert_eq!(process.know(seed), vec![Some(true)], "root 1 made the call, and makes the next one");
    }
}

#[test]
fn more_deltas_than_there_is_room_for_move_into_the_pages() {
    let mut process = Process::new(2);
    process.settle();
    for seed in 0..u8::try_from(4 * SLOTS).unwrap() {
        process.add(seed);
        process.turn();
    }
    process.settle();
    let head = process.head();
    assert!(head.is_complete && head.to.delta - head.base.delta < SLOTS, "{head:?}");
    assert_eq!(head.generation, 1);
    process.is_connected = false;
    process.start(Feed::Process, "latchkey");
    process.settle();
    assert_eq!(process.know(63), vec![Some(true); 3]);
    assert_eq!(process.know(0), vec![Some(true); 3]);
}

#[test]
fn a_worker_that_missed_too_many_deltas_begins_anew() {
    let mut process = Process::new(3);
    process.settle();
    let held = (process.leader() + 1) % 3;
    process.workers[held].runs = false;
    for seed in 0..u8::try_from(4 * SLOTS).unwrap() {
        process.add(seed);
        process.turn();
    }
    process.revoke(1);
    process.turn();
    process.workers[held].runs = true;
    process.settle();
    assert_eq!(process.know(1), vec![Some(false); 3]);
}

#[test]
fn what_was_damaged_in_shared_data_is_refused_and_published_anew() {
    for damaged in ["page/0", "manifest", "delta/0", "head"] {
        let mut process = Process::new(2);
        process.settle();
        process.add(2);
        process.settle();
        let host = &process.workers[0].host;
        for (name, (bytes, _)) in host.process.shared.borrow_mut().iter_mut() {
            if name.ends_with(damaged) {
                let last = bytes.len() - 1;
                bytes[last] ^= 0x55;
            }
        }
        process.start(Feed::Process, "latchkey");
        process.settle_within(5_000);
        assert_eq!(process.know(2), vec![Some(true); 3], "{damaged}");
        assert_eq!(process.know(1), vec![Some(true); 3], "{damaged}");
    }
}

#[test]
fn another_history_replaces_the_table_on_every_worker_and_is_said() {
    let mut process = Process::new(3);
    process.settle();
    process.revoke(1);
    process.settle();
    process.control_plane = FakeControlPlane::new(2);
    process.add(7);
    process.settle();
    assert_eq!(process.know(7), vec![Some(true); 3]);
    assert_eq!(process.know(1), vec![Some(false); 3]);
    let changes: u64 = process.workers.iter_mut().map(|worker| worker.source.take_history_changes()).sum();
    assert_eq!(changes, 1);
    let logs: Vec<_> = process.workers.iter().flat_map(|worker| worker.host.logged.borrow().clone()).collect();
    assert!(logs.iter().any(|line| line.contains("history is another one")), "{logs:?}");
}

#[test]
fn a_leader_that_goes_while_a_snapshot_loads_leaves_the_old_table_serving() {
    let mut process = Process::new(3);
    process.settle();
    let leader = process.leader();
    process.control_plane = FakeControlPlane::new(2);
    process.add(7);
    process.answer(leader);
    assert!(!process.head().is_complete, "the snapshot has begun");
    process.workers[leader].runs = false;
    assert_eq!(process.know(1), vec![Some(true); 2], "the old table serves");
    process.settle_within(6_000);
    assert_eq!((process.know(7), process.know(1)), (vec![Some(true); 2], vec![Some(false); 2]));
}

#[test]
fn a_worker_with_requests_leaves_the_lead_to_one_without() {
    let mut process = Process::new(2);
    process.settle();
    let leader = process.leader();
    process.workers[leader].source.takes_requests();
    (0..40).for_each(|_| process.turn());
    assert_ne!(process.leader(), leader);
    process.revoke(1);
    process.settle();
    assert_eq!(process.know(1), vec![Some(false); 2]);
}

#[test]
fn two_sources_never_share() {
    let mut process = Process::new(1);
    process.settle();
    let other = Shelf::of(&name("another"));
    assert!(Head::read(&process.workers[0].host, &other).is_none());
    let tricky = SourceName { authority: "\", \"x".to_owned(), ..name("a") };
    let twin = SourceName { authority: "x".to_owned(), ..name("a\", \"") };
    assert_ne!(Shelf::of(&tricky).head(), Shelf::of(&twin).head());
}

#[test]
fn without_a_vm_id_each_worker_asks_by_itself_and_shares_nothing() {
    let mut process = Process::with(3, Feed::Process, "");
    process.settle();
    assert_eq!(process.know(1), vec![Some(true); 3]);
    assert!(process.workers[0].host.process.shared.borrow().is_empty());
    let mut instances = process.instances();
    instances.sort_unstable();
    instances.dedup();
    assert_eq!(instances.len(), 3, "each is an instance of its own");
    assert!(process.workers[0].host.logged.borrow().iter().any(|line| line.contains("VM id is empty")));
}

#[test]
fn workers_that_ask_by_themselves_are_one_instance() {
    let mut process = Process::with(3, Feed::Worker, "latchkey");
    process.settle();
    let mut instances = process.instances();
    assert_eq!(instances.len(), 3);
    instances.dedup();
    assert_eq!(instances.len(), 1);
    process.revoke(1);
    process.settle();
    assert_eq!(process.know(1), vec![Some(false); 3]);
}

#[test]
fn an_envoy_is_ready_when_every_worker_is() {
    let mut process = Process::new(2);
    process.settle();
    (0..6).for_each(|_| process.turn());
    let ready = |process: &Process, at: usize| {
        let worker = &process.workers[at];
        worker.source.is_everybody_ready(&worker.host, process.now())
    };
    assert!(ready(&process, 0) && ready(&process, 1));
    process.start(Feed::Process, "latchkey");
    process.is_connected = false;
    let worker = &mut process.workers[2];
    worker.source.tick(&worker.host, 1);
    assert!(!ready(&process, 0), "a new worker has no table yet");
}

#[test]
fn a_history_that_went_on_from_an_older_copy_is_noticed_in_the_same_epoch() {
    let mut process = Process::new(2);
    process.settle();
    let copy = process.control_plane.clone();
    process.revoke(1);
    process.settle();
    process.control_plane = copy;
    process.add(3);
    process.control_plane.snapshot_now();
    process.settle();
    assert_eq!(process.know(1), vec![Some(true); 2], "right is what the file in use says");
    assert_eq!(process.know(3), vec![Some(true); 2]);
    let changes: u64 = process.workers.iter_mut().map(|worker| worker.source.take_history_changes()).sum();
    assert_eq!(changes, 1);
}
