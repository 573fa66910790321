//! Counting and reporting usage, without an Envoy.

use policy::protocol::usage::KeyUsage;
use serde_json::{Value, json};

use super::*;
use crate::keys::Clocks;

/// The start of an hour.
const NOW: UnixSeconds = UnixSeconds(1_795_420_800);

fn key(number: u64) -> KeyId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    KeyId::from_bytes(id)
}

fn no_address() -> LazyAddress<impl FnOnce() -> Option<IpAddr>> {
    LazyAddress { known: None, read: || None }
}

fn allow(usage: &Usage, number: u64) {
    usage.count_allowed(key(number), &Digest([7; 32]), NOW, no_address());
}

fn deny(usage: &Usage, number: u64, path: &str, secret: Option<&[u8]>) {
    let denied = DeniedRequest {
        key: key(number),
        reason: DenyReason::MissingScope,
        method: b"GET",
        path: path.as_bytes(),
        secret,
    };
    usage.count_denied(&denied, NOW, no_address());
}

fn take_batch(usage: &Usage) -> Value {
    let Some(batch) = usage.take() else { return Value::Null };
    let mut batch = serde_json::to_value(batch).unwrap();
    let names = ["edge", "instance", "worker", "sequence"].map(|name| batch.as_object_mut().unwrap().remove(name));
    assert!(names.iter().all(Option::is_some), "{names:?}");
    batch
}

fn at(ms: u64) -> Clocks {
    Clocks { wall_ms: 0, monotonic_ms: ms }
}

fn random() -> Option<[u8; 16]> {
    Some([0; 16])
}

fn due(reporter: &mut UsageReporter, usage: &Usage, ms: u64) -> Option<Value> {
    let batch = reporter.due(usage, ("edge", "i1"), at(ms), random);
    batch.map(|batch| serde_json::to_value(batch).unwrap())
}

#[test]
fn each_key_is_counted_by_hour_outcome_and_secret() {
    let usage = Usage::default();
    assert_eq!(take_batch(&usage), Value::Null);
    let later = NOW.saturating_add_secs(59);
    for (secret, at) in [(1, NOW), (1, later), (2, NOW), (1, NOW)] {
        usage.count_allowed(
            key(1),
            &Digest([secret; 32]),
            at,
            LazyAddress { known: None, read: || Some([192, 0, 2, 7].into()) },
        );
    }
    usage.count_allowed(key(1), &Digest([1; 32]), NOW.saturating_add_secs(3_600), no_address());
    deny(&usage, 1, "/v1/reviews?api_key=x", None);
    usage.count_denied_without_key(DenyReason::UnknownKey);
    usage.count_denied_without_key(DenyReason::UnknownKey);
    let mut batch = take_batch(&usage);
    batch["keys"].as_array_mut().unwrap().sort_by_key(|counts| counts["hour"].as_i64());
    let id = key(1).to_string();
    let expected = json!({
        "keys": [
            {"key": id, "hour": NOW.0, "allowed": 4, "denied": {"missing-scope": 1}, "address": "192.0.2.7",
             "used": [{"secret": "01010101", "at": later.0}, {"secret": "02020202", "at": NOW.0}]},
            {"key": id, "hour": NOW.0 + 3_600, "allowed": 1, "used": [{"secret": "01010101", "at": NOW.0 + 3_600}]},
        ],
        "denials": [{"key": id, "code": "missing-scope", "address": null, "at": NOW.0, "method": "GET", "path": "/v1/reviews"}],
        "denied": {"unknown-key": 2},
        "dropped": {"requests": 0, "denials": 0},
    });
    assert_eq!(batch, expected);
    assert_eq!(take_batch(&usage), Value::Null, "counts are reported once");
}

#[test]
fn an_address_is_read_once_for_each_key_and_period() {
    let usage = Usage::default();
    let reads = std::cell::Cell::new(0);
    let read = || {
        reads.set(reads.get() + 1);
        Some([192, 0, 2, 7].into())
    };
    let count = |known| usage.count_allowed(key(1), &Digest([7; 32]), NOW, LazyAddress { known, read });
    (0..100).for_each(|_| count(None));
    assert_eq!(reads.get(), 1);
    usage.next_period();
    (0..100).for_each(|_| count(None));
    assert_eq!(reads.get(), 2);
    // An address that the decision has read costs nothing, and is newer.
    count(Some([192, 0, 2, 9].into()));
    assert_eq!((reads.get(), take_batch(&usage)["keys"][0]["address"].clone()), (2, json!("192.0.2.9")));
}

