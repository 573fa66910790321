//! Enforcement over several control planes on one PostgreSQL: none of them reports it too early.
//!
//! Without LATCHKEY_TEST_DATABASE=postgres there is no server, and these tests do nothing.

use std::sync::Arc;

use axum::http::Method;
use latchkey::base::config::Config;
use latchkey::base::entropy::Entropy;
use policy::Position;
use serde_json::{Value, json};

use crate::database_proxy::DatabaseProxy;
use crate::harness::{Answer, EDGE, Service};
use crate::postgres::{replica, url};
use crate::waiting::until;
use test_support::databases::{is_postgres, on_server};

impl Service {
    /// A feed request of an instance.
    async fn poll_as_instance(&self, instance: &str, bound: &str, from: Option<Position>, wait: u32) -> Answer {
        let mut path =
            format!("/edge/v1/feed?format=1&edge=edge-1&instance={instance}&max_staleness={bound}&wait={wait}");
        if let Some(Position { epoch, revision, head }) = from {
            path.push_str(&format!("&epoch={epoch}&since={revision}&head={head}"));
        }
        self.edge(&path).await
    }

    /// A feed request that is answered immediately, of an instance that has applied everything up to this position.
    async fn applies(&self, instance: &str, Position { epoch, revision, head }: Position) {
        let path = format!(
            "/edge/v1/feed?format=1&edge=edge-1&instance={instance}&max_staleness=60&wait=0&epoch={epoch}&since={revision}\
             &head={head}&applied={revision}"
        );
        let answer = self.edge(&path).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    async fn acknowledge_from(&self, instance: &str, bound: u64, applied: u64, workers: &[&str]) -> Answer {
        self.acknowledge_with_ended(instance, bound, applied, workers, &[]).await
    }

    /// The same, with workers that ended.
    async fn acknowledge_with_ended(
        &self,
        instance: &str,
        bound: u64,
        applied: u64,
        workers: &[&str],
        ended: &[&str],
    ) -> Answer {
        let epoch = self.store.head().borrow().epoch.to_string();
        let worker =
            |(id, has_ended)| json!({"id": id, "applied": applied, "started_at": 1_795_420_800, "ended": has_ended});
        let workers = workers.iter().map(|id| (id, false)).chain(ended.iter().map(|id| (id, true)));
        let workers: Vec<_> = workers.map(worker).collect();
        let body = json!({"edge": "edge-1", "instance": instance, "epoch": epoch, "version": "0.1.0",
            "max_staleness_secs": bound, "workers": workers});
        self.call_as(EDGE, Method::POST, "/edge/v1/acknowledgements", body, &[]).await
    }

    /// An instance with one worker, at the head.
    async fn connect_instance(&self, instance: &str, bound: u64) {
        assert_eq!(self.poll_as_instance(instance, &bound.to_string(), None, 0).await.status, 200);
        let acknowledged = self.acknowledge_from(instance, bound, self.revision(), &["0"]).await;
        assert_eq!(acknowledged.status, 200, "{}", acknowledged.text());
    }

    /// Whether a revision is enforced, and the instances that count.
    async fn enforced(&self, revision: u64) -> (bool, usize) {
        let answer = self.get(&format!("/v1/enforcement?revision={revision}")).await;
        // A revision that doesn't exist yet isn't enforced.
        let is_there = answer.status == 200;
        let answer = answer.json();
        (is_there && answer["enforced"] == true, answer["edges"].as_array().map_or(0, Vec::len))
    }

    /// Workers of the first instance.
    async fn workers(&self) -> usize {
        self.get("/v1/edges").await.json()["items"][0]["workers"].as_array().map_or(0, Vec::len)
    }

    fn position(&self) -> Position {
        *self.store.head().borrow()
    }
}

/// Two control planes on one database.
pub(crate) async fn two() -> Option<(Service, Service)> {
    if !is_postgres() {
        return None;
    }
    let first = Service::start().await;
    let second = replica(&first).await;
    Some((first, second))
}

#[tokio::test]
async fn an_edge_that_asks_one_replica_counts_in_what_another_answers() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    until("the other replica knows", async || second.enforced(second.revision()).await == (true, 1)).await;
    for round in 0..10 {
        let next = second.revision() + 1;
        let body = json!({"name": "Acme", "slug": format!("acme-{round}")});
        let prefer = [("prefer", "wait=60")];
        let (made, ()) = tokio::join!(second.call_with(Method::POST, "/v1/workspaces", body, &prefer), async {
            for replica in [&first, &second] {
                replica.store.head().wait_for(|head| head.revision.0 == next).await.unwrap();
            }
            assert_eq!(second.enforced(next).await, (false, 1));
            first.acknowledge_from("i1", 60, next, &["0"]).await;
        });
        let outcome = made.header("latchkey-enforcement").unwrap();
        assert!(outcome.starts_with("enforced=true, edges=1, workers=1, disconnected=0, "), "{outcome}");
    }
}

