//! Usage entry by entry: an invalid one is left out, and never costs a batch, a worker or another edge's counts.

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, EDGE, Service};

/// The harness's clock, in seconds, and the start of its hour.
const NOW: i64 = 1_795_420_800;

const DAY: i64 = 86_400;

impl Service {
    /// A control plane that knows instance `i1` of `edge-1`, with a key; returns the key's path, too.
    async fn with_a_key() -> (Self, String) {
        let service = Self::start().await;
        service.workspace("acme").await;
        service.poll(None, 0).await;
        let (key, _) = service.key("acme", json!({})).await;
        (service, key)
    }

    async fn sends(&self, worker: &str, sequence: u64, content: &Value) -> Answer {
        let mut body = json!({"edge": "edge-1", "instance": "i1", "worker": worker, "sequence": sequence});
        for (name, value) in content.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.call_as(EDGE, Method::POST, "/edge/v1/usage", body, &[]).await
    }

    async fn seen(&self, key: &str) -> Value {
        self.get(&format!("{key}/usage")).await.json()
    }

    /// The number of entries that were left out, for each `why`.
    async fn left_out(&self) -> Vec<(String, u64)> {
        let text = self.get("/metrics").await.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("latchkey_usage_refused_total{why=\""));
        let parts = lines.map(|line| line.split_once("\"} ").unwrap());
        let mut all: Vec<_> = parts.map(|(why, count)| (why.to_owned(), count.parse().unwrap())).collect();
        assert_eq!(all.len(), 5, "each word is there from the start:\n{text}");
        all.retain(|(_, count)| *count > 0);
        all
    }
}

fn id(key: &str) -> &str {
    key.rsplit('/').next().unwrap()
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}

#[tokio::test]
async fn one_bad_entry_is_left_out_and_counted_and_the_rest_of_the_batch_counts() {
    let right = |key: &str| json!({"key": id(key), "hour": NOW, "allowed": 1, "denied": {"missing-scope": 1}});
    let denial = |key: &str| json!({"key": id(key), "code": "expired-key", "address": null, "at": NOW, "method": "GET", "path": "/"});
    let codes = || (0..33).map(|n| (format!("code-{}", "a".repeat(n)), json!(1))).collect::<serde_json::Map<_, _>>();
    let entries: [(&str, &str, Value, &str); 27] = [
        ("a key that nobody has", "key", json!(format!("key_{:032x}", 7)), "unknown-key"),
        ("no id", "key", json!("key_1"), "malformed"),
        ("a long ago", "hour", json!(NOW - 8 * DAY - 1), "old"),
        ("the least instant there is", "hour", json!(i64::MIN), "old"),
        ("too far ahead", "hour", json!(NOW + 301), "ahead"),
        ("the last instant there is", "hour", json!(i64::MAX), "ahead"),
        ("an instant that is none", "hour", json!("now"), "malformed"),
        ("too large a count", "allowed", json!(1_u64 << 41), "malformed"),
        ("a count beyond all", "allowed", json!(1e30), "malformed"),
        ("a negative count", "allowed", json!(-1), "malformed"),
        ("a code that is none", "denied", json!({"Missing Scope": 1}), "malformed"),
        ("a long code", "denied", json!({"a".repeat(33): 1}), "malformed"),
        ("too many codes", "denied", codes().into(), "malformed"),
        ("no address", "address", json!("localhost"), "malformed"),
        ("a secret", "used", json!([{"secret": "lk_live_", "at": NOW}]), "malformed"),
        ("a signed mark", "used", json!([{"secret": "+1234567", "at": NOW}]), "malformed"),
        ("too many secrets", "used", vec![json!({"secret": "00000000", "at": NOW}); 5].into(), "malformed"),
        ("a denial of nobody", "denials.key", json!(format!("key_{:032x}", 7)), "unknown-key"),
        ("a denial before all time", "denials.at", json!(i64::MIN), "old"),
        ("a denial of last week", "denials.at", json!(NOW - 8 * DAY - 1), "old"),
        ("a denial of tomorrow", "denials.at", json!(NOW + DAY), "ahead"),
        ("a query", "denials.path", json!("/?api_key=x"), "malformed"),
        ("a long path", "denials.path", json!(format!("/{}", "a".repeat(256))), "malformed"),
        ("a control byte", "denials.method", json!("GET\n"), "malformed"),
        ("no code", "denials.code", json!("<b>"), "malformed"),
        ("codes of nobody", "nobody", json!({"<b>": 1}), "malformed"),
        ("a count of nobody's", "nobody", json!({"missing-key": 1_u64 << 41}), "malformed"),
    ];
    for (name, field, value, why) in entries {
        let (service, key) = Service::with_a_key().await;
        let (mut keys, mut denials, mut denied) = (vec![right(&key)], vec![denial(&key)], json!({"unknown-key": 3}));
        match (field, field.strip_prefix("denials.")) {
            ("nobody", _) => denied.as_object_mut().unwrap().extend(value.as_object().unwrap().clone()),
            (_, Some(field)) => denials.insert(0, with(denial(&key), field, value)),
            (field, None) => keys.insert(0, with(right(&key), field, value)),
        }
        let answer = service.sends("w", 1, &json!({"keys": keys, "denials": denials, "denied": denied})).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"sequence": 1})), "{name}");
        let seen = service.seen(&key).await;
        assert_eq!(seen["totals"], json!({"allowed": 1, "denied": {"missing-scope": 1}}), "{name}");
        assert_eq!(seen["denials"].as_array().unwrap().len(), 1, "{name}");
        assert_eq!(service.left_out().await, [(why.to_owned(), 1)], "{name}");
        assert!(service.get("/metrics").await.text().contains("latchkey_usage_denied_total{code=\"unknown-key\"} 3\n"));
        // A batch that is sent again isn't counted again.
        service.sends("w", 1, &json!({"keys": keys, "denials": denials, "denied": denied})).await;
        assert_eq!(service.left_out().await, [(why.to_owned(), 1)], "{name}");
    }
}

