//! Usage: reports of workers are counted once and shown on the key, and change nothing else.

use axum::http::Method;
use serde_json::{Value, json};
use test_support::digest::mark;

use crate::harness::{ADMIN, Answer, EDGE, START, Service};

/// The harness's clock, in seconds, and the start of its hour.
const NOW: i64 = 1_795_420_800;

impl Service {
    /// A control plane that knows instance `i1` of `edge-1`, and has the workspace `acme`.
    async fn with_an_instance() -> Self {
        let service = Self::start().await;
        service.workspace("acme").await;
        service.poll(None, 0).await;
        service
    }

    async fn report(&self, body: Value) -> Answer {
        self.call_as(EDGE, Method::POST, "/edge/v1/usage", body, &[]).await
    }

    async fn reported(&self, body: Value) {
        let answer = self.report(body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"sequence": body["sequence"]})));
    }

    async fn usage(&self, key: &str) -> Value {
        let answer = self.get(&format!("{key}/usage")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn allowed(&self, key: &str) -> u64 {
        self.usage(key).await["totals"]["allowed"].as_u64().unwrap()
    }
}

fn id(key: &str) -> &str {
    key.rsplit('/').next().unwrap()
}

fn batch(worker: &str, sequence: u64, keys: Value) -> Value {
    json!({"edge": "edge-1", "instance": "i1", "worker": worker, "sequence": sequence, "keys": keys})
}

/// This many allowed requests of a key, at the harness's start.
fn allowed(key: &str, count: u64) -> Value {
    json!({"key": id(key), "hour": NOW, "allowed": count})
}

#[tokio::test]
async fn what_a_worker_reports_shows_on_the_key_and_moves_nothing_else() {
    let service = Service::with_an_instance().await;
    let (key, secret) = service.key("acme", json!({})).await;
    let nothing = json!({"totals": {"allowed": 0, "denied": {}}, "hours": [], "days": [], "denials": []});
    assert_eq!(service.usage(&key).await, nothing);
    let (before, revision) = (service.get(&key).await, service.revision());
    let denial = |at: i64, path: &str| json!({"key": id(&key), "code": "missing-scope", "address": "::ffff:192.0.2.8", "at": at, "method": "POST", "path": path});
    let mut report = batch(
        "w1",
        1,
        json!([
            {"key": id(&key), "hour": NOW, "allowed": 5, "denied": {"missing-scope": 2, "from-a-newer-filter": 1},
             "used": [{"secret": mark(&secret), "at": NOW - 60}], "address": "192.0.2.7"},
            {"key": id(&key), "hour": NOW - 3_600, "allowed": 3, "used": [{"secret": mark(&secret), "at": NOW - 3_601}]},
        ]),
    );
    report["denials"] = json!([denial(NOW - 9, "/v1/older"), denial(NOW - 8, "/v1/newer")]);
    report["denied"] = json!({"unknown-key": 7, "missing-key": 2});
    report["dropped"] = json!({"requests": 4, "denials": 1});
    report["for a newer control plane"] = json!(1);
    service.reported(report).await;

    let expected = json!({
        "totals": {"allowed": 8, "denied": {"missing-scope": 2, "other": 1}},
        "hours": [
            {"at": "2026-11-23T07:00:00Z", "allowed": 3, "denied": {}},
            {"at": START, "allowed": 5, "denied": {"missing-scope": 2, "other": 1}},
        ],
        "days": [],
        "denials": [
            {"code": "missing-scope", "address": "192.0.2.8", "at": "2026-11-23T07:59:52Z", "method": "POST", "path": "/v1/newer"},
            {"code": "missing-scope", "address": "192.0.2.8", "at": "2026-11-23T07:59:51Z", "method": "POST", "path": "/v1/older"},
        ],
    });
    assert_eq!(service.usage(&key).await, expected);
    let mut used = before.json();
    for (field, value) in [
        ("last_used_at", "2026-11-23T07:59:00Z"),
        ("secret_last_used_at", "2026-11-23T07:59:00Z"),
        ("last_used_ip", "192.0.2.7"),
    ] {
        used[field] = json!(value);
    }
    let after = service.get(&key).await;
    assert_eq!(after.json(), used);
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(service.get("/v1/workspaces/acme/keys").await.json()["items"][0], used);
    assert_eq!(service.revision(), revision, "usage is no change");
    let text = service.get("/metrics").await.text();
    for line in [
        r#"latchkey_usage_denied_total{code="unknown-key"} 7"#,
        r#"latchkey_usage_denied_total{code="missing-key"} 2"#,
        "latchkey_usage_batches_total 1",
        "latchkey_usage_dropped_total 4",
    ] {
        assert!(text.lines().any(|own| own == line), "no line {line} in\n{text}");
    }

    let service = service.restart().await;
    assert_eq!((service.usage(&key).await, service.get(&key).await.json()), (expected, used));
}

#[tokio::test]
async fn a_batch_counts_once_however_often_it_is_sent() {
    let service = Service::with_an_instance().await;
    let (key, _) = service.key("acme", json!({})).await;
    let send = |worker: &'static str, sequence| batch(worker, sequence, json!([allowed(&key, 10)]));
    let (first, again) = tokio::join!(service.report(send("w1", 1)), service.report(send("w1", 1)));
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (200, 200));
    assert_eq!(service.allowed(&key).await, 10);
    service.reported(send("w1", 1)).await;
    assert_eq!(service.allowed(&key).await, 10);
    let service = service.restart().await;
    service.reported(send("w1", 1)).await;
    assert_eq!(service.allowed(&key).await, 10, "after a restart too");
    // A batch that was given up is no gap.
    service.advance(1);
    service.reported(send("w1", 3)).await;
    service.reported(send("w1", 2)).await;
    assert_eq!(service.allowed(&key).await, 20, "what comes late was counted or given up");
    // A worker that starts has a new id, and its sequence starts again.
    service.reported(send("w2", 1)).await;
    assert_eq!(service.allowed(&key).await, 30);
}

