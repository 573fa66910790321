//! Whether a change is enforced: by acknowledgements and by time, and never by a forged message.

use std::time::Duration;

use axum::http::Method;
use policy::Position;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::Level;

use crate::captured_log::CapturedLog;
use crate::harness::{Answer, EDGE, Service};
use crate::waiting::until_equal;

/// An acknowledgement of instance `i1` of `edge-1`, whose workers all have this revision.
fn acknowledgement(service: &Service, applied: u64, workers: &[&str]) -> Value {
    let epoch = service.store.head().borrow().epoch.to_string();
    let worker = |id: &&str| json!({"id": id, "applied": applied, "started_at": 1_795_420_800});
    let workers: Vec<_> = workers.iter().map(worker).collect();
    json!({"edge": "edge-1", "instance": "i1", "epoch": epoch, "version": "0.1.0", "max_staleness_secs": 60, "workers": workers})
}

impl Service {
    async fn poll_edge(&self, edge: &str, instance: &str, bound: &str) -> Answer {
        let path = format!("/edge/v1/feed?format=1&edge={edge}&instance={instance}&max_staleness={bound}");
        self.edge(&path).await
    }

    async fn acknowledge(&self, body: Value) -> Answer {
        self.call_as(EDGE, Method::POST, "/edge/v1/acknowledgements", body, &[]).await
    }

