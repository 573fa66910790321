//! Replication between several workers of one Envoy, when workers start, end or are held up.

use policy::config::FeedMode;

use super::head::Head;
use super::shared_store::{MIN_SLOTS, SharedStore};
use crate::fake_control_plane::{FakeControlPlane, answer_of, secret};
use crate::host::CallAnswer;
use crate::source_name::SourceName;

mod acknowledgements;
mod busy;
mod held_up;
mod shared_data;
mod workers;

use self::workers::*;

#[test]
fn one_worker_subscribes_and_every_worker_has_the_key() {
    let mut process = Process::new(3);
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(true); 3]);
    let leader = process.leader();
    let others = process.workers.iter().enumerate().filter(|(at, _)| *at != leader);
    assert_eq!(others.map(|(_, worker)| worker.host.call_count.get()).sum::<u32>(), 0, "the others sent no request");
}

#[test]
fn a_change_reaches_every_worker_without_waiting_for_a_tick() {
    let mut process = Process::new(3);
    process.settle();
    process.revoke(1);
    let leader = process.leader();
    process.answer(leader);
    process.wake();
    assert_eq!(process.have_key(1), vec![Some(false); 3]);
}

#[test]
fn a_lost_wake_is_made_up_for_by_the_next_tick() {
    let mut process = Process::new(3);
    process.settle();
    process.delivers_wakes = false;
    process.revoke(1);
    process.turn();
    process.turn();
    assert_eq!(process.have_key(1), vec![Some(false); 3]);
}

#[test]
fn an_outage_and_its_end_are_logged_once_each() {
    let mut process = Process::new(3);
    process.settle();
    let lines = |process: &Process| -> Vec<String> {
        process
            .workers
            .iter()
            .flat_map(|worker| worker.host.logged.take())
            .filter(|line| line.contains("the control plane"))
            .collect()
    };
    lines(&process);
    process.is_connected = false;
    for _ in 0..600 {
        process.turn();
        process.time_out();
    }
    assert_eq!(lines(&process), ["no answer from the control plane"], "of a minute");
    process.is_connected = true;
    process.revoke(1);
    process.settle_within(60_000);
    let over = lines(&process);
    assert!(matches!(&over[..], [line] if line.starts_with("the control plane answers again, after ")), "{over:?}");
}

#[test]
fn retries_are_rare_when_the_control_plane_is_full_and_frequent_when_it_is_unavailable() {
    let requests_in_ten_minutes = |refusal: &[(&str, &str)]| -> usize {
        let mut process = Process::new(3);
        process.settle();
        process.is_connected = false;
        let turns = 0..600_000 / TICK_MS;
        turns.map(|_| (process.turn(), process.refuse(refusal)).1).sum()
    };
    // Every 15 to 30 s, after some earlier ones.
    let full = requests_in_ten_minutes(&[(":status", "503"), ("retry-after", "30")]);
    assert!((20..=50).contains(&full), "{full}");
    let unavailable = requests_in_ten_minutes(&[(":status", "503"), ("retry-after", "1")]);
    assert!(unavailable > 250, "{unavailable}");
}

#[test]
fn when_the_leader_ends_another_worker_takes_over() {
    let mut process = Process::new(3);
    process.settle();
    let leader = process.leader();
    process.workers[leader].runs = false;
    process.revoke(1);
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(false); 2]);
    assert_ne!(process.leader(), leader);
    assert_eq!(process.head().generation, 1, "it continues with what the previous leader published");
}

#[test]
fn a_worker_that_lags_applies_deltas_for_a_millisecond_in_each_event() {
    for (each_us, behind_after) in [(350, vec![4, 1, 0]), (1_000, vec![6, 5, 4]), (70, vec![0, 0, 0])] {
        let mut process = Process::new(2);
        process.settle();
        let held = process.suspend_follower();
        for seed in 2..9 {
            process.add(seed);
            process.turn();
        }
        process.workers[held].host.process.clock_read_us.set(each_us);
        let newest = process.control_plane.position.revision.0;
        let worker = &mut process.workers[held];
        let mut behind = || {
            worker.source.tick(&worker.host, worker.root);
            newest - worker.position().unwrap().revision.0
        };
        let seen = vec![behind(), behind(), behind()];
        assert_eq!(seen, behind_after, "seven deltas of {each_us} us each");
    }
}

