//! Workers that were held up for a while and resume.

use super::super::shared_store::MIN_SLOTS;
use super::workers::*;
use crate::fake_control_plane::{answer_of, secret};
use crate::host::CallAnswer;
use crate::source::clocks;

/// Suspends the leader while a response with a new key lies unread in its socket. Returns the leader, and that call's
/// number and response.
fn suspend_leader(process: &mut Process) -> (usize, u32, CallAnswer) {
    let leader = process.leader();
    process.add(2);
    let (number, path) = process.workers[leader].host.calls.borrow_mut().pop_front().unwrap();
    process.workers[leader].runs = false;
    (leader, number, answer_of(&process.control_plane, &path))
}

#[test]
fn a_leader_that_was_held_up_publishes_nothing() {
    let mut process = Process::new(3);
    process.settle();
    let (leader, number, answer) = suspend_leader(&mut process);
    for seed in 3..9 {
        process.add(seed);
        process.settle();
    }
    process.revoke(1);
    process.settle_within(10_000);
    let before = process.head();

    let old = &mut process.workers[leader];
    old.runs = true;
    assert!(old.source.is_late(clocks(&old.host)), "it decides nothing before it has caught up");
    old.source.answered(&old.host, old.root, number, answer);
    assert_eq!(old.has_key(&secret(1)), None, "nor after a response that makes it send a heartbeat");
    assert_eq!(process.head().to, before.to, "the others continue from their position");
    assert!(process.head().term >= before.term);
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(false); 3]);
    assert_eq!(process.have_key(8), vec![Some(true); 3]);
    process.leader();
}

#[test]
fn a_leader_that_was_held_up_applies_no_response_that_its_successor_lacks() {
    let mut process = Process::new(3);
    process.settle();
    let (leader, number, answer) = suspend_leader(&mut process);
    // The next leader can't reach the control plane.
    process.is_connected = false;
    (0..30).for_each(|_| process.turn());

    let old = &mut process.workers[leader];
    old.runs = true;
    let before = old.position();
    old.source.answered(&old.host, old.root, number, answer);
    assert_eq!(old.position(), before, "it finds first that another worker leads");
    process.turn();
    assert_eq!(process.workers[leader].position(), before);
    process.is_connected = true;
    process.settle();
    assert_eq!(process.have_key(2), vec![Some(true); 3]);
}

#[test]
fn a_worker_that_was_held_up_catches_up_before_it_decides() {
    let mut process = Process::new(3);
    process.settle();
    let held = process.suspend_follower();
    process.revoke(1);
    (0..30).for_each(|_| process.turn());
    assert_eq!(process.workers[held].has_key(&secret(1)), None, "too long without a tick");
    assert_eq!(process.workers[held].decide(&secret(1)), Some(false));

    // It is held up again before it ticks. The others remove it, and no change waits for it.
    (0..15).for_each(|_| process.turn());
    assert_eq!(process.workers[held].decide(&secret(1)), Some(false));
    process.add(2);
    process.turn();
    assert_eq!(process.workers[held].decide(&secret(2)), Some(true), "it caught up a moment ago, and does so again");
}

/// Its table is too old for the remaining deltas, so it needs more than one step.
#[test]
fn a_worker_that_resumes_decides_nothing_before_it_is_up_to_date() {
    let mut process = Process::new(3);
    process.settle();
    let held = process.suspend_follower();
    process.revoke(1);
    for seed in 0..u8::try_from(4 * MIN_SLOTS).unwrap() {
        process.add(seed);
        process.turn();
    }
    let worker = &mut process.workers[held];
    let mut ticks = 0;
    while worker.position() != Some(process.control_plane.position) {
        assert_eq!(worker.has_key(&secret(1)), None, "it was held up, and is not up to date after {ticks} ticks");
        worker.source.tick(&worker.host, worker.root);
        ticks += 1;
    }
    assert!(ticks > 1, "one step was enough");
    assert_eq!(worker.has_key(&secret(1)), Some(true), "key 1 was added again");
}

#[test]
fn a_worker_that_missed_too_many_deltas_restarts() {
    let mut process = Process::new(3);
    process.settle();
    let held = process.suspend_follower();
    for seed in 0..u8::try_from(4 * MIN_SLOTS).unwrap() {
        process.add(seed);
        process.turn();
    }
    process.revoke(1);
    process.turn();
    process.workers[held].runs = true;
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(false); 3]);
}