#[tokio::test]
async fn workers_that_differ_and_come_and_go_at_either_replica_are_known_to_both() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    let head = first.revision();
    assert_eq!(second.acknowledge_from("i1", 60, head, &["0", "1"]).await.status, 200);
    let lacking = first.acknowledge_from("i1", 60, head, &["0", "2"]).await;
    assert_eq!(lacking.code(), "missing-worker", "the first has never seen that one");
    assert_eq!(first.acknowledge_from("i1", 60, head, &["0", "1", "2"]).await.status, 200);
    assert_eq!(second.acknowledge_from("i1", 60, head, &["1"]).await.code(), "missing-worker");
    until("the other replica knows of three", async || second.workers().await == 3).await;
    assert_eq!(second.enforced(head).await, (true, 1));
}

#[tokio::test]
async fn the_end_of_a_worker_is_kept_by_a_replica_that_never_knew_it() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    let head = first.revision();
    for round in 1..=10 {
        let other = round.to_string();
        assert_eq!(second.acknowledge_from("i1", 60, head, &["0", &other]).await.status, 200);
        assert_eq!(first.acknowledge_with_ended("i1", 60, head, &["0"], &[&other]).await.status, 200);
        let acknowledged = second.acknowledge_from("i1", 60, head, &["0"]).await;
        assert_eq!(acknowledged.status, 200, "round {round}: {}", acknowledged.text());
    }
}

#[tokio::test]
async fn a_change_that_one_replica_answered_is_known_to_every_replica() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    for round in 0..50 {
        first.workspace(&format!("acme-{round}")).await;
        let revision = first.revision();
        // Immediately, by its number or as the newest.
        let path = if round % 2 == 0 { format!("?revision={revision}") } else { String::new() };
        let answer = second.get(&format!("/v1/enforcement{path}")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["revision"]), (200, &json!(revision)));
    }
}

#[tokio::test]
async fn an_acknowledgement_that_could_not_be_written_is_written_when_it_is_repeated() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    let (head, epoch) = (first.revision(), first.position().epoch.to_string());
    let worker = |id, ended| json!({"id": id, "applied": head, "started_at": 1_795_420_800, "ended": ended});
    let body = json!({"edge": "edge-1", "instance": "i1", "epoch": epoch, "version": "0.1.0", "max_staleness_secs": 60,
        "workers": [worker("0", true), worker("1", false)]});
    let acknowledge =
        async || first.call_as(EDGE, Method::POST, "/edge/v1/acknowledgements", body.clone(), &[]).await.status;
    let (locked, is_locked) = std::sync::mpsc::channel::<()>();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let server = url(&first);
    let holder = std::thread::spawn(move || {
        on_server(&server, move |server| {
            let mut transaction = server.transaction().unwrap();
            transaction.execute("SELECT 1 FROM position FOR UPDATE", &[]).unwrap();
            locked.send(()).unwrap();
            released.recv().unwrap();
        });
    });
    is_locked.recv().unwrap();
    assert_eq!(acknowledge().await, 503, "nobody can write");
    release.send(()).unwrap();
    holder.join().unwrap();
    assert_eq!(acknowledge().await, 200);
    let seen = second.acknowledge_from("i1", 60, head, &["1"]).await;
    assert_eq!(seen.status, 200, "the other one knows that `0` has ended: {}", seen.text());
}

#[tokio::test]
async fn a_new_instance_is_counted_by_all_or_gets_what_was_reported_as_enforced() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i0", 60).await;
    for round in 1..=25 {
        let name = format!("i{round}");
        let body = json!({"name": "Acme", "slug": format!("acme-{round}")});
        let changes = async {
            let revision = second.post("/v1/workspaces", body).await.revision();
            for known in 0..round {
                second.acknowledge_from(&format!("i{known}"), 60, revision, &["0"]).await;
            }
            (revision, second.enforced(revision).await)
        };
        let ((revision, (is_enforced, known)), answer) =
            tokio::join!(changes, first.poll_as_instance(&name, "60", None, 0));
        let head: u64 = answer.header("latchkey-head").unwrap().parse().unwrap();
        assert!(!is_enforced || known == round && head >= revision, "{name}: {head} of {revision}, {known} known");
        let counts = async || second.enforced(revision).await == (false, round + 1);
        until("it counts, and is behind until it acknowledged", counts).await;
        first.acknowledge_from(&name, 60, first.revision(), &["0"]).await;
    }
}