    /// `i1` with two workers, at the head.
    async fn with_an_edge(&self) {
        assert_eq!(self.poll_edge("edge-1", "i1", "60").await.status, 200);
        let answer = self.acknowledge(acknowledgement(self, self.revision(), &["0", "1"])).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Whether the newest revision is enforced, the state of the first edge, and the time that bounds it.
    async fn enforcement(&self) -> (bool, Value, Value) {
        let answer = self.get("/v1/enforcement").await.json();
        let state = answer["edges"][0]["state"].clone();
        (answer["enforced"].as_bool().unwrap(), state, answer["bounded_at"].clone())
    }
}

#[tokio::test]
async fn without_an_edge_nothing_is_enforced() {
    let service = Service::start().await;
    assert_eq!(service.enforcement().await, (false, Value::Null, json!("never")));
    let workspace = json!({"name": "Acme", "slug": "acme"});
    let made = service.call_with(Method::POST, "/v1/workspaces", workspace, &[("prefer", "wait=60")]);
    let made = timeout(Duration::from_secs(30), made).await.expect("an answer at once: there is nobody to wait for");
    assert_eq!((made.status.as_u16(), made.header("preference-applied")), (201, Some("wait=60")));
    let outcome = made.header("latchkey-enforcement").unwrap();
    assert!(outcome.starts_with("enforced=false, edges=0, workers=0, disconnected=0, elapsed_ms="), "{outcome}");
    assert!(outcome.ends_with(", bounded_at=never"), "{outcome}");
}

#[tokio::test]
async fn an_instance_is_behind_from_its_first_request_until_it_acknowledged() {
    let service = Service::start().await;
    service.poll_edge("edge-1", "i1", "60").await;
    assert_eq!(service.enforcement().await, (false, json!("behind"), json!("2026-11-23T08:01:01Z")));
    let answer = service.acknowledge(acknowledgement(&service, service.revision(), &["0", "1"])).await;
    let head = *service.store.head().borrow();
    let expected =
        json!({"epoch": head.epoch.to_string(), "head": head.revision.0, "chain_hash": head.head.to_string()});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
    assert!(answer.header("latchkey-time").is_some());
    assert_eq!(service.enforcement().await, (true, json!("current"), Value::Null));
    service.workspace("acme").await;
    assert!(!service.enforcement().await.0);
}

#[tokio::test]
async fn one_worker_that_is_behind_is_enough() {
    let service = Service::start().await;
    service.with_an_edge().await;
    service.workspace("acme").await;
    let mut body = acknowledgement(&service, service.revision(), &["0", "1"]);
    body["workers"][1]["applied"] = json!(service.revision() - 1);
    assert_eq!(service.acknowledge(body.clone()).await.status, 200);
    assert!(!service.enforcement().await.0);
    body["workers"][1]["ended"] = json!(true);
    assert_eq!(service.acknowledge(body).await.status, 200);
    assert!(service.enforcement().await.0);
}

#[tokio::test]
async fn a_change_that_waits_is_answered_when_the_last_worker_has_it() {
    let service = Service::start().await;
    service.with_an_edge().await;
    let next = service.revision() + 1;
    let body = json!({"name": "Acme", "slug": "acme"});
    let prefer = [("prefer", "wait=60")];
    let (made, ()) = tokio::join!(service.call_with(Method::POST, "/v1/workspaces", body, &prefer), async {
        let mut head = service.store.head();
        head.wait_for(|head| head.revision.0 == next).await.unwrap();
        service.acknowledge(acknowledgement(&service, next, &["0", "1"])).await;
    });
    let outcome = made.header("latchkey-enforcement").unwrap();
    assert!(outcome.starts_with("enforced=true, edges=1, workers=2, disconnected=0, elapsed_ms="), "{outcome}");
    assert!(!outcome.contains("bounded_at"), "{outcome}");
    let shows = async |name: &str, expected: &str| {
        let value = async || {
            let text = service.get("/metrics").await.text();
            text.lines().find_map(|line| line.strip_prefix(&format!("latchkey_{name} ")).map(str::to_owned))
        };
        until_equal(name, Some(expected.to_owned()), value).await;
    };
    // It is measured outside the request. Of changes in quick succession only the last one is measured.
    shows("time_to_enforced_seconds_count", "1").await;
    let plain = service.post("/v1/workspaces", json!({"name": "Other", "slug": "other"})).await;
    assert_eq!(plain.header("latchkey-enforcement"), None);
    shows("edges{state=\"behind\"}", "1").await;
    shows("edges_worst_lag", "1").await;
}

#[tokio::test]
async fn a_silent_instance_is_disconnected_and_after_its_bound_it_denies_by_itself() {
    let service = Service::start().await;
    service.with_an_edge().await;
    service.workspace("acme").await;
    // Bounds are measured by the monotonic clock, which nobody can set.
    service.set_wall_forward(3_600);
    assert_eq!(service.enforcement().await.1, json!("behind"));
    service.advance(31);
    assert_eq!(service.enforcement().await, (false, json!("disconnected"), json!("2026-11-23T09:01:01Z")));
    service.advance(29);
    assert!(!service.enforcement().await.0);
    service.advance(1);
    assert_eq!(service.enforcement().await, (true, json!("stale"), Value::Null));
    // It is back, but hasn't acknowledged the change.
    service.poll_edge("edge-1", "i1", "60").await;
    assert_eq!(service.enforcement().await.1, json!("behind"));
}

#[tokio::test]
async fn the_largest_bound_that_was_named_counts() {
    let service = Service::start().await;
    service.with_an_edge().await;
    service.poll_edge("edge-1", "i1", "600").await;
    service.poll_edge("edge-1", "i1", "10").await;
    service.workspace("acme").await;
    service.advance(599);
    assert_eq!(service.enforcement().await.1, json!("disconnected"));
    let service = service.restart().await;
    service.advance(599);
    assert_eq!(service.enforcement().await.1, json!("disconnected"));
    service.advance(2);
    assert!(service.enforcement().await.0);
    service.poll_edge("edge-1", "i1", "never").await;
    service.advance(1_000_000);
    assert_eq!(service.enforcement().await, (false, json!("disconnected"), json!("never")));
}

#[tokio::test]
async fn after_a_restart_nothing_is_enforced_until_each_instance_has_reported_or_passed_its_bound() {
    let service = Service::start().await;
    service.with_an_edge().await;
    service.poll_edge("edge-2", "i2", "60").await;
    let service = service.restart().await;
    assert!(!service.enforcement().await.0);
    assert_eq!(service.get("/v1/edges").await.json()["items"].as_array().unwrap().len(), 2);
    let lacking = service.acknowledge(acknowledgement(&service, service.revision(), &["0"])).await;
    assert_eq!((lacking.code().as_str(), lacking.header("latchkey-missing-worker")), ("missing-worker", Some("1")));
    service.acknowledge(acknowledgement(&service, service.revision(), &["0", "1"])).await;
    assert!(!service.enforcement().await.0);
    service.advance(61);
    assert!(service.enforcement().await.0);
}

#[tokio::test]
async fn a_forged_acknowledgement_changes_nothing_and_is_logged() {
    let (logged, _guard) = CapturedLog::of_this_thread();
    let service = Service::start().await;
    service.with_an_edge().await;
    let token = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "edge-2"})).await.json();
    let other = token["secret"].as_str().unwrap();
    let before = service.get("/v1/edges").await.json();
    let right = acknowledgement(&service, service.revision(), &["0", "1"]);
    let with = |field: &str, value: Value| {
        let mut body = right.clone();
        body[field] = value;
        body
    };
    let mut warnings_before = logged.lines(Level::WARN).len();
    for (name, token, body, status, code) in [
        ("a token of another edge", other, right.clone(), 403, "wrong-edge"),
        ("another edge's name", EDGE, with("edge", json!("edge-2")), 403, "foreign-instance"),
        ("both", other, with("edge", json!("edge-2")), 403, "foreign-instance"),
        ("an unknown instance", EDGE, with("instance", json!("i9")), 404, "unknown-instance"),
        ("an unknown epoch", EDGE, with("epoch", json!("0".repeat(32))), 409, "unknown-epoch"),
        ("past the head", EDGE, acknowledgement(&service, service.revision() + 1, &["0", "1"]), 409, "revision-ahead"),
        ("without a worker", EDGE, acknowledgement(&service, service.revision(), &["0"]), 409, "missing-worker"),
        (
            "a worker twice",
            EDGE,
            acknowledgement(&service, service.revision(), &["0", "0", "1"]),
            422,
            "bad-acknowledgement",
        ),
        ("no list", EDGE, with("workers", Value::Null), 422, "bad-acknowledgement"),
        ("a bad name", EDGE, with("instance", json!("a/b")), 422, "bad-acknowledgement"),
        ("no token", "lkedge_wrong", right.clone(), 401, "bad-token"),
    ] {
        let answer = service.call_as(token, Method::POST, "/edge/v1/acknowledgements", body, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{name}");
        assert_eq!(service.get("/v1/edges").await.json(), before, "{name}");
        let warnings = logged.lines(Level::WARN);
        // A body that can't be read names no instance, and wrong tokens are counted together.
        let is_logged =
            warnings.len() > warnings_before && warnings.iter().skip(warnings_before).any(|line| line.contains(code));
        assert_eq!(is_logged, status != 422 && status != 401, "{name}: {warnings:#?}");
        warnings_before = warnings.len();
    }
    // Its feed can't be requested under another edge's name either.
    assert_eq!(service.poll_edge("edge-2", "i1", "60").await.code(), "foreign-instance");
}