#[test]
fn a_new_worker_needs_no_control_plane() {
    let mut process = Process::new(2);
    process.settle();
    process.add(2);
    process.settle();
    process.is_connected = false;
    process.start(FeedMode::Process, "latchkey");
    process.settle();
    assert_eq!((process.have_key(1), process.have_key(2)), (vec![Some(true); 3], vec![Some(true); 3]));
}

#[test]
fn all_workers_can_be_replaced_and_the_table_stays() {
    let mut process = Process::new(2);
    process.settle();
    process.is_connected = false;
    for _ in 0..2 {
        process.start(FeedMode::Process, "latchkey");
        process.settle();
    }
    process.workers[0].runs = false;
    process.workers[1].runs = false;
    process.is_connected = true;
    process.revoke(1);
    process.settle_within(6_000);
    assert_eq!(process.have_key(1), vec![Some(false); 2]);
}

#[test]
fn a_new_configuration_keeps_table_and_lead() {
    let mut process = Process::new(2);
    process.settle();
    for round in 2..8 {
        for worker in &mut process.workers {
            worker.source.join(root(round, FeedMode::Process));
            worker.source.leave(&worker.host, worker.root);
            worker.root = round;
            assert_eq!(worker.has_key(&secret(1)), Some(true), "configuration {round}");
        }
        process.add(u8::try_from(round).unwrap());
        process.settle();
        process.leader();
    }
    assert_eq!(process.head().generation, 1, "nothing was loaded again");
}

/// Envoy delivers an answer to the context in whose callback the call was sent, which may be an older configuration's.
#[test]
fn an_answer_to_an_older_configuration_is_handled_while_that_one_is_live() {
    let mut process = Process::new(1);
    process.settle();
    let worker = &mut process.workers[0];
    worker.source.join(root(2, FeedMode::Process));
    for seed in 2..6 {
        process.add(seed);
        process.answer(0);
        assert_eq!(process.have_key(seed), vec![Some(true)], "root 1 sent the call, and sends the next one");
    }
}

#[test]
fn deltas_beyond_the_budget_are_merged_into_the_pages() {
    let mut process = Process::new(2);
    process.settle();
    for seed in 0..u8::try_from(4 * MIN_SLOTS).unwrap() {
        process.add(seed);
        process.turn();
    }
    process.settle();
    let head = process.head();
    assert!(head.is_complete && head.to.delta - head.base.delta < MIN_SLOTS, "{head:?}");
    assert_eq!(head.generation, 1);
    process.is_connected = false;
    process.start(FeedMode::Process, "latchkey");
    process.settle();
    assert_eq!(process.have_key(63), vec![Some(true); 3]);
    assert_eq!(process.have_key(0), vec![Some(true); 3]);
}

#[test]
fn damaged_shared_data_is_refused_and_published_again() {
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
        process.start(FeedMode::Process, "latchkey");
        process.settle_within(5_000);
        assert_eq!(process.have_key(2), vec![Some(true); 3], "{damaged}");
        assert_eq!(process.have_key(1), vec![Some(true); 3], "{damaged}");
    }
}

#[test]
fn another_history_replaces_the_table_on_every_worker_and_is_logged() {
    let mut process = Process::new(3);
    process.settle();
    process.revoke(1);
    process.settle();
    process.control_plane = FakeControlPlane::new(2);
    process.add(7);
    process.settle();
    assert_eq!(process.have_key(7), vec![Some(true); 3]);
    assert_eq!(process.have_key(1), vec![Some(false); 3]);
    let changes: u64 = process.workers.iter_mut().map(|worker| worker.source.take_history_changes()).sum();
    assert_eq!(changes, 1);
    let logs: Vec<_> = process.workers.iter().flat_map(|worker| worker.host.logged.borrow().clone()).collect();
    assert!(logs.iter().any(|line| line.contains("history has changed")), "{logs:?}");
}