#[tokio::test]
async fn a_use_at_an_impossible_instant_is_left_out_and_its_requests_count() {
    for (at, why) in [(i64::MIN, "old"), (NOW - 8 * DAY - 1, "old"), (NOW + 301, "ahead"), (i64::MAX, "ahead")] {
        let (service, key) = Service::with_a_key().await;
        let used = json!([{"secret": "00000000", "at": at}]);
        let entry = json!({"key": id(&key), "hour": NOW, "allowed": 2, "used": used, "address": "192.0.2.7"});
        assert_eq!(service.sends("w", 1, &json!({"keys": [entry]})).await.status, 200);
        assert_eq!(service.seen(&key).await["totals"]["allowed"], 2, "{at}");
        assert_eq!(service.get(&key).await.json()["last_used_at"], Value::Null, "{at}");
        assert_eq!(service.left_out().await, [(why.to_owned(), 1)], "{at}");
    }
}

#[tokio::test]
async fn a_clock_that_is_five_minutes_ahead_or_an_edge_that_was_cut_off_for_a_week_loses_nothing() {
    let (service, key) = Service::with_a_key().await;
    let denial = json!({"key": id(&key), "code": "expired-key", "at": NOW + 300, "method": "GET", "path": "/"});
    let entry = |hour: i64| json!({"key": id(&key), "hour": hour, "allowed": 1});
    let keys = [entry(NOW + 300), entry(NOW - 8 * DAY + 3_600), entry(NOW - 7 * DAY)];
    assert_eq!(service.sends("w", 1, &json!({"keys": keys, "denials": [denial]})).await.status, 200);
    let seen = service.seen(&key).await;
    assert_eq!(seen["totals"]["allowed"], 3);
    assert_eq!(
        (&seen["hours"][1]["at"], &seen["denials"][0]["at"]),
        (&json!("2026-11-23T08:00:00Z"), &json!("2026-11-23T08:00:00Z"))
    );
    assert_eq!(service.left_out().await, []);
}

#[tokio::test]
async fn entries_beyond_what_a_worker_sends_are_left_out() {
    let (service, key) = Service::with_a_key().await;
    let keys = vec![json!({"key": id(&key), "hour": NOW, "allowed": 1}); 1_003];
    let denials = vec![json!({"key": id(&key), "code": "expired-key", "at": NOW, "method": "GET", "path": "/"}); 66];
    let denied: serde_json::Map<_, _> =
        (0..33).map(|n| (format!("code-{}", "a".repeat(n % 26)) + &"b".repeat(n / 26), json!(1))).collect();
    assert_eq!(service.sends("w", 1, &json!({"keys": keys, "denials": denials, "denied": denied})).await.status, 200);
    assert_eq!(service.seen(&key).await["totals"]["allowed"], 1_000);
    assert_eq!(service.left_out().await, [("surplus".to_owned(), 3 + 2 + 1)]);
}

#[tokio::test]
async fn a_sequence_may_skip_one_batch_a_second_and_no_jump_silences_a_worker() {
    let (service, key) = Service::with_a_key().await;
    let content = json!({"keys": [{"key": id(&key), "hour": NOW, "allowed": 1}]});
    let sends = async |worker: &str, sequence| {
        let answer = service.sends(worker, sequence, &content).await;
        if answer.status == 422 {
            assert_eq!(answer.code(), "bad-usage");
        }
        answer.status.as_u16()
    };
    assert_eq!(sends("w", 1).await, 200);
    for jump in [3, 1_000_000_000_000, i64::MAX as u64] {
        assert_eq!(sends("w", jump).await, 422, "{jump}");
    }
    assert_eq!(sends("w", 2).await, 200, "it goes on where it was");
    service.advance(10);
    assert_eq!(sends("w", 14).await, 422);
    assert_eq!(sends("w", 13).await, 200, "ten were lost in ten seconds");
    assert_eq!(sends("w", 14).await, 200);
    assert_eq!(service.seen(&key).await["totals"]["allowed"], 4, "each counts");
    // The control plane may have forgotten a worker, whose sequence grows for a year or two.
    assert_eq!(sends("forgotten", 10_000_000).await, 200);
    assert_eq!(sends("new", 1_000_000_000_000).await, 422);
    let service = service.restart().await;
    assert_eq!(service.sends("w", 1_000_000_000_000, &content).await.status, 422);
    assert_eq!(service.sends("w", 15, &content).await.status, 200);
}

#[tokio::test]
async fn no_sum_of_counts_overflows() {
    const MOST: u64 = 1 << 40;
    let (service, key) = Service::with_a_key().await;
    let entry = json!({"key": id(&key), "hour": NOW, "allowed": MOST, "denied": {"a": MOST, "b": MOST}});
    let content = json!({"keys": vec![entry; 1_000], "denied": {"unknown-key": MOST}, "dropped": {"requests": MOST}});
    assert_eq!(service.sends("w", 1, &content).await.status, 200);
    assert_eq!(service.seen(&key).await["totals"], json!({"allowed": MOST * 1_000, "denied": {"other": MOST * 2_000}}));
}
