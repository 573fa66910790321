//! What the control plane is told of the workers: once, by one of them, and again where it was not heard.

use super::*;

/// All workers have a revision that the control plane was told of, and the next one is on its way in.
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
fn the_next_feed_request_says_what_every_worker_has() {
    let (mut process, leader) = acknowledged_and_changed(3);
    assert_eq!(process.questions(leader), Vec::<String>::new(), "it waits for those that were woken");
    process.wake();
    let said = format!("&applied={}", process.control_plane.position.revision);
    let asked = process.questions(leader);
    assert!(asked.len() == 1 && asked[0].ends_with(&said), "{asked:?}");
    assert_eq!(process.acknowledge(200), Vec::<Vec<_>>::new(), "it is said once");
    process.answer(leader);
    process.turn();
    let asked = process.questions(leader);
    assert!(asked.len() == 1 && !asked[0].contains("&applied="), "{asked:?}");
}

#[test]
fn what_a_feed_request_said_that_was_not_answered_is_said_again() {
    let (mut process, leader) = acknowledged_and_changed(3);
    process.wake();
    let (number, _) = process.workers[leader].host.calls.borrow_mut().pop_front().unwrap();
    let worker = &mut process.workers[leader];
    worker.source.answered(&worker.host, worker.root, number, CallAnswer { headers: Vec::new(), body: Vec::new() });
    let said = process.acknowledge(200);
    let revision = process.control_plane.position.revision.0;
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        said[0].iter().map(|(_, applied, ended)| (*applied, *ended)).collect::<Vec<_>>(),
        [(revision, false); 3]
    );
    assert_eq!(process.acknowledge(200), Vec::<Vec<_>>::new(), "it is said once");
}

#[test]
fn a_worker_that_hangs_keeps_no_question_back_for_longer_than_a_tick() {
    let mut process = Process::new(3);
    process.settle();
    while !process.acknowledge(200).is_empty() {}
    let leader = process.leader();
    let hangs = (leader + 1) % 3;
    process.workers[hangs].runs = false;
    process.revoke(1);
    process.answer(leader);
    process.wake();
    assert_eq!(process.questions(leader), Vec::<String>::new());
    process.advance(TICK_MS);
    process.tick(leader);
    let asked = process.questions(leader);
    assert!(asked.len() == 1 && !asked[0].contains("&applied="), "{asked:?}");
    let revisions = |said: &[Vec<(String, u64, bool)>]| said.iter().flatten().map(|(_, at, _)| *at).collect::<Vec<_>>();
    let revision = process.control_plane.position.revision.0;
    let mut said = revisions(&process.acknowledge(200));
    said.sort_unstable();
    assert_eq!(said, [revision - 1, revision, revision], "who has what is said all the same");
    process.workers[hangs].runs = true;
    process.settle();
    assert_eq!(revisions(&process.acknowledge(200)), [revision; 3]);
}

/// A revocation may be behind what an import brought just now.
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
        assert_eq!(process.questions(leader).is_empty(), waits, "{ahead} revisions are left");
    }
}

#[test]
fn what_was_not_taken_is_said_again() {
    let mut process = Process::new(2);
    process.settle();
    (0..3).for_each(|_| drop(process.acknowledge(503)));
    process.turn();
    assert_eq!(process.acknowledge(503), Vec::<Vec<_>>::new(), "not at once");
    (0..10).for_each(|_| process.turn());
    assert_eq!(process.acknowledge(200).len(), 1);
}

#[test]
fn a_worker_that_is_gone_is_named_ended_until_that_was_taken_and_comes_back_as_another() {
    let mut process = Process::new(3);
    process.settle();
    while !process.acknowledge(200).is_empty() {}
    let held = process.a_follower_stops();
    (0..45).for_each(|_| process.turn());
    let said = process.acknowledge(200).pop().expect("something has changed");
    let gone: Vec<_> = said.iter().filter(|(_, _, ended)| *ended).map(|(id, _, _)| id.clone()).collect();
    assert_eq!((said.len(), gone.len()), (3, 1));
    let next = process.acknowledge(200).pop().expect("the list is another one now");
    assert!(next.iter().all(|(id, _, _)| *id != gone[0]));

    process.workers[held].runs = true;
    process.settle();
    (0..10).for_each(|_| process.turn());
    let said = process.acknowledge(200).pop().expect("a worker came");
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|(id, _, ended)| *id != gone[0] && !ended), "it is another one now: {said:?}");
}

