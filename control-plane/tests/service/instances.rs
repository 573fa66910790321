//! Instances of an edge token: how many there may be, and how they end with their token or by an operator.

use axum::http::Method;
use latchkey::base::config::{Config, Limits};
use policy::Position;
use serde_json::{Value, json};

use crate::captured_log::CapturedLog;
use crate::harness::{Answer, EDGE, Service};
use crate::postgres::replica;
use crate::replicas::two;
use crate::waiting::until;
use test_support::databases::{FILE, is_postgres};

/// A token that was made over REST, for requests to the feed.
struct CreatedEdgeToken {
    path: String,
    secret: String,
}

impl Service {
    async fn create_edge_token(&self, edge: &str) -> CreatedEdgeToken {
        let made = self.post("/v1/edge-tokens", json!({"name": "a gateway", "edge": edge})).await.json();
        let path = format!("/v1/edge-tokens/{}", made["token"]["id"].as_str().unwrap());
        CreatedEdgeToken { path, secret: made["secret"].as_str().unwrap().to_owned() }
    }

    async fn poll_as(&self, token: &str, instance: &str, bound: &str) -> Answer {
        let path = format!("/edge/v1/feed?format=1&edge=edge-1&instance={instance}&max_staleness={bound}");
        self.call_as(token, Method::GET, &path, Value::Null, &[]).await
    }

    async fn acknowledge_as(&self, token: &str, instance: &str, workers: &[&str]) -> Answer {
        let Position { epoch, revision, .. } = *self.store.head().borrow();
        let worker = |id: &&str| json!({"id": id, "applied": revision, "started_at": 1_795_420_800});
        let workers: Vec<_> = workers.iter().map(worker).collect();
        let body = json!({"edge": "edge-1", "instance": instance, "epoch": epoch.to_string(), "max_staleness_secs": 60, "workers": workers});
        self.call_as(token, Method::POST, "/edge/v1/acknowledgements", body, &[]).await
    }

    /// Whether the newest revision is enforced, and the instances that count.
    async fn counts(&self) -> (bool, usize) {
        let answer = self.get("/v1/enforcement").await.json();
        (answer["enforced"] == true, answer["edges"].as_array().unwrap().len())
    }

    async fn instance_ratio(&self) -> String {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix("latchkey_edge_token_instances_ratio "));
        line.unwrap_or_else(|| panic!("no ratio in\n{text}")).to_owned()
    }
}

async fn limited(instances_per_edge_token: u64) -> Service {
    let limits = Limits { instances_per_edge_token: Some(instances_per_edge_token), ..Limits::default() };
    Service::start_with(Config { limits, ..Config::default() }).await
}

fn assert_limit(answer: &Answer, status: u16, limit: &str, maximum: u64) {
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, "limit-reached"));
    let problem = answer.json();
    assert_eq!((&problem["limit"], &problem["maximum"]), (&json!(limit), &json!(maximum)));
}

#[tokio::test]
async fn a_made_token_has_a_thousand_connected_instances_and_the_start_token_more() {
    let service = Service::start().await;
    let token = service.create_edge_token("edge-1").await;
    for n in 0..1_000 {
        assert_eq!(service.poll_as(&token.secret, &format!("n{n}"), "60").await.status, 200);
    }
    let refused = service.poll_as(&token.secret, "one-more", "60").await;
    assert_limit(&refused, 429, "instances_per_edge_token", 1_000);
    assert_eq!(refused.header("retry-after"), Some("60"));
    // Known instances continue, and other tokens have limits of their own.
    assert_eq!(service.poll_as(&token.secret, "n7", "60").await.status, 200);
    assert_eq!(service.poll_as(EDGE, "one-more", "60").await.status, 200);
    let other = service.create_edge_token("edge-1").await;
    assert_eq!(service.poll_as(&other.secret, "two-more", "60").await.status, 200);
}

#[tokio::test]
async fn instances_that_acknowledge_an_empty_list_take_their_place_and_have_nothing() {
    let service = limited(3).await;
    for name in ["i1", "i2", "i3"] {
        assert_eq!(service.poll_as(EDGE, name, "60").await.status, 200);
        assert_eq!(service.acknowledge_as(EDGE, name, &[]).await.status, 200);
        assert!(!service.counts().await.0, "{name}");
    }
    let edges = service.get("/v1/edges").await.json();
    let state = |edge: &Value| (edge["state"].clone(), edge["applied"].clone());
    let states: Vec<_> = edges["items"].as_array().unwrap().iter().map(state).collect();
    assert_eq!(states, vec![(json!("behind"), Value::Null); 3]);
    assert_limit(&service.poll_as(EDGE, "i4", "60").await, 429, "instances_per_edge_token", 3);
    // After a restart it doesn't count as an acknowledgement either.
    let service = service.restart().await;
    if !is_postgres() {
        let file = rusqlite::Connection::open(service.directory.path().join(FILE)).unwrap();
        let acknowledged =
            file.query_row("SELECT count(*) FROM instances WHERE acknowledged = 1", [], |row| row.get(0));
        assert_eq!(acknowledged, Ok(0_i64));
    }
    let Position { epoch, revision, head } = *service.store.head().borrow();
    let path =
        format!("/edge/v1/feed?format=1&edge=edge-1&instance=i1&max_staleness=60&epoch={epoch}&since={revision}");
    assert_eq!(service.edge(&format!("{path}&head={head}&wait=0&applied={revision}")).await.status, 204);
    assert_eq!(service.counts().await, (false, 3));
}

