//! Counting and reporting, without an Envoy.

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

fn no_address() -> Address<impl FnOnce() -> Option<IpAddr>> {
    Address { known: None, read: || None }
}

fn allow(usage: &Usage, number: u64) {
    usage.allowed(key(number), &Digest([7; 32]), NOW, no_address());
}

fn deny(usage: &Usage, number: u64, path: &str, secret: Option<&[u8]>) {
    let denied = Denied { key: key(number), code: "missing-scope", method: b"GET", path: path.as_bytes(), secret };
    usage.denied(&denied, NOW, no_address());
}

fn taken(usage: &Usage) -> Value {
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

fn due(reporting: &mut UsageReporter, usage: &Usage, ms: u64) -> Option<Value> {
    let batch = reporting.due(usage, ("edge", "i1"), at(ms), random);
    batch.map(|batch| serde_json::to_value(batch).unwrap())
}

#[test]
fn each_key_is_counted_by_hour_outcome_and_secret() {
    let usage = Usage::default();
    assert_eq!(taken(&usage), Value::Null);
    let later = NOW.saturating_add_secs(59);
    for (secret, at) in [(1, NOW), (1, later), (2, NOW), (1, NOW)] {
        usage.allowed(key(1), &Digest([secret; 32]), at, Address { known: None, read: || Some([192, 0, 2, 7].into()) });
    }
    usage.allowed(key(1), &Digest([1; 32]), NOW.saturating_add_secs(3_600), no_address());
    deny(&usage, 1, "/v1/reviews?api_key=x", None);
    usage.denied_nobody("unknown-key");
    usage.denied_nobody("unknown-key");
    let mut told = taken(&usage);
    told["keys"].as_array_mut().unwrap().sort_by_key(|counts| counts["hour"].as_i64());
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
    assert_eq!(told, expected);
    assert_eq!(taken(&usage), Value::Null, "what was taken is told once");
}

#[test]
fn an_address_is_read_once_a_key_and_period() {
    let usage = Usage::default();
    let reads = std::cell::Cell::new(0);
    let read = || {
        reads.set(reads.get() + 1);
        Some([192, 0, 2, 7].into())
    };
    let count = |known| usage.allowed(key(1), &Digest([7; 32]), NOW, Address { known, read });
    (0..100).for_each(|_| count(None));
    assert_eq!(reads.get(), 1);
    usage.next_period();
    (0..100).for_each(|_| count(None));
    assert_eq!(reads.get(), 2);
    // What the decision has read costs nothing, and is newer.
    count(Some([192, 0, 2, 9].into()));
    assert_eq!((reads.get(), taken(&usage)["keys"][0]["address"].clone()), (2, json!("192.0.2.9")));
}

#[test]
fn what_finds_no_room_is_counted_as_dropped_and_known_keys_go_on() {
    let usage = Usage::default();
    let slots = u64::try_from(SLOTS).unwrap();
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
fn a_few_denials_of_each_key_are_kept_and_the_newest_of_all() {
    let usage = Usage::default();
    for _ in 0..100 {
        deny(&usage, 1, "/1", None);
    }
    (2..100).for_each(|number| deny(&usage, number, &format!("/{number}"), None));
    let told = taken(&usage);
    let paths: Vec<_> = told["denials"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(paths, (36..100).map(|number| format!("/{number}")).collect::<Vec<_>>());
    // Of 4 and 98 the oldest 38.
    assert_eq!(told["dropped"]["denials"], 38);
    let of_one = told["keys"].as_array().unwrap().iter().find(|counts| counts["key"] == key(1).to_string()).unwrap();
    assert_eq!(of_one["denied"]["missing-scope"], 100, "each is counted");
}

#[test]
fn a_path_is_shown_short_without_its_query_and_without_a_credential() {
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
        assert_eq!(taken(&usage)["denials"][0]["path"], expected, "{path}");
    }
    let usage = Usage::default();
    let method = b"A-METHOD-THAT-IS-LONG\n";
    let denied = Denied { key: key(1), code: "bad-path", method, path: b"/", secret: None };
    usage.denied(&denied, NOW, no_address());
    assert_eq!(taken(&usage)["denials"][0]["method"], "A-METHOD-THAT-IS");
}

#[test]
fn a_batch_is_sent_as_it_is_until_it_is_answered() {
    let (usage, mut reporting) = (Usage::default(), UsageReporter::default());
    assert_eq!(due(&mut reporting, &usage, 0), None, "this worker has no name yet");
    assert_eq!(due(&mut reporting, &usage, 1), None, "nothing was counted");
    allow(&usage, 1);
    assert_eq!(due(&mut reporting, &usage, 9_000), None);
    let first = due(&mut reporting, &usage, 10_001).unwrap();
    assert_eq!((&first["sequence"], &first["instance"]), (&json!(1), &json!("i1")));
    allow(&usage, 1);
    assert_eq!(due(&mut reporting, &usage, 30_000), None, "one at a time");
    for (ms, status) in [(40_000, None), (50_000, Some(503)), (60_000, Some(401))] {
        assert_eq!(reporting.answered(&usage, Some("i1"), status), BatchOutcome::SentAgain);
        assert_eq!(due(&mut reporting, &usage, ms), Some(first.clone()));
    }
    // Forgotten there, it is sent for the instance that this is now.
    assert_eq!(reporting.answered(&usage, Some("i2"), Some(404)), BatchOutcome::SentAgain);
    let again = due(&mut reporting, &usage, 70_000).unwrap();
    assert_eq!((&again["sequence"], &again["instance"], &again["keys"]), (&json!(1), &json!("i2"), &first["keys"]));
    assert_eq!(reporting.answered(&usage, Some("i2"), Some(200)), BatchOutcome::Counted);
    let second = due(&mut reporting, &usage, 80_000).unwrap();
    assert_eq!((&second["sequence"], &second["keys"][0]["allowed"]), (&json!(2), &json!(1)));
    assert_eq!(second["worker"], first["worker"]);
    // A call that is never answered, for its context went away, is given up.
    assert_eq!(due(&mut reporting, &usage, 100_000), None);
    assert_eq!(due(&mut reporting, &usage, 150_000), Some(second));
}

#[test]
fn a_batch_that_is_never_taken_is_dropped_and_said() {
    let (usage, mut reporting) = (Usage::default(), UsageReporter::default());
    due(&mut reporting, &usage, 0);
    (0..7).for_each(|_| allow(&usage, 1));
    due(&mut reporting, &usage, 1).unwrap();
    assert_eq!(reporting.answered(&usage, Some("i1"), Some(422)), BatchOutcome::Refused(422));
    assert_eq!(usage.take_dropped(), 7);
    let next = due(&mut reporting, &usage, 20_000).unwrap();
    assert_eq!((&next["sequence"], &next["dropped"]["requests"]), (&json!(2), &json!(7)));
}

#[test]
fn many_keys_are_told_in_batches_one_after_the_other() {
    let (usage, mut reporting) = (Usage::default(), UsageReporter::default());
    due(&mut reporting, &usage, 0);
    (0..2_500).for_each(|number| allow(&usage, number));
    let mut told = 0;
    for (sequence, ms) in [(1, 1), (2, 2), (3, 3)] {
        let batch = due(&mut reporting, &usage, ms).unwrap();
        assert_eq!(batch["sequence"], sequence);
        told += batch["keys"].as_array().unwrap().len();
        reporting.answered(&usage, Some("i1"), Some(200));
    }
    assert_eq!(told, 2_500);
    assert_eq!(due(&mut reporting, &usage, 4), None);
}