#[tokio::test]
async fn many_workers_at_once_are_counted_exactly() {
    let service = Service::with_an_instance().await;
    let mut keys = Vec::new();
    for _ in 0..20 {
        keys.push(service.key("acme", json!({})).await.0);
    }
    for sequence in 1..=3 {
        let reports = (0..100).map(|worker| {
            let entries: Vec<_> = keys.iter().map(|key| allowed(key, worker + 1)).collect();
            service.report(batch(&format!("w{worker}"), sequence, json!(entries)))
        });
        for answer in futures_util::future::join_all(reports).await {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    for key in &keys {
        assert_eq!(service.allowed(key).await, 3 * (1..=100).sum::<u64>());
    }
}

#[tokio::test]
async fn a_use_belongs_to_the_secret_that_was_used() {
    let service = Service::with_an_instance().await;
    let (key, old) = service.key("acme", json!({})).await;
    let used = |sequence, secrets: &[(&str, i64)]| {
        let used: Vec<_> = secrets.iter().map(|(secret, at)| json!({"secret": mark(secret), "at": at})).collect();
        batch("w1", sequence, json!([{"key": id(&key), "hour": NOW, "allowed": 1, "used": used}]))
    };
    let at = async || {
        let key = service.get(&key).await.json();
        ["last_used_at", "secret_last_used_at", "previous_secret_last_used_at"]
            .map(|field| key[field].as_str().map(|at| at.get(14..19).unwrap().to_owned()))
    };
    let some = |at: &str| Some(at.to_owned());
    service.reported(used(1, &[(&old, NOW - 50)])).await;
    let rotated = service.post(&format!("{key}/rotate"), json!({"overlap": "1h"})).await.json();
    let new = rotated["secret"].as_str().unwrap();
    assert_eq!(at().await, [some("59:10"), None, some("59:10")]);
    // Reported after the rotation, but older than what is known.
    service.reported(used(2, &[(&old, NOW - 40), (new, NOW - 30)])).await;
    service.reported(used(3, &[(&old, NOW - 45)])).await;
    assert_eq!(at().await, [some("59:30"), some("59:30"), some("59:20")]);
    service.post(&format!("{key}/end-overlap"), Value::Null).await;
    service.reported(used(4, &[(&old, NOW - 20)])).await;
    assert_eq!(at().await, [some("59:40"), some("59:30"), None], "a late use of what has ended is the key's alone");
    // After the overlap there is nothing left to wait for.
    service.post(&format!("{key}/rotate"), json!({"overlap": "1h"})).await;
    assert_eq!(at().await, [some("59:40"), None, some("59:30")]);
    service.advance(3_601);
    assert_eq!(at().await, [some("59:40"), None, None]);
    // If an edge's clock is slightly ahead, the last use counts as now; if it is far ahead, the instant is ignored.
    service.reported(used(5, &[(&old, NOW + 3_601 + 300)])).await;
    assert_eq!(at().await, [some("00:01"), None, None]);
    service.advance(60);
    service.reported(used(6, &[(&old, NOW + 3_661 + 301)])).await;
    assert_eq!(at().await, [some("00:01"), None, None]);
    assert_eq!(service.usage(&key).await["hours"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_leaves_the_database_as_it_was() {
    let service = Service::with_an_instance().await;
    let (deleted, _) = service.key("acme", json!({})).await;
    service.reported(batch("w1", 1, json!([allowed(&deleted, 1)]))).await;
    service.delete(&deleted).await;
    let (key, _) = service.key("acme", json!({})).await;
    let rows = async || service.store.usage_rows().await.unwrap();
    let before = rows().await;
    for sequence in 2..42 {
        let unknown = |number: u64| {
            json!({"key": format!("key_{:032x}", sequence * 1_000 + number), "hour": NOW, "allowed": 1, "denied": {"missing-scope": 1},
                   "used": [{"secret": "00000000", "at": NOW}], "address": "192.0.2.7"})
        };
        let mut entries: Vec<_> = (0..998).map(unknown).collect();
        entries.push(allowed(&deleted, 1));
        entries.push(allowed(&key, 1));
        let mut report = batch("w1", sequence, json!(entries));
        report["denials"] =
            json!([{"key": id(&deleted), "code": "expired-key", "at": NOW, "method": "GET", "path": "/"}]);
        service.reported(report).await;
    }
    assert_eq!(service.allowed(&key).await, 40);
    // One hour, of the key that still exists.
    assert_eq!(rows().await, before + 1);
    assert_eq!(service.get(&format!("{deleted}/usage")).await.code(), "unknown-key");
}

#[tokio::test]
async fn usage_that_can_not_be_read_or_is_not_the_edge_s_changes_nothing() {
    let service = Service::with_an_instance().await;
    let (key, _) = service.key("acme", json!({})).await;
    let token = service.post("/v1/edge-tokens", json!({"name": "e", "edge": "edge-2"})).await.json();
    let other = token["secret"].as_str().unwrap();
    let right = batch("w1", 1, json!([allowed(&key, 1)]));
    let with = |field: &str, value: Value| {
        let mut body = right.clone();
        body[field] = value;
        body
    };
    for (name, token, body, status, code) in [
        ("a token of another edge", other, right.clone(), 403, "wrong-edge"),
        ("another edge's name", EDGE, with("edge", json!("edge-2")), 403, "foreign-instance"),
        ("both", other, with("edge", json!("edge-2")), 403, "foreign-instance"),
        ("an unknown instance", EDGE, with("instance", json!("i9")), 404, "unknown-instance"),
        ("no token", "lkedge_wrong", right.clone(), 401, "bad-token"),
        ("an admin's token", ADMIN, right.clone(), 401, "bad-token"),
        ("no JSON", EDGE, json!("{"), 422, "bad-usage"),
        ("a bad worker", EDGE, with("worker", json!("a/b")), 422, "bad-usage"),
        ("sequence 0", EDGE, with("sequence", json!(0)), 422, "bad-usage"),
        ("a negative sequence", EDGE, with("sequence", json!(-1)), 422, "bad-usage"),
        ("keys that are no list", EDGE, with("keys", json!(1)), 422, "bad-usage"),
        ("denials that are no list", EDGE, with("denials", json!({})), 422, "bad-usage"),
        ("codes that are none", EDGE, with("denied", json!([])), 422, "bad-usage"),
        ("too large", EDGE, with("padding", json!("a".repeat(512 << 10))), 413, "too-large"),
    ] {
        let answer = service.call_as(token, Method::POST, "/edge/v1/usage", body, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{name}");
    }
    assert_eq!(service.allowed(&key).await, 0);
    // An instance reports its last seconds after it has retired.
    let retired = service.call_as(EDGE, Method::DELETE, "/edge/v1/instances/i1", Value::Null, &[]).await;
    assert_eq!(retired.status, 204);
    service.reported(right).await;
    assert_eq!(service.allowed(&key).await, 1);
}

#[tokio::test]
async fn hours_become_days_after_a_week_and_days_go_after_a_year() {
    const DAY: u64 = 86_400;
    let service = Service::with_an_instance().await;
    let (key, _) = service.key("acme", json!({})).await;
    for (sequence, hour) in [(1, NOW), (2, NOW + 3_600), (3, NOW - 86_400)] {
        service.advance(1_800);
        let entry = json!([{"key": id(&key), "hour": hour, "allowed": 2, "denied": {"missing-scope": 1}}]);
        service.reported(batch("w1", sequence, entry)).await;
    }
    let periods = async |of: &str| {
        let usage = service.usage(&key).await;
        assert_eq!(usage["totals"], json!({"allowed": 6, "denied": {"missing-scope": 3}}));
        let at = |period: &Value| (period["at"].as_str().unwrap().to_owned(), period["allowed"].as_u64().unwrap());
        usage[of].as_array().unwrap().iter().map(at).collect::<Vec<_>>()
    };
    assert_eq!(periods("hours").await.len(), 3);
    service.advance(8 * DAY);
    service.sweep().await;
    assert_eq!(periods("hours").await, []);
    let day = |day: &str, allowed| (format!("{day}T00:00:00Z"), allowed);
    assert_eq!(periods("days").await, [day("2026-11-22", 2), day("2026-11-23", 4)]);
    // Usage that an edge held back for longer than hours are kept goes directly into its day.
    service.poll(None, 0).await;
    let late = json!([{"key": id(&key), "hour": NOW + 4 * 3_600, "allowed": 1}]);
    service.reported(batch("w1", 4, late)).await;
    assert_eq!(service.usage(&key).await["days"][1]["allowed"], 5);
    service.advance(365 * DAY);
    service.sweep().await;
    assert_eq!(service.usage(&key).await["days"], json!([]));
}

#[tokio::test]
async fn the_latest_twenty_denials_of_a_key_are_kept_and_go_with_it() {
    let service = Service::with_an_instance().await;
    let (key, _) = service.key("acme", json!({})).await;
    for sequence in 1..=4 {
        let denial = |n: i64| json!({"key": id(&key), "code": "expired-key", "at": NOW - 100 + n, "method": "GET", "path": format!("/{n}")});
        let start = (sequence - 1) * 8;
        let mut report = batch("w1", u64::try_from(sequence).unwrap(), json!([]));
        report["denials"] = (start..start + 8).map(denial).collect();
        service.reported(report).await;
    }
    let usage = service.usage(&key).await;
    let paths: Vec<_> = usage["denials"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    let expected: Vec<_> = (12..32).rev().map(|n| format!("/{n}")).collect();
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn keys_that_nobody_used_for_days_are_found() {
    let service = Service::with_an_instance().await;
    let (used, secret) = service.key("acme", json!({"name": "used"})).await;
    service.key("acme", json!({"name": "never used"})).await;
    service.advance(10 * 86_400);
    service.key("acme", json!({"name": "new"})).await;
    let at = NOW + 10 * 86_400;
    let entry = json!({"key": id(&used), "hour": at, "allowed": 1, "used": [{"secret": mark(&secret), "at": at}]});
    service.reported(batch("w1", 1, json!([entry]))).await;
    for (days, expected) in [(10, json!(["never used"])), (11, json!([]))] {
        let listed = service.get(&format!("/v1/workspaces/acme/keys?unused_days={days}")).await.json();
        let names: Value = listed["items"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
        assert_eq!(names, expected, "{days} days");
        let body = json!({"unused_days": days, "dry_run": true});
        let matching = service.post("/v1/workspaces/acme/keys/delete-matching", body).await.json();
        let names: Value = matching["keys"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
        assert_eq!(names, expected, "{days} days");
    }
}