#[tokio::test]
async fn an_instance_that_retired_counts_no_more_and_its_feed_is_gone() {
    let service = Service::start().await;
    service.with_an_edge().await;
    service.poll_edge("edge-1", "i2", "60").await;
    let retire = async |token: &str, id: &str| {
        service.call_as(token, Method::DELETE, &format!("/edge/v1/instances/{id}"), Value::Null, &[]).await
    };
    let token = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "edge-2"})).await.json();
    assert_eq!(retire(token["secret"].as_str().unwrap(), "i2").await.code(), "wrong-edge");
    assert_eq!(retire(EDGE, "i9").await.code(), "unknown-instance");
    // The waiting request ends with the instance: until it does, the edge decides by a table that isn't counted.
    let Position { epoch, revision, head } = *service.store.head().borrow();
    let from = format!("epoch={epoch}&since={}&head={head}&max_staleness=60&wait=20", revision.0);
    let path = format!("/edge/v1/feed?format=1&edge=edge-1&instance=i2&{from}");
    let both = async { tokio::join!(biased; service.edge(&path), retire(EDGE, "i2")) };
    let (waited, retired) =
        timeout(Duration::from_secs(10), both).await.expect("no request waits for what has retired");
    assert_eq!((waited.code().as_str(), retired.status.as_u16()), ("retired-instance", 204));
    assert_eq!(retire(EDGE, "i2").await.status, 204);
    service.acknowledge(acknowledgement(&service, service.revision(), &["0", "1"])).await;
    assert!(service.enforcement().await.0);
    let service = service.restart().await;
    let gone = service.poll_edge("edge-1", "i2", "60").await;
    assert_eq!((gone.status.as_u16(), gone.code().as_str()), (410, "retired-instance"));
}

#[tokio::test]
async fn a_feed_request_can_say_what_every_worker_has_applied() {
    let service = Service::start().await;
    service.with_an_edge().await;
    service.workspace("acme").await;
    let head = *service.store.head().borrow();
    let poll = async |instance: &str, epoch: String, applied: u64| {
        let path = format!("/edge/v1/feed?format=1&edge=edge-1&instance={instance}&max_staleness=60&epoch={epoch}");
        let path = format!("{path}&since={}&head={}&wait=0&applied={applied}", head.revision, head.head);
        assert!(service.edge(&path).await.status.is_success());
    };
    let (epoch, revision) = (head.epoch.to_string(), head.revision.0);
    for (name, epoch, applied) in [
        ("less than all", epoch.clone(), revision - 1),
        ("what isn't there yet", epoch.clone(), revision + 1),
        ("another epoch's", "0".repeat(32), revision),
    ] {
        poll("i1", epoch, applied).await;
        assert!(!service.enforcement().await.0, "{name}");
    }
    poll("i1", epoch.clone(), revision).await;
    assert_eq!(service.enforcement().await, (true, json!("current"), Value::Null));
    // The workers of an instance that never reported them aren't known.
    poll("i2", epoch.clone(), revision).await;
    assert!(!service.enforcement().await.0);
    let service = service.restart().await;
    let retired = service.call_as(EDGE, Method::DELETE, "/edge/v1/instances/i2", Value::Null, &[]).await;
    assert_eq!((retired.status.as_u16(), service.enforcement().await.0), (204, false));
    let path = format!("/edge/v1/feed?format=1&edge=edge-1&instance=i1&max_staleness=60&epoch={epoch}&wait=0");
    service.edge(&format!("{path}&since={revision}&head={}&applied={revision}", head.head)).await;
    assert!(service.enforcement().await.0, "its workers are on disk, and this is their word");
}