#[test]
fn requests_without_space_count_as_dropped_and_known_keys_still_count() {
    let usage = Usage::default();
    let slots = u64::try_from(MAX_KEY_HOURS).unwrap();
    for _ in 0..3 {
        (0..slots + 100).for_each(|number| allow(&usage, number));
    }
    assert_eq!(usage.take_dropped(), 300);
    assert_eq!(usage.take_dropped(), 0);
    let (mut allowed, mut batches) = (0, 0);
    while let Some(batch) = usage.take() {
        assert!(batch.keys.len() <= MAX_KEYS);
        assert_eq!(batch.dropped.unwrap().requests, if batches == 0 { 300 } else { 0 });
        allowed += batch.keys.iter().map(KeyUsage::requests).sum::<u64>();
        batches += 1;
    }
    assert_eq!((allowed, batches), (3 * slots, 5));
}

#[test]
fn a_few_denials_of_each_key_and_the_newest_of_all_are_stored() {
    let usage = Usage::default();
    for _ in 0..100 {
        deny(&usage, 1, "/1", None);
    }
    (2..100).for_each(|number| deny(&usage, number, &format!("/{number}"), None));
    let batch = take_batch(&usage);
    let paths: Vec<_> = batch["denials"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(paths, (36..100).map(|number| format!("/{number}")).collect::<Vec<_>>());
    // Of 4 and 98 the oldest 38.
    assert_eq!(batch["dropped"]["denials"], 38);
    let of_one = batch["keys"].as_array().unwrap().iter().find(|counts| counts["key"] == key(1).to_string()).unwrap();
    assert_eq!(of_one["denied"]["missing-scope"], 100, "each is counted");
}

#[test]
fn a_path_is_reported_truncated_without_query_and_credential() {
    let secret = "lk_live_000000000000000000000000000000004cjNQE";
    let (long, cut) = (format!("/{}", "a".repeat(1_000)), format!("/{}", "a".repeat(255)));
    let in_words = format!("/v1/{secret}/reviews");
    let encoded = format!("/v1/{}", secret.replacen("lk", "%6c%6B", 1));
    for (path, own, expected) in [
        ("/v1/reviews?api_key=x#y", None, "/v1/reviews"),
        ("/v1/r\u{e9}views", None, "/v1/r__views"),
        ("", None, ""),
        (&long, None, &cut),
        ("/v1/%2", None, "/v1/%2"),
        (&in_words, None, "[removed]"),
        (&encoded, None, "[removed]"),
        ("/v1/lkadm_00000000000000000000000000000000123456", None, "[removed]"),
        ("/v1/from-elsewhere/1", Some(&b"from-elsewhere"[..]), "[removed]"),
        ("/v1/from%2Delsewhere/1", Some(b"from-elsewhere"), "[removed]"),
        ("/v1/reviews", Some(b"from-elsewhere"), "/v1/reviews"),
        ("/v1/reviews", Some(b""), "/v1/reviews"),
    ] {
        let usage = Usage::default();
        deny(&usage, 1, path, own);
        assert_eq!(take_batch(&usage)["denials"][0]["path"], expected, "{path}");
    }
    let usage = Usage::default();
    let method = b"A-METHOD-THAT-IS-LONG\n";
    let denied = DeniedRequest { key: key(1), reason: DenyReason::BadPath, method, path: b"/", secret: None };
    usage.count_denied(&denied, NOW, no_address());
    assert_eq!(take_batch(&usage)["denials"][0]["method"], "A-METHOD-THAT-IS");
}

#[test]
fn a_batch_is_sent_unchanged_until_it_is_acknowledged() {
    let (usage, mut reporter) = (Usage::default(), UsageReporter::default());
    assert_eq!(due(&mut reporter, &usage, 0), None, "this worker has no id yet");
    assert_eq!(due(&mut reporter, &usage, 1), None, "nothing was counted");
    allow(&usage, 1);
    assert_eq!(due(&mut reporter, &usage, 9_000), None);
    let first = due(&mut reporter, &usage, 10_001).unwrap();
    assert_eq!((&first["sequence"], &first["instance"]), (&json!(1), &json!("i1")));
    allow(&usage, 1);
    assert_eq!(due(&mut reporter, &usage, 30_000), None, "one at a time");
    for (ms, status) in [(40_000, None), (50_000, Some(503)), (60_000, Some(401))] {
        assert_eq!(reporter.answered(&usage, Some("i1"), status), BatchOutcome::Retry);
        assert_eq!(due(&mut reporter, &usage, ms), Some(first.clone()));
    }
    // If the control plane no longer has the instance, the batch is sent for the current one.
    assert_eq!(reporter.answered(&usage, Some("i2"), Some(404)), BatchOutcome::Retry);
    let again = due(&mut reporter, &usage, 70_000).unwrap();
    assert_eq!((&again["sequence"], &again["instance"], &again["keys"]), (&json!(1), &json!("i2"), &first["keys"]));
    assert_eq!(reporter.answered(&usage, Some("i2"), Some(200)), BatchOutcome::Acknowledged);
    let second = due(&mut reporter, &usage, 80_000).unwrap();
    assert_eq!((&second["sequence"], &second["keys"][0]["allowed"]), (&json!(2), &json!(1)));
    assert_eq!(second["worker"], first["worker"]);
    // A call whose context has ended is never answered, so it times out.
    assert_eq!(due(&mut reporter, &usage, 100_000), None);
    assert_eq!(due(&mut reporter, &usage, 150_000), Some(second));
}

#[test]
fn a_refused_batch_is_dropped_and_reported_as_dropped() {
    let (usage, mut reporter) = (Usage::default(), UsageReporter::default());
    due(&mut reporter, &usage, 0);
    (0..7).for_each(|_| allow(&usage, 1));
    due(&mut reporter, &usage, 1).unwrap();
    assert_eq!(reporter.answered(&usage, Some("i1"), Some(422)), BatchOutcome::Refused(422));
    assert_eq!(usage.take_dropped(), 7);
    let next = due(&mut reporter, &usage, 20_000).unwrap();
    assert_eq!((&next["sequence"], &next["dropped"]["requests"]), (&json!(2), &json!(7)));
    // What a refused batch reported as dropped is reported again, and counted once in the filter's metric.
    (0..3).for_each(|_| allow(&usage, 1));
    deny(&usage, 1, "/1", None);
    assert_eq!(reporter.answered(&usage, Some("i1"), Some(422)), BatchOutcome::Refused(422));
    let third = due(&mut reporter, &usage, 40_000).unwrap();
    assert_eq!((&third["sequence"], &third["dropped"]), (&json!(3), &json!({"requests": 7, "denials": 0})));
    assert_eq!(reporter.answered(&usage, Some("i1"), Some(422)), BatchOutcome::Refused(422));
    assert_eq!(usage.take_dropped(), 4);
    let fourth = due(&mut reporter, &usage, 60_000).unwrap();
    assert_eq!((&fourth["sequence"], &fourth["dropped"]), (&json!(4), &json!({"requests": 11, "denials": 1})));
}

#[test]
fn many_keys_are_reported_in_successive_batches() {
    let (usage, mut reporter) = (Usage::default(), UsageReporter::default());
    due(&mut reporter, &usage, 0);
    (0..2_500).for_each(|number| allow(&usage, number));
    let mut total = 0;
    for (sequence, ms) in [(1, 1), (2, 2), (3, 3)] {
        let batch = due(&mut reporter, &usage, ms).unwrap();
        assert_eq!(batch["sequence"], sequence);
        total += batch["keys"].as_array().unwrap().len();
        reporter.answered(&usage, Some("i1"), Some(200));
    }
    assert_eq!(total, 2_500);
    assert_eq!(due(&mut reporter, &usage, 4), None);
}
