//! Workers that stood still for a while and come back.

use super::super::shared_store::MIN_SLOTS;
use super::workers::*;
use crate::fake_control_plane::{answer_of, secret};
use crate::host::CallAnswer;
use crate::source::clocks;

/// The leader stands still from now on, while an answer with a new key lies unread in its socket: with the call's number.
fn a_leader_stops(process: &mut Process) -> (usize, u32, CallAnswer) {
    let leader = process.leader();
    process.add(2);
    let (number, path) = process.workers[leader].host.calls.borrow_mut().pop_front().unwrap();
    process.workers[leader].runs = false;
    (leader, number, answer_of(&process.control_plane, &path))
}

#[test]
fn a_leader_that_stood_still_and_comes_back_publishes_nothing() {
    let mut process = Process::new(3);
    process.settle();
    let (leader, number, answer) = a_leader_stops(&mut process);
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
    old.source.answered(&old.host, old.root, number, answer);
    assert_eq!(old.knows(&secret(1)), None, "nor after an answer that has it sign");
    assert_eq!(process.head().to, before.to, "the others go on from where they were");
    assert!(process.head().term >= before.term);
    process.settle();
    assert_eq!(process.know(1), vec![Some(false); 3]);
    assert_eq!(process.know(8), vec![Some(true); 3]);
    process.leader();
}

#[test]
fn a_leader_that_stood_still_takes_in_no_answer_that_the_others_would_take_back() {
    let mut process = Process::new(3);
    process.settle();
    let (leader, number, answer) = a_leader_stops(&mut process);
    // The next leader can't ask.
    process.is_connected = false;
    (0..30).for_each(|_| process.turn());

    let old = &mut process.workers[leader];
    old.runs = true;
    let before = old.position();
    old.source.answered(&old.host, old.root, number, answer);
    assert_eq!(old.position(), before, "it learns first that another one leads");
    process.turn();
    assert_eq!(process.workers[leader].position(), before);
    process.is_connected = true;
    process.settle();
    assert_eq!(process.know(2), vec![Some(true); 3]);
}

#[test]
fn a_worker_that_was_held_up_looks_before_it_decides() {
    let mut process = Process::new(3);
    process.settle();
    let held = process.a_follower_stops();
    process.revoke(1);
    (0..30).for_each(|_| process.turn());
    assert_eq!(process.workers[held].knows(&secret(1)), None, "too long without a tick");
    assert_eq!(process.workers[held].decides(&secret(1)), Some(false));

    // It is held up again before it ticks. The others strike it out, and nobody waits for it.
    (0..15).for_each(|_| process.turn());
    assert_eq!(process.workers[held].decides(&secret(1)), Some(false));
    process.add(2);
    process.turn();
    assert_eq!(process.workers[held].decides(&secret(2)), Some(true), "it looked a moment ago, and looks again");
}

/// Its table is too old for the deltas that are left, so it takes more than one step to come back.
#[test]
fn a_worker_that_comes_back_decides_nothing_before_it_is_in_step() {
    let mut process = Process::new(3);
    process.settle();
    let held = process.a_follower_stops();
    process.revoke(1);
    for seed in 0..u8::try_from(4 * MIN_SLOTS).unwrap() {
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
fn a_worker_that_missed_too_many_deltas_begins_anew() {
    let mut process = Process::new(3);
    process.settle();
    let held = process.a_follower_stops();
    for seed in 0..u8::try_from(4 * MIN_SLOTS).unwrap() {
        process.add(seed);
        process.turn();
    }
    process.revoke(1);
    process.turn();
    process.workers[held].runs = true;
    process.settle();
    assert_eq!(process.know(1), vec![Some(false); 3]);
}