#[tokio::test]
async fn an_instance_that_retires_counts_until_it_surely_denies() {
    let service = Service::start().await;
    service.with_an_edge().await;
    service.poll_edge("edge-1", "i2", "60").await;
    let retire = async |id: &str| {
        let path = format!("/edge/v1/instances/{id}");
        service.call_as(EDGE, Method::DELETE, &path, Value::Null, &[]).await.status
    };
    let count = async || service.get("/v1/edges").await.json()["items"].as_array().unwrap().len();
    let deleting = async { (retire("i1").await.as_u16(), count().await) };
    let meanwhile = async {
        let gone = service.poll_edge("edge-1", "i1", "60").await;
        assert_eq!((gone.code().as_str(), gone.header("latchkey-time").is_some()), ("retired-instance", true));
        assert_eq!(count().await, 2);
    };
    let (deleted, ()) = tokio::join!(biased; deleting, meanwhile);
    assert_eq!(deleted, (204, 1), "it counts no more when this is answered");
    // Waiting for a silent instance wouldn't bring more information.
    service.advance(31);
    let at_once = timeout(Duration::from_secs(2), retire("i2")).await.expect("an answer at once");
    assert_eq!(at_once, 204);
}

#[tokio::test]
async fn an_operator_can_say_that_an_instance_is_gone_but_not_while_it_is_connected() {
    let service = Service::start().await;
    service.with_an_edge().await;
    assert_eq!(service.delete("/v1/edges/i1").await.code(), "edge-connected");
    assert_eq!(service.delete("/v1/edges/i9").await.code(), "unknown-instance");
    service.advance(31);
    let removed = service.delete("/v1/edges/i1").await;
    assert_eq!((removed.status.as_u16(), removed.revision()), (204, service.revision()));
    let event = &service.get("/v1/audit-events?limit=1").await.json()["items"][0];
    assert_eq!((&event["action"], &event["target"]["id"]), (&json!("instance.remove"), &json!("i1")));
    assert_eq!(service.enforcement().await, (false, Value::Null, json!("never")));
    assert_eq!(service.poll_edge("edge-1", "i1", "60").await.status, 410);
    assert_eq!(service.delete("/v1/edges/i1").await.code(), "unknown-instance");
}

#[tokio::test]
async fn silent_instances_are_forgotten_after_a_day_or_their_bound() {
    let service = Service::start().await;
    service.poll_edge("edge-1", "short", "60").await;
    service.poll_edge("edge-1", "long", "172800").await;
    service.poll_edge("edge-1", "endless", "never").await;
    let names = async || {
        let page = service.get("/v1/edges").await.json();
        let items = page["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["instance"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    service.advance(86_000);
    service.sweep().await;
    assert_eq!(names().await, ["endless", "long", "short"]);
    service.advance(1_000);
    service.sweep().await;
    assert_eq!(names().await, ["endless", "long"]);
    service.advance(172_800);
    service.sweep().await;
    assert_eq!(names().await, ["endless"]);
    let service = service.restart().await;
    assert_eq!(service.get("/v1/edges").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn enforcement_is_reported_only_for_revisions_that_exist() {
    let service = Service::start().await;
    service.with_an_edge().await;
    let head = service.revision();
    assert_eq!(service.get(&format!("/v1/enforcement?revision={}", head + 1)).await.code(), "unknown-revision");
    assert_eq!(service.get("/v1/enforcement?wait=61").await.fields(), ["wait out-of-range"]);
    let (_, member) = service.token("platform_admin", None).await;
    let answer = service
        .call_as(&member, Method::GET, &format!("/v1/enforcement?revision={head}&wait=60"), Value::Null, &[])
        .await;
    assert_eq!(answer.json()["enforced"], json!(true));
    let edge = &answer.json()["edges"][0];
    assert_eq!((&edge["edge"], &edge["instance"], &edge["lag"]), (&json!("edge-1"), &json!("i1"), &json!(0)));
    assert_eq!(edge["workers"][1], json!({"id": "1", "applied": head, "started_at": "2026-11-23T08:00:00Z"}));
}
