//! Requests against a fake Envoy and a real table.

use policy::config::FeedMode;
use policy::wire::{KeyRecord, Op};
use policy::{Allowlist, Level};

mod bypasses;

use super::*;
use crate::fake_control_plane::{FakeControlPlane, answer_of, record, secret};
use crate::fake_envoy::{FakeEnvoy, LocalReply};
use crate::host::PropertyError;
use crate::keys::Clocks;
use crate::source::Root;
use crate::source_name::SourceName;

const CONFIG: &str = r#"{
    "control_plane": {"cluster": "latchkey", "authority": "latchkey"},
    "routes": [{"path": "/v1/reviews/{*rest}", "rule": "reviews"}, {"path": "/healthz", "rule": "public"}],
    "forward": ["key_id", "workspace_id", "workspace", "scopes"]
}"#;

/// A worker's source with these records.
fn source_with(records: &[KeyRecord]) -> Source {
    let mut control_plane = FakeControlPlane::new(1);
    let ops: Vec<Op> = records.iter().cloned().map(Op::Upsert).collect();
    control_plane.change(&ops);
    let envoy = FakeEnvoy { vm_id: "", ..FakeEnvoy::new("GET", "/", &[]) };
    let mut source = Source::new(name());
    source.join(Root { id: 1, token: None, max_staleness_secs: None, feed: FeedMode::Worker });
    source.tick(&envoy, 1);
    while source.keys.live_table.position().is_none() {
        let (number, path) = envoy.calls.borrow_mut().pop_front().expect("a call is due");
        source.answered(&envoy, 1, number, answer_of(&control_plane, &path));
    }
    source
}

fn name() -> SourceName {
    let text = |text: &str| text.to_owned();
    SourceName { cluster: text("latchkey"), authority: text("latchkey"), environment: text("live"), edge: text("edge") }
}

fn handle(envoy: &FakeEnvoy, source: Option<&Source>) -> RequestOutcome {
    handle_with(&Edge::parse(CONFIG.as_bytes()).unwrap(), envoy, source)
}

fn handle_with(edge: &Edge, envoy: &FakeEnvoy, source: Option<&Source>) -> RequestOutcome {
    let now = clocks(envoy);
    let is_current = source.is_some_and(|source| !source.is_late(now));
    on_request_headers(envoy, edge, source, is_current, now, &Metrics::define(envoy))
}

fn denied(envoy: &FakeEnvoy, source: Option<&Source>) -> (u16, String) {
    assert_eq!(handle(envoy, source), RequestOutcome::Answered);
    let Some(LocalReply { status, headers, body }) = envoy.answer.borrow().clone() else { panic!("no answer") };
    let code = headers["latchkey-code"].clone();
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers.contains_key("www-authenticate"), status == 401);
    assert_eq!(headers.contains_key("retry-after"), status == 503);
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code.as_str()), Some(status.into())));
    if source.is_some() {
        assert_eq!(envoy.state("latchkey_verdict"), Some(format!("denied:{code}")));
    }
    (status, code)
}

#[test]
fn an_allowed_request_carries_identity_and_no_credential() {
    let secret = secret(1);
    let worker = source_with(&[record(&secret)]);
    let envoy = FakeEnvoy::new(
        "GET",
        "/v1/reviews/7",
        &[
            ("x-api-key", secret.as_bytes()),
            ("x-latchkey-key-id", b"forged"),
            ("x-latchkey-anything", b"forged"),
            ("accept", b"*/*"),
        ],
    );
    assert_eq!(handle(&envoy, Some(&worker)), RequestOutcome::Passes);
    let key = "key_01010101010101010101010101010101";
    for (name, expected) in [
        ("x-api-key", &[][..]),
        ("x-latchkey-anything", &[]),
        ("x-latchkey-key-id", &[key]),
        ("x-latchkey-workspace-id", &["ws_02020202020202020202020202020202"]),
        ("x-latchkey-workspace", &["acme"]),
        ("x-latchkey-scopes", &["reviews:read"]),
        ("accept", &["*/*"]),
    ] {
        assert_eq!(envoy.forwarded(name), expected, "{name}");
    }
    assert_eq!(envoy.state("latchkey_verdict").as_deref(), Some("allowed"));
    assert_eq!(envoy.state("latchkey_key_id").as_deref(), Some(key));
    assert_eq!(envoy.state("latchkey_rule").as_deref(), Some("-"));
    assert_eq!(envoy.addresses_read.get(), 1, "the first request of a key is counted with its address");
    let again = FakeEnvoy::new("GET", "/v1/reviews/7", &[("x-api-key", secret.as_bytes())]);
    assert_eq!(handle(&again, Some(&worker)), RequestOutcome::Passes);
    assert_eq!(again.addresses_read.get(), 0, "later ones need none");
}