#[tokio::test]
async fn a_silent_instance_that_counted_as_denying_gets_what_was_reported_as_enforced() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    let before = first.position();
    until("the other replica has read all that was written", async || second.workers().await == 1).await;
    for replica in [&first, &second] {
        replica.advance(60);
    }
    let revision = second.post("/v1/workspaces", json!({"name": "Acme", "slug": "acme"})).await.revision();
    assert!(!second.enforced(revision).await.0, "the first may have answered it after it was written");
    for replica in [&first, &second] {
        replica.advance(16);
    }
    assert!(second.enforced(revision).await.0);
    // The instance was still alive.
    let outcome = first.poll_as_instance("i1", "60", Some(before), 0).await;
    assert_eq!((outcome.status.as_u16(), outcome.header("latchkey-head")), (200, Some(revision.to_string().as_str())));
    let revision = second.post("/v1/workspaces", json!({"name": "Other", "slug": "other"})).await.revision();
    assert!(!second.enforced(revision).await.0, "it polled the first");
}

#[tokio::test]
async fn an_edge_with_a_newer_revision_than_a_replica_knows_gets_nothing_older() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    for round in 0..20 {
        first.workspace(&format!("acme-{round}")).await;
        // The instance got the change from the first replica.
        let answer = second.poll_as_instance("i1", "60", Some(first.position()), 0).await;
        let head = answer.header("latchkey-head").unwrap();
        assert_eq!((answer.status.as_u16(), head), (204, first.revision().to_string().as_str()));
        let acknowledged = second.acknowledge_from("i1", 60, first.revision(), &["0"]).await;
        assert_eq!(acknowledged.status, 200, "{}", acknowledged.text());
        first.workspace(&format!("other-{round}")).await;
        let manifest = second.poll_as_instance("i2", "60", None, 0).await;
        assert_eq!(manifest.header("latchkey-head").unwrap(), first.revision().to_string());
    }
}

#[tokio::test]
async fn a_feed_request_acknowledges_what_its_replica_does_not_know_yet() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    until("the other replica knows", async || second.enforced(second.revision()).await == (true, 1)).await;
    let mut late = Vec::new();
    for round in 0..20 {
        first.workspace(&format!("acme-{round}")).await;
        let position = first.position();
        // The first has sent it the change, and its next request comes to the second, which learns of it from the
        // database.
        second.applies("i1", position).await;
        if second.enforced(position.revision.0).await != (true, 1) {
            late.push(position.revision.0);
        }
    }
    assert!(late.is_empty(), "all workers have these, but they are not reported as enforced: {late:?}");
}

#[tokio::test]
async fn an_instance_goes_from_one_replica_to_another_and_one_that_is_killed_holds_nothing_up() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    first.workspace("acme").await;
    second.acknowledge_from("i1", 60, first.revision(), &["0"]).await;
    until("the first knows what the second received", async || first.enforced(first.revision()).await == (true, 1))
        .await;
    // Neither released nor closed, as if it were killed.
    drop(first);
    let revision = second.post("/v1/workspaces", json!({"name": "Other", "slug": "other"})).await.revision();
    assert!(!second.enforced(revision).await.0);
    second.acknowledge_from("i1", 60, revision, &["0"]).await;
    assert!(second.enforced(revision).await.0);
}

#[tokio::test]
async fn an_instance_that_retires_at_one_replica_is_answered_by_the_one_that_it_waits_at() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    first.connect_instance("i2", 60).await;
    let revision = second.post("/v1/workspaces", json!({"name": "Acme", "slug": "acme"})).await.revision();
    first.acknowledge_from("i1", 60, revision, &["0"]).await;
    first.store.head().wait_for(|head| head.revision.0 == revision).await.unwrap();
    let waits = first.poll_as_instance("i2", "60", Some(first.position()), 20);
    let retires = second.call_as(EDGE, Method::DELETE, "/edge/v1/instances/i2", Value::Null, &[]);
    let (outcome, retired) = tokio::join!(waits, async {
        let (retired, ()) = tokio::join!(retires, async {
            until("it counts until it has its answer", async || second.enforced(revision).await == (false, 2)).await;
        });
        retired
    });
    assert_eq!((outcome.status.as_u16(), retired.status.as_u16()), (410, 204));
    assert_eq!(second.enforced(revision).await, (true, 1));
    until("the first knows, too", async || first.enforced(revision).await == (true, 1)).await;
    assert_eq!(second.poll_as_instance("i2", "60", None, 0).await.code(), "retired-instance");
}