#[tokio::test]
async fn silent_instances_have_room_of_their_own_and_retired_ones_need_none() {
    let service = limited(2).await;
    for round in 0..4 {
        for n in 0..2 {
            assert_eq!(service.poll_as(EDGE, &format!("r{round}-{n}"), "60").await.status, 200, "round {round}");
        }
        assert_eq!(service.poll_as(EDGE, "one-more", "60").await.status, 429, "two are connected");
        service.advance(31);
    }
    assert_limit(&service.poll_as(EDGE, "one-more", "60").await, 429, "instances_per_edge_token", 2);
    // An instance that retires makes room immediately.
    let retired = service.call_as(EDGE, Method::DELETE, "/edge/v1/instances/r0-0", Value::Null, &[]).await;
    assert_eq!((retired.status.as_u16(), service.poll_as(EDGE, "one-more", "60").await.status.as_u16()), (204, 200));
    let retire = async |name: &str| {
        service.advance(31);
        let path = format!("/edge/v1/instances/{name}");
        assert_eq!(service.call_as(EDGE, Method::DELETE, &path, Value::Null, &[]).await.status, 204, "{name}");
    };
    retire("one-more").await;
    for n in 0..20 {
        let name = format!("short-{n}");
        assert_eq!(service.poll_as(EDGE, &name, "60").await.status, 200, "{name}");
        retire(&name).await;
    }
    // A token remembers as many retired instances as it may have silent ones: the last ones.
    let gone = service.poll_as(EDGE, "short-19", "60").await;
    assert_eq!((gone.status.as_u16(), gone.code().as_str()), (410, "retired-instance"));
    assert_eq!(service.poll_as(EDGE, "short-0", "60").await.status, 200, "it is a new one");
    let service = service.restart().await;
    assert_eq!(service.poll_as(EDGE, "short-19", "60").await.status, 410);
}

#[tokio::test]
async fn without_a_limit_there_is_none_and_a_configured_one_holds_for_made_tokens_too() {
    let service = limited(0).await;
    let token = service.create_edge_token("edge-1").await;
    for n in 0..1_100 {
        assert_eq!(service.poll_as(&token.secret, &format!("n{n}"), "60").await.status, 200);
    }
    assert_eq!(service.instance_ratio().await, "0.0");
    let service = limited(1).await;
    let token = service.create_edge_token("edge-1").await;
    for (token, name) in [(token.secret.as_str(), "i1"), (EDGE, "i2")] {
        assert_eq!(service.poll_as(token, name, "60").await.status, 200);
        assert_limit(&service.poll_as(token, "i3", "60").await, 429, "instances_per_edge_token", 1);
    }
}

#[tokio::test]
async fn an_operator_is_warned_once_when_a_token_has_four_fifths_of_its_instances() {
    let (logged, _guard) = CapturedLog::of_this_thread();
    let service = limited(10).await;
    let warnings = || {
        let lines = logged.lines(tracing::Level::WARN);
        lines.iter().filter(|line| line.contains("is near its limit of instances")).count()
    };
    for (n, ratio, warned) in [(1, "0.1", 0), (7, "0.7", 0), (8, "0.8", 1), (9, "0.9", 1), (10, "1.0", 1)] {
        for n in 0..n {
            service.poll_as(EDGE, &format!("n{n}"), "60").await;
        }
        assert_eq!((service.instance_ratio().await.as_str(), warnings()), (ratio, warned), "{n} instances");
    }
    // As silent ones they fill a quarter of the limit for those.
    service.advance(31);
    assert_eq!(service.instance_ratio().await, "0.25");
}