/// Ticks until this worker sends a usage batch; returns the batch.
fn usage_batch(source: &mut Source) -> serde_json::Value {
    let envoy = FakeEnvoy { vm_id: "", ..FakeEnvoy::new("GET", "/", &[]) };
    for _ in 0..200 {
        let now = envoy.process.clocks.get();
        envoy.process.clocks.set(Clocks { monotonic_ms: now.monotonic_ms + 100, ..now });
        source.tick(&envoy, 1);
        if let Some((_, body)) = envoy.reported.borrow_mut().pop_front() {
            return serde_json::from_str(&body).unwrap();
        }
    }
    panic!("no usage was reported");
}

#[test]
fn decisions_are_counted_and_no_credential_is_reported() {
    let (good, restricted, unknown) = (secret(1), secret(3), secret(2));
    let elsewhere = KeyRecord {
        key: policy::KeyId::from_bytes([3; 16]),
        allowlist: Allowlist::try_from(Some(vec!["198.51.100.0/24".to_owned()])).unwrap(),
        ..record(&restricted)
    };
    let mut worker = source_with(&[record(&good), elsewhere]);
    let in_path = format!("/v1/reviews/{good}?api_key={good}");
    for (method, path, key, times) in [
        ("GET", "/v1/reviews/7", good.as_str(), 5),
        ("POST", in_path.as_str(), &good, 2),
        ("GET", "/v1/reviews/8?a=b", &restricted, 1),
        ("GET", "/v1/reviews", &unknown, 3),
        ("GET", "/v1/reviews", "nonsense", 1),
        ("GET", "/healthz", &good, 4),
    ] {
        for _ in 0..times {
            let envoy = FakeEnvoy::new(method, path, &[("x-api-key", key.as_bytes())]);
            handle(&envoy, Some(&worker));
        }
    }
    let mut batch = usage_batch(&mut worker);
    for secret in [&good, &restricted, &unknown] {
        assert!(!batch.to_string().contains(secret.as_str()), "{batch}");
    }
    batch["keys"].as_array_mut().unwrap().sort_by_key(|counts| counts["key"].to_string());
    let keys = &batch["keys"];
    let (key, other) = ("key_01010101010101010101010101010101", "key_03030303030303030303030303030303");
    assert_eq!((&keys[0]["key"], &keys[0]["allowed"]), (&key.into(), &5.into()));
    assert_eq!(keys[0]["denied"], serde_json::json!({"missing-scope": 2}));
    assert_eq!((&keys[0]["address"], &keys[0]["used"][0]["at"]), (&"192.0.2.7".into(), &1_000.into()));
    assert_eq!((&keys[1]["key"], &keys[1]["allowed"]), (&other.into(), &0.into()));
    assert_eq!(keys[1]["denied"], serde_json::json!({"address-not-allowed": 1}));
    let denial = |key: &str, code: &str, method: &str, path: &str| serde_json::json!({"key": key, "code": code, "address": "192.0.2.7", "at": 1_000, "method": method, "path": path});
    let denials = [
        denial(key, "missing-scope", "POST", "[removed]"),
        denial(key, "missing-scope", "POST", "[removed]"),
        denial(other, "address-not-allowed", "GET", "/v1/reviews/8"),
    ];
    assert_eq!(batch["denials"], serde_json::json!(denials));
    assert_eq!(batch["denied"], serde_json::json!({"unknown-key": 3, "malformed-key": 1}));
}

#[test]
fn a_denied_request_loses_its_credential_before_the_response() {
    let worker = source_with(&[]);
    let envoy = FakeEnvoy::new("GET", "/v1/reviews", &[("authorization", b"Bearer nonsense")]);
    assert_eq!(denied(&envoy, Some(&worker)), (401, "malformed-key".to_owned()));
    assert_eq!(envoy.forwarded("authorization"), Vec::<String>::new());
}

