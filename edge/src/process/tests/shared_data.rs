//! Envoy's shared data must stop growing: nothing in it can ever be deleted, so all names must be in use early.

use std::collections::BTreeSet;

use super::*;

fn names(process: &Process) -> BTreeSet<String> {
    process.workers[0].host.process.shared.borrow().keys().cloned().collect()
}

fn bytes(process: &Process) -> usize {
    process.workers[0].host.process.shared.borrow().values().map(|(value, _)| value.len()).sum()
}

/// Adds and removes a key, so that the table's size stays the same.
fn change(process: &mut Process, times: u64) {
    for _ in 0..times {
        process.add(2);
        process.turn();
        process.revoke(2);
        process.turn();
    }
}

#[test]
fn shared_data_never_grows_once_every_slot_is_in_use() {
    let mut process = Process::new(3);
    process.settle();
    change(&mut process, 2 * MIN_SLOTS);
    let (before, most) = (names(&process), 2 * bytes(&process));
    change(&mut process, 8 * MIN_SLOTS);
    assert_eq!(names(&process), before);
    assert!(bytes(&process) <= most, "{} bytes, expected {most} at most", bytes(&process));
    assert_eq!(process.workers[0].position(), process.workers[2].position());
}