#[test]
fn when_the_leader_ends_while_a_snapshot_loads_the_old_table_still_serves() {
    let mut process = Process::new(3);
    process.settle();
    let leader = process.leader();
    process.control_plane = FakeControlPlane::new(2);
    process.add(7);
    process.answer(leader);
    assert!(!process.head().is_complete, "the snapshot has begun");
    process.workers[leader].runs = false;
    assert_eq!(process.have_key(1), vec![Some(true); 2], "the old table serves");
    process.settle_within(6_000);
    assert_eq!((process.have_key(7), process.have_key(1)), (vec![Some(true); 2], vec![Some(false); 2]));
}

#[test]
fn a_busy_leader_hands_over_to_an_idle_worker() {
    let mut process = Process::new(2);
    process.settle();
    let leader = process.leader();
    process.workers[leader].source.record_request();
    (0..40).for_each(|_| process.turn());
    assert_ne!(process.leader(), leader);
    process.revoke(1);
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(false); 2]);
}

#[test]
fn two_sources_never_share() {
    let mut process = Process::new(1);
    process.settle();
    let other = SharedStore::of(&name("another"));
    assert!(Head::read(&process.workers[0].host, &other).is_none());
    let tricky = SourceName { authority: "\", \"x".to_owned(), ..name("a") };
    let twin = SourceName { authority: "x".to_owned(), ..name("a\", \"") };
    assert_ne!(SharedStore::of(&tricky).head(), SharedStore::of(&twin).head());
}

#[test]
fn without_a_vm_id_each_worker_subscribes_for_itself_and_shares_nothing() {
    let mut process = Process::with(3, FeedMode::Process, "");
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(true); 3]);
    assert!(process.workers[0].host.process.shared.borrow().is_empty());
    let mut instances = process.instances();
    instances.sort_unstable();
    instances.dedup();
    assert_eq!(instances.len(), 3, "each is an instance of its own");
    assert!(process.workers[0].host.logged.borrow().iter().any(|line| line.contains("VM id is empty")));
}

#[test]
fn independent_workers_are_one_instance() {
    let mut process = Process::with(3, FeedMode::Worker, "latchkey");
    process.settle();
    let mut instances = process.instances();
    assert_eq!(instances.len(), 3);
    instances.dedup();
    assert_eq!(instances.len(), 1);
    process.revoke(1);
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(false); 3]);
}

#[test]
fn an_envoy_is_ready_when_every_worker_is() {
    let mut process = Process::new(2);
    process.settle();
    (0..6).for_each(|_| process.turn());
    let ready = |process: &Process, at: usize| {
        let worker = &process.workers[at];
        worker.source.are_all_workers_ready(&worker.host, process.now())
    };
    assert!(ready(&process, 0) && ready(&process, 1));
    process.start(FeedMode::Process, "latchkey");
    process.is_connected = false;
    let worker = &mut process.workers[2];
    worker.source.tick(&worker.host, 1);
    assert!(!ready(&process, 0), "a new worker has no table yet");
}

#[test]
fn a_history_that_continues_from_an_older_copy_is_detected_in_the_same_epoch() {
    let mut process = Process::new(2);
    process.settle();
    let copy = process.control_plane.clone();
    process.revoke(1);
    process.settle();
    process.control_plane = copy;
    process.add(3);
    process.control_plane.snapshot_now();
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(true); 2], "the database in use decides");
    assert_eq!(process.have_key(3), vec![Some(true); 2]);
    let changes: u64 = process.workers.iter_mut().map(|worker| worker.source.take_history_changes()).sum();
    assert_eq!(changes, 1);
}