#[test]
fn a_public_request_loses_its_credential_too() {
    let worker = source_with(&[]);
    let envoy = FakeEnvoy::new("GET", "/healthz", &[("x-api-key", b"\xff\xfe"), ("x-latchkey-key-id", b"forged")]);
    assert_eq!(handle(&envoy, Some(&worker)), RequestOutcome::Passes);
    assert_eq!(envoy.state("latchkey_verdict").as_deref(), Some("public"));
    assert_eq!(envoy.forwarded("x-api-key"), Vec::<String>::new());
    assert_eq!(envoy.forwarded("x-latchkey-key-id"), Vec::<String>::new());
}

#[test]
fn every_kind_of_bad_credential_has_its_code() {
    let (good, unknown) = (secret(1), secret(2));
    let worker = source_with(&[record(&good)]);
    let huge = vec![b'k'; 64 << 10];
    for (name, headers, expected) in [
        ("none", vec![], "missing-key"),
        ("two", vec![("x-api-key", good.as_bytes()), ("x-api-key", good.as_bytes())], "multiple-keys"),
        ("empty", vec![("x-api-key", &b""[..])], "malformed-key"),
        ("not UTF-8", vec![("x-api-key", &b"\xff\xfe"[..])], "malformed-key"),
        ("64 KiB", vec![("x-api-key", huge.as_slice())], "malformed-key"),
        ("unknown", vec![("x-api-key", unknown.as_bytes())], "unknown-key"),
    ] {
        let envoy = FakeEnvoy::new("GET", "/v1/reviews", &headers);
        assert_eq!(denied(&envoy, Some(&worker)), (401, expected.to_owned()), "{name}");
        assert_eq!(envoy.state("latchkey_key_id"), None, "{name}: no key is named");
    }
}