#[tokio::test]
async fn an_instance_has_as_many_workers_as_the_limit_allows_beside_those_that_ended() {
    let service = Service::start().await;
    service.poll_as(EDGE, "i1", "60").await;
    let names: Vec<_> = (0..257).map(|n| format!("w{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_limit(&service.acknowledge_as(EDGE, "i1", &names).await, 422, "workers_per_instance", 256);
    assert_eq!(service.acknowledge_as(EDGE, "i1", &names[..256]).await.status, 200);
    assert_eq!(service.counts().await, (true, 1));
    let limits = Limits { workers_per_instance: 0, ..Limits::default() };
    let service = service.restart_with(Config { limits, ..Config::default() }).await;
    assert_eq!(service.acknowledge_as(EDGE, "i1", &names).await.status, 200);
}

#[tokio::test]
async fn an_instance_ends_with_its_only_token_once_it_has_the_answer() {
    let service = Service::start().await;
    let token = service.create_edge_token("edge-1").await;
    for name in ["asks", "says", "leaves", "silent"] {
        assert_eq!(service.poll_as(&token.secret, name, "never").await.status, 200);
    }
    assert_eq!(service.delete(&token.path).await.status, 204);
    assert_eq!(service.counts().await, (false, 4), "each may still decide by its table");
    let leaves =
        async || service.call_as(&token.secret, Method::DELETE, "/edge/v1/instances/leaves", Value::Null, &[]).await;
    for (name, answer) in [
        ("asks", service.poll_as(&token.secret, "asks", "never").await),
        ("says", service.acknowledge_as(&token.secret, "says", &["0"]).await),
        ("leaves", leaves().await),
        ("again", service.poll_as(&token.secret, "asks", "never").await),
    ] {
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (410, "retired-instance"), "{name}");
        assert!(answer.header("latchkey-time").is_some(), "{name}: an edge takes it for ours by this");
    }
    // They count until they certainly deny.
    assert_eq!(service.counts().await, (false, 4));
    until("only the silent one counts", async || service.counts().await == (false, 1)).await;
    // Without a bound it counts until an operator removes it.
    service.advance(1_000_000);
    service.sweep().await;
    assert_eq!(service.counts().await, (false, 1));
    let service = service.restart().await;
    assert_eq!(service.counts().await, (false, 1), "those that got the answer stay ended");
    service.advance(31);
    assert_eq!(service.delete("/v1/edges/silent").await.status, 204);
    assert_eq!(service.counts().await, (false, 0));
}

#[tokio::test]
async fn a_revoked_token_ends_no_instance_that_another_token_has_used_and_none_that_is_not_its() {
    let service = Service::start().await;
    let (old, new, foreign) = (
        service.create_edge_token("edge-1").await,
        service.create_edge_token("edge-1").await,
        service.create_edge_token("edge-1").await,
    );
    service.poll_as(&old.secret, "of-both", "60").await;
    service.acknowledge_as(&new.secret, "of-both", &["0"]).await;
    service.poll_as(&old.secret, "of-the-start-token", "60").await;
    service.poll_as(EDGE, "of-the-start-token", "60").await;
    service.poll_as(&foreign.secret, "foreign", "60").await;
    let service = service.restart().await;
    for token in [&old, &foreign] {
        assert_eq!(service.delete(&token.path).await.status, 204);
    }
    for name in ["of-both", "of-the-start-token", "foreign", "unknown"] {
        let answer = service.poll_as(&old.secret, name, "60").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "bad-token"), "{name}");
    }
    // Nor under another edge's name, nor by a request that can't be read.
    for path in ["edge=edge-2&instance=of-both", "edge=edge-1"] {
        let path = format!("/edge/v1/feed?format=1&{path}");
        assert_eq!(service.call_as(&old.secret, Method::GET, &path, Value::Null, &[]).await.status, 401, "{path}");
    }
    let usage = json!({"edge": "edge-1", "instance": "foreign", "worker": "w", "sequence": 1});
    let usage = service.call_as(&foreign.secret, Method::POST, "/edge/v1/usage", usage, &[]).await;
    assert_eq!(usage.code(), "bad-token", "reporting usage doesn't end an instance");
    for (token, name) in [(new.secret.as_str(), "of-both"), (EDGE, "of-the-start-token")] {
        assert_eq!(service.poll_as(token, name, "60").await.status, 200, "{name} goes on");
    }
    assert_eq!(service.get("/v1/edges").await.json()["items"].as_array().unwrap().len(), 3);
    // A valid token that is used first keeps the instance.
    assert_eq!(service.poll_as(&new.secret, "foreign", "60").await.status, 200);
    assert_eq!(service.poll_as(&foreign.secret, "foreign", "60").await.status, 401);
}

#[tokio::test]
async fn an_edge_that_loads_pages_with_a_revoked_token_is_sent_back_to_the_feed() {
    let service = Service::start().await;
    let token = service.create_edge_token("edge-1").await;
    let manifest = service.poll_as(&token.secret, "i1", "60").await;
    let at = policy::table::Loading::start(&manifest.bytes).unwrap().position();
    service.delete(&token.path).await;
    let page = format!("/edge/v1/snapshots/{}/{}/0", at.epoch, at.revision);
    let page = service.call_as(&token.secret, Method::GET, &page, Value::Null, &[]).await;
    assert_eq!((page.status.as_u16(), page.code().as_str()), (410, "snapshot-gone"));
}

