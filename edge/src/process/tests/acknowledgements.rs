//! Acknowledgements: sent once, by one worker for all, and again if they were lost.

use super::*;

/// All workers have an acknowledged revision, and the leader has just received the next one.
fn acknowledged_and_changed(workers: u8) -> (Process, usize) {
    let mut process = Process::new(workers);
    process.settle();
    while !process.acknowledge(200).is_empty() {}
    process.revoke(1);
    let leader = process.leader();
    process.answer(leader);
    (process, leader)
}

#[test]
fn the_next_feed_request_acknowledges_for_every_worker() {
    let (mut process, leader) = acknowledged_and_changed(3);
    assert_eq!(process.feed_requests(leader), Vec::<String>::new(), "it waits for the workers that were woken");
    process.wake();
    let acknowledged = format!("&applied={}", process.control_plane.position.revision);
    let requests = process.feed_requests(leader);
    assert!(requests.len() == 1 && requests[0].ends_with(&acknowledged), "{requests:?}");
    assert_eq!(process.acknowledge(200), Vec::<Vec<_>>::new(), "it is acknowledged once");
    process.answer(leader);
    process.turn();
    let requests = process.feed_requests(leader);
    assert!(requests.len() == 1 && !requests[0].contains("&applied="), "{requests:?}");
}

#[test]
fn a_lost_piggybacked_acknowledgement_is_sent_again() {
    let (mut process, leader) = acknowledged_and_changed(3);
    process.wake();
    let (number, _) = process.workers[leader].host.calls.borrow_mut().pop_front().unwrap();
    let worker = &mut process.workers[leader];
    worker.source.answered(&worker.host, worker.root, number, CallAnswer { headers: Vec::new(), body: Vec::new() });
    let acknowledged = process.acknowledge(200);
    let revision = process.control_plane.position.revision.0;
    assert_eq!(acknowledged.len(), 1, "{acknowledged:?}");
    assert_eq!(
        acknowledged[0].iter().map(|(_, applied, ended)| (*applied, *ended)).collect::<Vec<_>>(),
        [(revision, false); 3]
    );
    assert_eq!(process.acknowledge(200), Vec::<Vec<_>>::new(), "it is acknowledged once");
}

#[test]
fn a_worker_that_hangs_delays_no_feed_request_longer_than_a_tick() {
    let mut process = Process::new(3);
    process.settle();
    while !process.acknowledge(200).is_empty() {}
    let leader = process.leader();
    let hung = (leader + 1) % 3;
    process.workers[hung].runs = false;
    process.revoke(1);
    process.answer(leader);
    process.wake();
    assert_eq!(process.feed_requests(leader), Vec::<String>::new());
    process.advance(TICK_MS);
    process.tick(leader);
    let requests = process.feed_requests(leader);
    assert!(requests.len() == 1 && !requests[0].contains("&applied="), "{requests:?}");
    let revisions = |acknowledged: &[Vec<(String, u64, bool)>]| {
        acknowledged.iter().flatten().map(|(_, at, _)| *at).collect::<Vec<_>>()
    };
    let revision = process.control_plane.position.revision.0;
    let mut acknowledged = revisions(&process.acknowledge(200));
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, [revision - 1, revision, revision], "what each worker has is acknowledged anyway");
    process.workers[hung].runs = true;
    process.settle();
    assert_eq!(revisions(&process.acknowledge(200)), [revision; 3]);
}

/// A revocation may be waiting behind the changes of an import.
#[test]
fn a_feed_request_waits_for_no_worker_while_the_control_plane_has_more() {
    for (ahead, waits) in [(0, true), (1, false)] {
        let mut process = Process::new(3);
        process.settle();
        while !process.acknowledge(200).is_empty() {}
        process.revoke(1);
        let (leader, head) = (process.leader(), process.control_plane.position.revision.0 + ahead);
        let worker = &mut process.workers[leader];
        let (number, path) = worker.host.calls.borrow_mut().pop_front().unwrap();
        let mut answer = answer_of(&process.control_plane, &path);
        answer.headers.push(("latchkey-head".to_owned(), head.to_string().into_bytes()));
        worker.source.answered(&worker.host, worker.root, number, answer);
        assert_eq!(process.feed_requests(leader).is_empty(), waits, "{ahead} revisions are left");
    }
}

#[test]
fn a_refused_acknowledgement_is_sent_again() {
    let mut process = Process::new(2);
    process.settle();
    (0..3).for_each(|_| drop(process.acknowledge(503)));
    process.turn();
    assert_eq!(process.acknowledge(503), Vec::<Vec<_>>::new(), "not at once");
    (0..10).for_each(|_| process.turn());
    assert_eq!(process.acknowledge(200).len(), 1);
}