#[test]
fn a_denial_names_the_missing_scope_and_level() {
    let secret = secret(1);
    let worker = source_with(&[record(&secret)]);
    let envoy = FakeEnvoy::new("POST", "/v1/reviews", &[("x-api-key", secret.as_bytes())]);
    assert_eq!(denied(&envoy, Some(&worker)), (403, "missing-scope".to_owned()));
    let body = envoy.answer.borrow().clone().unwrap().body;
    assert!(body.contains(r#""scope":"reviews""#) && body.contains(r#""level":"write""#), "{body}");
    assert_eq!(envoy.state("latchkey_key_id").as_deref(), Some("key_01010101010101010101010101010101"));
}

#[test]
fn a_write_grant_is_enough_to_write() {
    let secret = secret(1);
    let worker = source_with(&[KeyRecord { grants: vec![(0, Level::Write)], ..record(&secret) }]);
    let envoy = FakeEnvoy::new("POST", "/v1/reviews", &[("x-api-key", secret.as_bytes())]);
    assert_eq!(handle(&envoy, Some(&worker)), RequestOutcome::Passes);
    assert_eq!(envoy.forwarded("x-latchkey-scopes"), ["reviews:write"]);
}

#[test]
fn an_allowlist_is_checked_against_the_trusted_address() {
    let secret = secret(1);
    let allowlist = Allowlist::try_from(Some(vec!["192.0.2.0/24".to_owned()])).unwrap();
    let worker = source_with(&[KeyRecord { allowlist, ..record(&secret) }]);
    for (source, passes) in [
        (Some("192.0.2.7:40000"), true),
        (Some("[::ffff:192.0.2.7]:40000"), true),
        (Some("198.51.100.1:40000"), false),
        (Some("/run/socket"), false),
        (None, false),
    ] {
        let mut envoy = FakeEnvoy::new("GET", "/v1/reviews", &[("x-api-key", secret.as_bytes())]);
        envoy.source = source;
        if passes {
            assert_eq!(handle(&envoy, Some(&worker)), RequestOutcome::Passes, "{source:?}");
        } else {
            assert_eq!(denied(&envoy, Some(&worker)), (403, "address-not-allowed".to_owned()), "{source:?}");
        }
    }
}

#[test]
fn metadata_that_cannot_be_read_denies_even_a_public_path() {
    let secret = secret(1);
    let worker = source_with(&[record(&secret)]);
    for metadata in [Err(PropertyError), Ok(Some(Vec::new())), Ok(Some(b"\xff\xff".to_vec()))] {
        let mut envoy = FakeEnvoy::new("GET", "/healthz", &[("x-api-key", secret.as_bytes())]);
        envoy.metadata = metadata;
        assert_eq!(denied(&envoy, Some(&worker)), (403, "no-route-rule".to_owned()));
    }
}

#[test]
fn without_a_table_only_public_requests_pass() {
    let empty = Source::new(name());
    let secret = secret(1);
    for worker in [None, Some(&empty)] {
        let envoy = FakeEnvoy::new("GET", "/v1/reviews", &[("x-api-key", secret.as_bytes())]);
        assert_eq!(denied(&envoy, worker).1, "not-ready");
        let envoy = FakeEnvoy::new("GET", "/healthz", &[]);
        assert_eq!(handle(&envoy, worker), RequestOutcome::Passes);
        let envoy = FakeEnvoy::new("GET", "/latchkey/ready?x", &[]);
        assert_eq!(handle(&envoy, worker), RequestOutcome::Answered);
        assert_eq!(envoy.answer.borrow().as_ref().unwrap().status, 503);
    }
    let envoy = FakeEnvoy::new("GET", "/latchkey/ready", &[]);
    handle(&envoy, Some(&source_with(&[])));
    assert_eq!(envoy.answer.borrow().as_ref().unwrap().status, 200);
}

#[test]
fn an_edge_that_could_not_be_set_up_denies_everything() {
    let secret = secret(1);
    let worker = source_with(&[record(&secret)]);
    let mut edge = Edge::parse(CONFIG.as_bytes()).unwrap();
    edge.deny_all();
    for path in ["/healthz", "/v1/reviews", "/latchkey/ready"] {
        let envoy = FakeEnvoy::new("GET", path, &[("x-api-key", secret.as_bytes())]);
        assert_eq!(handle_with(&edge, &envoy, Some(&worker)), RequestOutcome::Answered);
        assert_eq!(envoy.answer.borrow().as_ref().unwrap().status, 503, "{path}");
    }
}

#[test]
fn connect_without_a_path_is_denied() {
    let worker = source_with(&[]);
    let envoy = FakeEnvoy::new("CONNECT", "", &[]);
    envoy.remove_request_header(":path");
    assert_eq!(denied(&envoy, Some(&worker)), (401, "missing-key".to_owned()));
}

#[test]
fn a_pass_after_an_internal_redirect_is_decided_again_with_the_same_key() {
    let secret = secret(1);
    let worker = source_with(&[record(&secret)]);
    let revoked = source_with(&[KeyRecord { active: false, ..record(&secret) }]);
    for first in ["/v1/reviews/7", "/healthz"] {
        let envoy = FakeEnvoy::new("GET", first, &[("x-api-key", secret.as_bytes())]);
        assert_eq!(handle(&envoy, Some(&worker)), RequestOutcome::Passes, "{first}");
        envoy.redirect("/v1/reviews/8");
        assert_eq!(handle(&envoy, Some(&worker)), RequestOutcome::Passes, "{first}");
        assert_eq!(envoy.state("latchkey_verdict").as_deref(), Some("allowed"));
        assert_eq!(envoy.forwarded("x-latchkey-key-id").len(), 1);
        envoy.redirect("/v1/other");
        assert_eq!(denied(&envoy, Some(&worker)), (403, "no-route-rule".to_owned()), "{first}");
        envoy.redirect("/v1/reviews/8");
        assert_eq!(denied(&envoy, Some(&revoked)), (401, "inactive-key".to_owned()), "{first}: revoked in between");
    }
    let envoy = FakeEnvoy::new("GET", "/healthz", &[]);
    assert_eq!(handle(&envoy, Some(&worker)), RequestOutcome::Passes);
    envoy.redirect("/v1/reviews/8");
    assert_eq!(denied(&envoy, Some(&worker)), (401, "missing-key".to_owned()), "no key on the first pass either");
}

#[test]
fn a_grpc_client_gets_a_sentence_and_no_json() {
    for (content_type, is_grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;x", false),
        ("application/grpc-web", false),
        ("application/json", false),
    ] {
        let envoy = FakeEnvoy::new("POST", "/v1/reviews", &[("content-type", content_type.as_bytes())]);
        handle(&envoy, None);
        let LocalReply { headers, body, .. } = envoy.answer.borrow().clone().unwrap();
        assert_eq!(!headers.contains_key("content-type"), is_grpc, "{content_type}");
        assert_eq!(body.starts_with('{'), !is_grpc, "{content_type}: {body}");
        assert_eq!(headers["latchkey-code"], "missing-key");
    }
}