#[tokio::test]
async fn an_operator_can_not_remove_an_instance_that_another_replica_answers() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    assert_eq!(second.delete("/v1/edges/i1").await.code(), "edge-connected");
    second.advance(46);
    first.advance(46);
    first.poll_as_instance("i1", "60", None, 0).await;
    assert_eq!(second.delete("/v1/edges/i1").await.code(), "edge-connected", "it has polled the first since");
    for replica in [&first, &second] {
        replica.advance(46);
    }
    assert_eq!(second.delete("/v1/edges/i1").await.status, 204);
    assert_eq!(first.poll_as_instance("i1", "60", None, 0).await.code(), "retired-instance");
}

#[tokio::test]
async fn forged_messages_have_no_effect_and_lost_ones_are_repeated() {
    let Some((first, second)) = two().await else { return };
    first.connect_instance("i1", 60).await;
    let revision = first.post("/v1/workspaces", json!({"name": "Acme", "slug": "acme"})).await.revision();
    second.store.head().wait_for(|head| head.revision.0 == revision).await.unwrap();
    let epoch = first.position().epoch;
    let (other, ahead) = ("0".repeat(32), revision + 1);
    let words = [
        format!("x\napplied {other} {revision} i1"),
        format!("x\napplied {epoch} {ahead} i1"),
        format!("x\napplied {epoch} {} i1", revision - 1),
        format!("x\napplied {epoch} {revision} i9"),
        "applied\napplied".to_owned(),
    ];
    on_server(&url(&first), |server| {
        for word in &words {
            server.execute("SELECT pg_notify('latchkey_words', $1)", &[word]).unwrap();
        }
    });
    // The connections of both break, with everything in flight.
    let schema = url(&first).split_once("application_name=").unwrap().1.split('&').next().unwrap().to_owned();
    on_server(&url(&first), |server| {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = $1 AND pid <> pg_backend_pid()";
        server.query(cut, &[&schema]).unwrap();
    });
    assert!(!second.enforced(revision).await.0);
    // The acknowledgement is repeated until it arrives, whether or not the first replica learns of it again.
    until("it is acknowledged", async || first.acknowledge_from("i1", 60, revision, &["0"]).await.status == 200).await;
    until("the second knows", async || second.enforced(revision).await == (true, 1)).await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_vouches_for_nothing_and_serves_what_it_has() {
    if !is_postgres() {
        return;
    }
    let second = Service::start().await;
    let proxy = DatabaseProxy::to(&url(&second));
    let directory = Arc::clone(&second.directory);
    let first = Service::start_at(&proxy.url, directory, Config::default(), Entropy::system()).await;
    first.connect_instance("i1", 60).await;
    let before = first.position();
    first.workspace("acme").await;
    let has = first.poll_as_instance("i1", "60", Some(before), 0).await;
    assert_eq!(first.get("/readyz").await.status, 200);

    let head = first.position();
    let (waited, revision) = tokio::join!(first.poll_as_instance("i1", "60", Some(head), 20), async {
        proxy.cut();
        let made = second.post("/v1/workspaces", json!({"name": "Other", "slug": "other"})).await;
        made.revision()
    });
    assert_eq!((waited.status.as_u16(), waited.code().as_str()), (503, "storage-unavailable"));
    assert_eq!(first.get("/readyz").await.status, 503);
    assert_eq!(first.acknowledge_from("i1", 60, head.revision.0, &["0"]).await.status, 503);
    assert_eq!(
        first.poll_as_instance("i1", "60", Some(head), 0).await.status,
        503,
        "nobody knows whether it is the head"
    );
    let again = first.poll_as_instance("i1", "60", Some(before), 0).await;
    assert_eq!((again.status.as_u16(), &again.bytes), (200, &has.bytes), "it has that delta");
    assert_eq!(again.header("latchkey-head"), Some(u64::MAX.to_string().as_str()), "which makes no table fresh");
    assert!(!second.enforced(revision).await.0);
    let acknowledged = second.acknowledge_from("i1", 60, revision, &["0"]).await;
    assert_eq!((acknowledged.status.as_u16(), second.enforced(revision).await), (200, (true, 1)), "the edge moves on");

    proxy.reconnect();
    until("it is there again", async || first.get("/readyz").await.status == 200).await;
    until("it has caught up", async || first.enforced(revision).await == (true, 1)).await;
    assert_eq!(first.poll_as_instance("i1", "60", Some(second.position()), 0).await.status, 204);
}