#[tokio::test]
async fn a_revoked_token_s_instance_is_retired_at_every_replica_it_asks() {
    let Some((first, second)) = two().await else { return };
    let (old, new) = (first.create_edge_token("edge-1").await, first.create_edge_token("edge-1").await);
    until("the tokens work", async || second.poll_as(&old.secret, "alone", "never").await.status == 200).await;
    first.poll_as(&old.secret, "of-both", "never").await;
    until("the other token works", async || second.poll_as(&new.secret, "of-both", "never").await.status == 200).await;
    assert_eq!(second.delete(&old.path).await.status, 204);
    // This replica learns only with a delay what the other one did last.
    until("the revocation is known", async || first.poll_as(&old.secret, "nobody's", "never").await.status == 401)
        .await;
    assert_eq!(first.poll_as(&old.secret, "of-both", "never").await.status, 401);
    let answer_of_old = first.poll_as(&old.secret, "alone", "never").await;
    assert_eq!((answer_of_old.status.as_u16(), answer_of_old.code().as_str()), (410, "retired-instance"));
    for replica in [&first, &second] {
        until("one is left", async || replica.counts().await == (false, 1)).await;
        assert_eq!(replica.poll_as(&new.secret, "alone", "never").await.status, 410, "it needs a new id");
        assert_eq!(replica.poll_as(&new.secret, "of-both", "never").await.status, 200);
    }
}

#[tokio::test]
async fn the_dead_instances_of_an_edge_are_removed_at_once_and_the_living_stay() {
    let service = Service::start().await;
    for n in 0..250 {
        service.poll_as(EDGE, &format!("dead-{n:03}"), "never").await;
    }
    service.edge("/edge/v1/feed?format=1&edge=edge-2&instance=other&max_staleness=never").await;
    service.advance(31);
    for name in ["i1", "i2"] {
        service.poll_as(EDGE, name, "never").await;
    }
    let before = service.revision();
    let removed = service.delete("/v1/edges?edge=edge-1").await;
    assert_eq!(
        (removed.status.as_u16(), removed.json()),
        (200, json!({"edge": "edge-1", "removed": 250, "connected": 2}))
    );
    assert_eq!((removed.revision(), service.revision()), (before + 3, before + 3), "a hundred each change");
    let left = service.get("/v1/edges").await.json();
    let names: Vec<_> = left["items"].as_array().unwrap().iter().map(|edge| edge["instance"].clone()).collect();
    assert_eq!(names, ["i1", "i2", "other"]);
    let events = service.get("/v1/audit-events?action=instances.remove&sort=at").await.json();
    let events = events["items"].as_array().unwrap();
    let named: Vec<_> = events.iter().flat_map(|event| event["before"]["instances"].as_array().unwrap()).collect();
    assert_eq!((events.len(), named.len(), &events[0]["target"]["id"]), (3, 250, &json!("edge-1")));
    assert_eq!(events[0]["actor"]["id"], "platform-admin");
    // An instance that was removed and still polls is answered that it has ended.
    assert_eq!(service.poll_as(EDGE, "dead-007", "never").await.status, 410);
    let again = service.delete("/v1/edges?edge=edge-1").await;
    assert_eq!((again.json()["removed"].clone(), again.revision()), (json!(0), before + 3), "nothing was changed");
    let service = service.restart().await;
    assert_eq!(service.poll_as(EDGE, "dead-007", "never").await.status, 410);
    assert_eq!(service.delete("/v1/edges").await.fields(), ["edge required"]);
    assert_eq!(service.delete("/v1/edges?edge=a%2Fb").await.fields(), ["edge bad-edge"]);
}

#[tokio::test]
async fn instances_that_another_replica_answers_are_not_removed_as_dead() {
    let Some((first, second)) = two().await else { return };
    first.poll_as(EDGE, "i1", "never").await;
    second.poll_as(EDGE, "i2", "never").await;
    until("both are known", async || first.counts().await.1 == 2 && second.counts().await.1 == 2).await;
    for replica in [&first, &second] {
        replica.advance(100);
    }
    // The second doesn't see this request.
    first.poll_as(EDGE, "i1", "never").await;
    let removed = second.delete("/v1/edges?edge=edge-1").await.json();
    assert_eq!((&removed["removed"], &removed["connected"]), (&json!(1), &json!(1)));
    assert_eq!(first.poll_as(EDGE, "i1", "never").await.status, 200);
    assert_eq!(first.poll_as(EDGE, "i2", "never").await.status, 410);
    let third = replica(&first).await;
    until("a replica that starts counts one", async || third.counts().await.1 == 1).await;
}
