//! Workers with more changes than fit into a time slice, and the space that the changes take meanwhile.

use policy::Digest;
use policy::wire::Op;

use super::super::shared_store::MIN_SLOTS;
use super::*;
use crate::fake_control_plane::record;
use crate::source::clocks;

/// The backlog of a worker that was held up: five changes, of which the second revokes key 1, and three more each time
/// that it has applied three.
struct Backlog {
    process: Process,
    held: usize,
    leader: usize,
    seed: u8,
}

impl Backlog {
    fn after(turns: u32) -> Self {
        let mut process = Process::new(3);
        process.settle();
        let held = process.suspend_follower();
        (0..turns).for_each(|_| process.turn());
        let leader = process.leader();
        let mut backlog = Self { process, held, leader, seed: 10 };
        backlog.add_changes(1);
        backlog.process.revoke(1);
        backlog.deliver();
        backlog.add_changes(3);
        backlog
    }

    /// Makes this many more changes, which the other workers apply at once.
    fn add_changes(&mut self, changes: u8) {
        for _ in 0..changes {
            self.process.add(self.seed);
            self.seed += 1;
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        self.process.answer(self.leader);
        self.process.wake();
    }

    /// Ticks the worker that was held up. Returns whether it has key 1, and how many revisions it is behind.
    fn tick(&mut self) -> (Option<bool>, u64) {
        let worker = &mut self.process.workers[self.held];
        worker.source.tick(&worker.host, worker.root);
        let behind = self.process.control_plane.position.revision.0 - worker.position().unwrap().revision.0;
        (worker.has_key(&secret(1)), behind)
    }
}

#[test]
fn a_worker_that_was_held_up_decides_once_it_has_all_from_before_its_first_heartbeat() {
    for (name, turns) in [("not removed yet", 25), ("removed", 50)] {
        let mut backlog = Backlog::after(turns);
        assert_eq!(backlog.tick(), (None, 2), "{name}: it lacks two of the five that were there");
        backlog.add_changes(3);
        assert_eq!(backlog.tick(), (Some(false), 2), "{name}: it has those, and others come all the time");
        for round in 0..10 {
            backlog.add_changes(3);
            assert_eq!(backlog.tick(), (Some(false), 2), "{name}: round {round}");
        }
    }
}

/// Ticks are half a second apart: a slow worker, but one that runs.
#[test]
fn a_worker_with_a_constant_backlog_sends_heartbeats_and_its_true_revision() {
    let mut backlog = Backlog::after(1);
    for round in 0..8 {
        backlog.process.advance(450);
        backlog.add_changes(3);
        let held = &backlog.process.workers[backlog.held];
        assert!(!held.source.is_late(clocks(&held.host)), "round {round}");
        let (has_key, behind) = backlog.tick();
        assert_eq!(has_key, Some(false), "round {round}");
        assert!(behind > 0, "round {round}: there is nothing left to apply");
        let acknowledged = backlog.process.acknowledge(200);
        let newest = backlog.process.control_plane.position.revision.0;
        let least = acknowledged.iter().flatten().map(|(_, applied, _)| *applied).min();
        assert!(least.is_none_or(|least| least <= newest - behind), "round {round}: {least:?} of {newest}");
    }
}

#[test]
fn a_worker_that_lags_decides_nothing_once_the_instance_was_retired() {
    let mut backlog = Backlog::after(1);
    assert_eq!(backlog.tick(), (Some(false), 2));
    backlog.add_changes(3);
    let leader = &mut backlog.process.workers[backlog.leader];
    let (number, _) = leader.host.calls.borrow_mut().pop_front().unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let headers = vec![header(":status", "410"), header("latchkey-time", "1000000")];
    leader.source.answered(&leader.host, leader.root, number, CallAnswer { headers, body: Vec::new() });
    assert_eq!(backlog.tick(), (None, 2), "before it has all that was published");
}

/// Changes of some kilobytes each, faster than pages are published again: the leader's timer doesn't run.
#[test]
fn deltas_never_exceed_their_budget_in_shared_data() {
    let mut process = Process::new(2);
    process.settle();
    let leader = process.leader();
    let deltas = |process: &Process| -> usize {
        let shared = process.workers[0].host.process.shared.borrow();
        shared.iter().filter(|(name, _)| name.contains("/delta/")).map(|(_, (value, _))| value.len()).sum()
    };
    let mut most = 0;
    for round in 0..2 * MIN_SLOTS {
        let keys = (0..30).map(|key| Op::Upsert(record(&format!("{round} {key}"))));
        process.control_plane.change(&keys.collect::<Vec<_>>());
        let worker = &mut process.workers[leader];
        let (number, path) = worker.host.calls.borrow_mut().pop_front().unwrap();
        worker.source.answered(&worker.host, worker.root, number, answer_of(&process.control_plane, &path));
        process.workers[leader].host.process.wakes.take();
        process.advance(TICK_MS);
        process.tick((leader + 1) % 2);
        // The feed request that was held back for the other worker.
        let worker = &mut process.workers[leader];
        if worker.host.calls.borrow().is_empty() {
            worker.source.tick(&worker.host, worker.root);
        }
        most = most.max(deltas(&process));
    }
    assert!(most > 16 << 10, "{most} bytes: too few for this test");
    assert!(most <= 40 << 10, "{most} bytes of deltas");
    process.settle();
    process.is_connected = false;
    process.start(FeedMode::Process, "latchkey");
    process.settle();
    assert_eq!(process.workers[2].position(), Some(process.control_plane.position), "the pages have moved on");
}

#[test]
fn pages_of_a_growing_table_are_split_without_a_snapshot_and_slots_are_added() {
    let mut process = Process::new(3);
    process.settle();
    for seed in 2..200 {
        process.add(seed);
        if seed % 4 == 0 {
            process.turn();
        }
    }
    process.settle();
    (0..20).for_each(|_| process.turn());
    let head = process.head();
    assert_eq!(head.generation, 1, "nothing was loaded again");
    assert!(head.slots > MIN_SLOTS, "{} slots", head.slots);
    process.revoke(7);
    process.settle();
    process.is_connected = false;
    process.start(FeedMode::Process, "latchkey");
    process.settle();
    assert_eq!(process.have_key(7), vec![Some(false); 4]);
    assert_eq!(process.have_key(199), vec![Some(true); 4]);
    let shared = process.workers[0].host.process.shared.borrow();
    let pages = shared.iter().filter(|(name, (value, _))| name.contains("/page/") && value.len() > 16).count();
    assert_eq!(pages, process.workers[0].source.keys.live_table.page_count(), "pages that were split are freed");
}

#[test]
fn a_new_worker_continues_to_load_while_pages_are_split() {
    let mut process = Process::new(2);
    process.settle();
    let mut names = 0..;
    let mut grows = |process: &mut Process, turns: u32| {
        for _ in 0..turns {
            let keys = names.by_ref().take(6).map(|name: u32| Op::Upsert(record(&name.to_string())));
            process.control_plane.change(&keys.collect::<Vec<_>>());
            process.turn();
        }
    };
    grows(&mut process, 20);
    (0..20).for_each(|_| process.turn());
    let pages = process.workers[0].source.keys.live_table.page_count();
    process.start(FeedMode::Process, "latchkey");
    process.workers[2].runs = false;
    // One delta or one page for each event.
    process.workers[2].host.process.clock_read_us.set(1_000);
    let (mut loaded, mut turns) = (0, 0);
    loop {
        let worker = &mut process.workers[2];
        worker.source.tick(&worker.host, worker.root);
        if worker.position().is_some() {
            break;
        }
        // None before it has caught up for the first time, and after it has restarted.
        let place = worker.source.keys.live_table.wanted();
        assert!(place.unwrap_or(0) >= loaded, "it has restarted after {loaded} of {pages} pages");
        loaded = place.unwrap_or(0);
        turns += 1;
        if loaded > 0 && turns % 6 == 0 && turns < 200 {
            grows(&mut process, 4);
        }
    }
    assert!(process.workers[0].source.keys.live_table.page_count() > pages, "no page was split meanwhile");
    process.workers[2].runs = true;
    process.settle();
    assert!(process.workers[2].source.keys.live_table.find(&Digest::of(b"100")).is_some());
}
