//! Workers that have more to apply than a turn takes, and the room that it takes meanwhile.

use policy::Digest;
use policy::wire::Op;

use super::super::shared_store::MIN_SLOTS;
use super::*;
use crate::fake_control_plane::record;
use crate::source::clocks;

/// What a worker that was held up for some time finds when it comes back: five changes that it lacks, key 1 revoked by the second
/// of them, and three more each time that it has applied three.
struct Stream {
    process: Process,
    held: usize,
    leader: usize,
    seed: u8,
}

impl Stream {
    fn after(turns: u32) -> Self {
        let mut process = Process::new(3);
        process.settle();
        let held = process.a_follower_stops();
        (0..turns).for_each(|_| process.turn());
        let leader = process.leader();
        let mut stream = Self { process, held, leader, seed: 10 };
        stream.goes_on(1);
        stream.process.revoke(1);
        stream.comes();
        stream.goes_on(3);
        stream
    }

    /// So many more changes, which the other workers apply at once.
    fn goes_on(&mut self, changes: u8) {
        for _ in 0..changes {
            self.process.add(self.seed);
            self.seed += 1;
            self.comes();
        }
    }

    fn comes(&mut self) {
        self.process.answer(self.leader);
        self.process.wake();
    }

    /// What the worker that was held up knows of key 1, and how far it is behind, after a turn of its own.
    fn turns(&mut self) -> (Option<bool>, u64) {
        let worker = &mut self.process.workers[self.held];
        worker.source.tick(&worker.host, worker.root);
        let behind = self.process.control_plane.position.revision.0 - worker.position().unwrap().revision.0;
        (worker.knows(&secret(1)), behind)
    }
}

#[test]
fn a_worker_that_was_held_up_decides_once_it_has_what_was_there_when_it_signed_again() {
    for (name, turns) in [("not struck out yet", 25), ("struck out", 50)] {
        let mut stream = Stream::after(turns);
        assert_eq!(stream.turns(), (None, 2), "{name}: it lacks two of the five that were there");
        stream.goes_on(3);
        assert_eq!(stream.turns(), (Some(false), 2), "{name}: it has those, and others come all the time");
        for round in 0..10 {
            stream.goes_on(3);
            assert_eq!(stream.turns(), (Some(false), 2), "{name}: round {round}");
        }
    }
}

/// Turns that come half a second apart: a slow worker, but one that runs.
#[test]
fn a_worker_that_applies_all_the_time_signs_all_the_time_and_tells_what_it_has() {
    let mut stream = Stream::after(1);
    for round in 0..8 {
        stream.process.advance(450);
        stream.goes_on(3);
        let held = &stream.process.workers[stream.held];
        assert!(!held.source.is_late(clocks(&held.host)), "round {round}");
        let (knows, behind) = stream.turns();
        assert_eq!(knows, Some(false), "round {round}");
        assert!(behind > 0, "round {round}: there is nothing left to apply");
        let said = stream.process.acknowledge(200);
        let newest = stream.process.control_plane.position.revision.0;
        let least = said.iter().flatten().map(|(_, applied, _)| *applied).min();
        assert!(least.is_none_or(|least| least <= newest - behind), "round {round}: {least:?} of {newest}");
    }
}

#[test]
fn a_worker_that_lags_decides_nothing_once_the_instance_was_retired() {
    let mut stream = Stream::after(1);
    assert_eq!(stream.turns(), (Some(false), 2));
    stream.goes_on(3);
    let leader = &mut stream.process.workers[stream.leader];
    let (number, _) = leader.host.calls.borrow_mut().pop_front().unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let headers = vec![header(":status", "410"), header("latchkey-time", "1000000")];
    leader.source.answered(&leader.host, leader.root, number, CallAnswer { headers, body: Vec::new() });
    assert_eq!(stream.turns(), (None, 2), "before it has all that was published");
}

/// Changes of some kilobytes each, faster than pages are published anew: the leader's timer doesn't run.
#[test]
fn deltas_never_take_more_than_their_room_in_shared_data() {
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
    assert!(most > 16 << 10, "{most} bytes: too few to say anything");
    assert!(most <= 40 << 10, "{most} bytes of deltas");
    process.settle();
    process.is_connected = false;
    process.start(Feed::Process, "latchkey");
    process.settle();
    assert_eq!(process.workers[2].position(), Some(process.control_plane.position), "the pages have moved on");
}

#[test]
fn a_table_that_grows_is_cut_anew_without_a_snapshot_and_gets_more_slots() {
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
    assert_eq!(head.generation, 1, "nothing was loaded anew");
    assert!(head.slots > MIN_SLOTS, "{} slots", head.slots);
    process.revoke(7);
    process.settle();
    process.is_connected = false;
    process.start(Feed::Process, "latchkey");
    process.settle();
    assert_eq!(process.know(7), vec![Some(false); 4]);
    assert_eq!(process.know(199), vec![Some(true); 4]);
    let shared = process.workers[0].host.process.shared.borrow();
    let pages = shared.iter().filter(|(name, (value, _))| name.contains("/page/") && value.len() > 16).count();
    assert_eq!(pages, process.workers[0].source.keys.holding.page_count(), "pages that were cut are freed");
}

#[test]
fn a_new_worker_goes_on_loading_while_pages_are_cut() {
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
    let pages = process.workers[0].source.keys.holding.page_count();
    process.start(Feed::Process, "latchkey");
    process.workers[2].runs = false;
    // One delta or one page an event.
    process.workers[2].host.process.look_us.set(1_000);
    let (mut taken, mut turns) = (0, 0);
    loop {
        let worker = &mut process.workers[2];
        worker.source.tick(&worker.host, worker.root);
        if worker.position().is_some() {
            break;
        }
        // None before it has caught up for the first time, and after it has begun anew.
        let place = worker.source.keys.holding.wanted();
        assert!(place.unwrap_or(0) >= taken, "it has begun anew, after {taken} of {pages} pages");
        taken = place.unwrap_or(0);
        turns += 1;
        if taken > 0 && turns % 6 == 0 && turns < 200 {
            grows(&mut process, 4);
        }
    }
    assert!(process.workers[0].source.keys.holding.page_count() > pages, "no page was cut meanwhile");
    process.workers[2].runs = true;
    process.settle();
    assert!(process.workers[2].source.keys.holding.find(&Digest::of(b"100")).is_some());
}