#[test]
fn an_ended_worker_is_reported_until_acknowledged_and_returns_under_another_id() {
    let mut process = Process::new(3);
    process.settle();
    while !process.acknowledge(200).is_empty() {}
    let held = process.suspend_follower();
    (0..45).for_each(|_| process.turn());
    let acknowledged = process.acknowledge(200).pop().expect("something has changed");
    let gone: Vec<_> = acknowledged.iter().filter(|(_, _, ended)| *ended).map(|(id, _, _)| id.clone()).collect();
    assert_eq!((acknowledged.len(), gone.len()), (3, 1));
    let next = process.acknowledge(200).pop().expect("the list has changed");
    assert!(next.iter().all(|(id, _, _)| *id != gone[0]));

    process.workers[held].runs = true;
    process.settle();
    (0..10).for_each(|_| process.turn());
    let acknowledged = process.acknowledge(200).pop().expect("a worker has joined");
    assert_eq!(acknowledged.len(), 3);
    assert!(
        acknowledged.iter().all(|(id, _, ended)| *id != gone[0] && !ended),
        "it has another id now: {acknowledged:?}"
    );
}

/// An old acknowledgement that arrived late has added it again there, after its end was acknowledged.
#[test]
fn an_unknown_worker_that_the_control_plane_counts_is_reported_as_ended() {
    let mut process = Process::new(3);
    process.settle();
    while !process.acknowledge(200).is_empty() {}
    let living = |acknowledged: &[(String, u64, bool)]| acknowledged.iter().filter(|(_, _, ended)| !ended).count();
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    process.revoke(1);
    process.settle();
    (0..110).for_each(|_| process.turn());
    let refused = [header(":status", "409"), header("latchkey-missing-worker", "forgotten")];
    let acknowledged = process.answer_acknowledgements(&refused).pop().expect("a heartbeat is due");
    assert_eq!((acknowledged.len(), living(&acknowledged)), (3, 3));
    (0..11).for_each(|_| process.turn());
    let acknowledged = process.acknowledge(200).pop().expect("it is sent again");
    assert!(acknowledged.contains(&("forgotten".to_owned(), 0, true)), "{acknowledged:?}");
    assert_eq!((acknowledged.len(), living(&acknowledged)), (4, 3));
    let acknowledged = process.acknowledge(200).pop().expect("the list has changed");
    assert_eq!((acknowledged.len(), living(&acknowledged)), (3, 3), "{acknowledged:?}");

    // A live worker is never reported as ended.
    let named = [header(":status", "409"), header("latchkey-missing-worker", &acknowledged[0].0)];
    process.revoke(2);
    process.settle();
    (0..110).for_each(|_| process.turn());
    process.answer_acknowledgements(&named).pop().expect("a heartbeat is due");
    (0..11).for_each(|_| process.turn());
    let acknowledged = process.acknowledge(200).pop().expect("it is sent again");
    assert_eq!((acknowledged.len(), living(&acknowledged)), (3, 3), "{acknowledged:?}");
}

#[test]
fn a_retired_instance_decides_nothing_before_a_response_under_another_id() {
    let mut process = Process::new(3);
    process.settle();
    let leader = process.leader();
    let before = process.instances();
    let (number, _) = process.workers[leader].host.calls.borrow_mut().pop_front().unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let gone =
        CallAnswer { headers: vec![header(":status", "410"), header("latchkey-time", "1000000")], body: Vec::new() };
    let worker = &mut process.workers[leader];
    worker.source.answered(&worker.host, worker.root, number, gone);
    process.wake();
    assert_eq!(process.have_key(1), vec![None; 3], "the control plane no longer counts this instance");
    // There is time to end the instance before it takes a new id.
    (0..55).for_each(|_| process.turn());
    assert_eq!((process.have_key(1), process.instances()), (vec![None; 3], Vec::new()));
    (0..30).for_each(|_| process.turn());
    assert_eq!(process.have_key(1), vec![Some(true); 3]);
    assert_ne!(process.instances(), before);
}

/// It has no head to read: only the control plane knows what it missed.
#[test]
fn an_independent_worker_that_was_held_up_requests_the_feed_again_before_it_decides() {
    let mut process = Process::with(3, FeedMode::Worker, "latchkey");
    process.settle();
    (0..10).for_each(|_| process.turn());
    while !process.acknowledge(200).is_empty() {}
    // Its last response lies unread in its socket.
    process.advance(TICK_MS);
    process.tick(1);
    let old = process.workers[1].host.calls.borrow_mut().pop_front().unwrap();
    let answer = answer_of(&process.control_plane, &old.1);
    process.workers[1].runs = false;
    process.revoke(1);
    let mut acknowledged = Vec::new();
    for _ in 0..45 {
        process.turn();
        acknowledged.extend(process.acknowledge(200).into_iter().flatten());
    }
    assert!(
        acknowledged.iter().any(|(_, _, ended)| *ended),
        "the others report that it has ended, so the control plane assumes that it denies"
    );

    let held = &mut process.workers[1];
    held.runs = true;
    assert_eq!(held.has_key(&secret(1)), None, "a request comes first");
    assert!(!held.source.catch_up(&held.host));
    assert_eq!(held.has_key(&secret(1)), None);
    held.source.answered(&held.host, held.root, old.0, answer);
    assert_eq!(held.has_key(&secret(1)), None, "a response to an older request confirms nothing now");
    process.settle();
    assert_eq!(process.have_key(1), vec![Some(false); 3]);
}