/// An old acknowledgement that came late has brought it back there, after it was told that it has ended.
#[test]
fn a_worker_that_the_control_plane_counts_and_nobody_knows_is_named_ended() {
    let mut process = Process::new(3);
    process.settle();
    while !process.acknowledge(200).is_empty() {}
    let living = |said: &[(String, u64, bool)]| said.iter().filter(|(_, _, ended)| !ended).count();
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    process.revoke(1);
    process.settle();
    (0..110).for_each(|_| process.turn());
    let refused = [header(":status", "409"), header("latchkey-missing-worker", "forgotten")];
    let said = process.answer_acknowledgements(&refused).pop().expect("it is said now and then");
    assert_eq!((said.len(), living(&said)), (3, 3));
    (0..11).for_each(|_| process.turn());
    let said = process.acknowledge(200).pop().expect("it is said again");
    assert!(said.contains(&("forgotten".to_owned(), 0, true)), "{said:?}");
    assert_eq!((said.len(), living(&said)), (4, 3));
    let said = process.acknowledge(200).pop().expect("the list is another one now");
    assert_eq!((said.len(), living(&said)), (3, 3), "{said:?}");

    // A worker that lives is not taken for one that has ended.
    let named = [header(":status", "409"), header("latchkey-missing-worker", &said[0].0)];
    process.revoke(2);
    process.settle();
    (0..110).for_each(|_| process.turn());
    process.answer_acknowledgements(&named).pop().expect("it is said now and then");
    (0..11).for_each(|_| process.turn());
    let said = process.acknowledge(200).pop().expect("it is said again");
    assert_eq!((said.len(), living(&said)), (3, 3), "{said:?}");
}

#[test]
fn a_retired_instance_decides_nothing_before_it_was_heard_under_another_id() {
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
    assert_eq!(process.know(1), vec![None; 3], "the control plane counts this instance no more");
    // Whoever retired it has time to end it before it is somebody else.
    (0..55).for_each(|_| process.turn());
    assert_eq!((process.know(1), process.instances()), (vec![None; 3], Vec::new()));
    (0..30).for_each(|_| process.turn());
    assert_eq!(process.know(1), vec![Some(true); 3]);
    assert_ne!(process.instances(), before);
}

/// It has no head to look at: only the control plane can say what it missed.
#[test]
fn a_worker_that_asks_by_itself_and_was_held_up_asks_anew_before_it_decides() {
    let mut process = Process::with(3, Feed::Worker, "latchkey");
    process.settle();
    (0..10).for_each(|_| process.turn());
    while !process.acknowledge(200).is_empty() {}
    // Its last answer lies unread in its socket.
    process.advance(TICK_MS);
    process.tick(1);
    let old = process.workers[1].host.calls.borrow_mut().pop_front().unwrap();
    let answer = answer_of(&process.control_plane, &old.1);
    process.workers[1].runs = false;
    process.revoke(1);
    let mut said = Vec::new();
    for _ in 0..45 {
        process.turn();
        said.extend(process.acknowledge(200).into_iter().flatten());
    }
    assert!(
        said.iter().any(|(_, _, ended)| *ended),
        "the others say that it has ended, so for the control plane it denies"
    );

    let held = &mut process.workers[1];
    held.runs = true;
    assert_eq!(held.knows(&secret(1)), None, "a request comes first");
    assert!(!held.source.catches_up(&held.host));
    assert_eq!(held.knows(&secret(1)), None);
    held.source.answered(&held.host, held.root, old.0, answer);
    assert_eq!(held.knows(&secret(1)), None, "what it asked before says nothing of now");
    process.settle();
    assert_eq!(process.know(1), vec![Some(false); 3]);
}
