//! Request smuggling: requests that two parsers could split or read in different ways.

use std::sync::atomic::{AtomicU64, Ordering};

use end_to_end::Connection;
use serde_json::{Value, json};

use crate::{check, check_stack, stack};

/// The end of the names of requests that Envoy's codec answers with 501, as RFC 9112 6.1 requires: the only 5xx that
/// isn't ours.
const UNKNOWN_CODING: &str = "unknown coding";

/// Requests with a valid key that two parsers could split or read in different ways.
fn ambiguous(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let smuggled = "GET /v1/webhooks/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let key = format!("host: a\r\nx-api-key: {secret}\r\n");
    let get = |lines: &str| format!("GET /v1/reviews HTTP/1.1\r\n{key}{lines}\r\n").into_bytes();
    let body = |lines: &str, body: &str| format!("GET /v1/reviews HTTP/1.1\r\n{key}{lines}\r\n{body}").into_bytes();
    let line = |line: &str| format!("{line}\r\n{key}\r\n").into_bytes();
    vec![
        (
            "a length and chunks",
            body("content-length: 5\r\ntransfer-encoding: chunked\r\n", &format!("0\r\n\r\n{smuggled}")),
        ),
        (
            "chunks and a length",
            body("transfer-encoding: chunked\r\ncontent-length: 5\r\n", &format!("0\r\n\r\n{smuggled}")),
        ),
        ("two lengths", body("content-length: 5\r\ncontent-length: 0\r\n", smuggled)),
        ("two lengths in one", body("content-length: 0, 5\r\n", smuggled)),
        ("a length below zero", body("content-length: -1\r\n", smuggled)),
        ("a length with a plus", body("content-length: +5\r\n", smuggled)),
        ("a length in hex", body("content-length: 0x5\r\n", smuggled)),
        ("a length beyond 64 bits", body("content-length: 18446744073709551621\r\n", smuggled)),
        ("a length of nothing", body("content-length: \r\n", smuggled)),
        ("an unknown coding", body("transfer-encoding: xchunked\r\n", smuggled)),
        (
            "chunked, then identity: an unknown coding",
            body("transfer-encoding: chunked, identity\r\n", &format!("0\r\n\r\n{smuggled}")),
        ),
        (
            "chunked twice: an unknown coding",
            body("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", &format!("0\r\n\r\n{smuggled}")),
        ),
        ("a coding behind a blank", body("transfer-encoding : chunked\r\n", &format!("0\r\n\r\n{smuggled}"))),
        ("a coding behind a tab", body("transfer-encoding:\x0bchunked\r\n", &format!("0\r\n\r\n{smuggled}"))),
        ("a name with a blank", get("x api-key: a\r\n")),
        ("a name with a zero byte", get("x-a\0: a\r\n")),
        ("a name that is empty", get(": a\r\n")),
        ("no colon", get("x-a\r\n")),
        ("a value with a zero byte", get("x-a: a\0b\r\n")),
        ("a pseudo-header", get(":path: /v1/webhooks\r\n")),
        ("a pseudo-header for the method", get(":method: POST\r\n")),
        ("300 headers", get(&"x-a: b\r\n".repeat(300))),
        ("100 KiB of headers", get(&format!("x-a: {}\r\n", "a".repeat(100 << 10)))),
        ("a version of 2", line("GET /v1/reviews HTTP/2.0")),
        ("a version of 9", line("GET /v1/reviews HTTP/9.9")),
        ("no version", line("GET /v1/reviews")),
        ("a blank in the path", line("GET /v1/reviews /v1/webhooks HTTP/1.1")),
        ("a tab in the path", line("GET /v1/reviews\t/x HTTP/1.1")),
        ("a zero byte in the path", line("GET /v1/reviews\0 HTTP/1.1")),
        ("an authority for a path", line("GET a:443 HTTP/1.1")),
        ("a method with a colon", line("GE:T /v1/reviews HTTP/1.1")),
        ("a method of 20 KiB", line(&format!("{} /v1/reviews HTTP/1.1", "G".repeat(20 << 10)))),
        (
            "a preface of HTTP/2 in mid-air",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /v1/reviews HTTP/1.1\r\n\r\n".to_vec(),
        ),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(20)),
    ]
}

#[test]
fn a_request_that_can_be_split_in_two_ways_reaches_no_upstream() {
    let (stack, key) = stack();
    let passed = AtomicU64::new(0);
    let before = stack.echo.seen();
    let requests = ambiguous(&key.secret);
    // In parallel, because Envoy waits a second before it closes.
    std::thread::scope(|scope| {
        for (name, request) in &requests {
            let (stack, key, passed) = (&stack, &key, &passed);
            scope.spawn(move || {
                let mut connection = Connection::open(stack.envoy.port);
                // Envoy closes the connection of some of them without an answer.
                let Ok(answer) = connection.try_raw(request) else { return };
                if name.ends_with(UNKNOWN_CODING) {
                    assert_eq!((answer.status, answer.body.as_str()), (501, "Not Implemented"), "{name}");
                } else {
                    check(name, request, &answer, &key.secret, passed);
                    assert!((400..500).contains(&answer.status), "{name}: {answer:?}");
                }
                assert!(connection.read_answer().is_err(), "{name}: a second answer to one request");
            });
        }
    });
    assert_eq!(passed.load(Ordering::SeqCst), 0, "the upstream answered one of them");
    check_stack(&stack, before, &passed, &key.secret);
}

#[test]
fn what_envoy_reads_leniently_reaches_the_upstream_once_and_plain() {
    let (stack, key) = stack();
    let key = format!("x-api-key: {}\r\n", key.secret);
    for (name, request) in [
        ("a bare return in a value", format!("GET /v1/reviews HTTP/1.1\r\nhost: a\r\n{key}x-a: a\rx-b: b\r\n\r\n")),
        ("two hosts", format!("GET /v1/reviews HTTP/1.1\r\nhost: a\r\nhost: b\r\n{key}\r\n")),
        ("two blanks", format!("GET  /v1/reviews HTTP/1.1\r\nhost: a\r\n{key}\r\n")),
        ("a blank before the version", format!("GET /v1/reviews  HTTP/1.1\r\nhost: a\r\n{key}\r\n")),
        ("blanks around a value", format!("GET /v1/reviews HTTP/1.1\r\nhost: a\r\n{}\r\n", key.replace(": ", ": \t "))),
        ("a whole URI", format!("GET http://a/v1/reviews HTTP/1.1\r\nhost: b\r\n{key}\r\n")),
        ("lines without a return", format!("GET /v1/reviews HTTP/1.1\nhost: a\n{key}\n").replace("\r\n", "\n")),
    ] {
        let before = stack.echo.seen();
        let answer = Connection::open(stack.envoy.port).raw(request.as_bytes());
        if answer.verdict() == "400 -" {
            assert_eq!(stack.echo.seen(), before, "{name}");
            continue;
        }
        assert_eq!(answer.verdict(), "200 -", "{name}");
        let echo = answer.json();
        assert_eq!((&echo["path"], &echo["headers"]["x-b"]), (&json!("/v1/reviews"), &Value::Null), "{name}: {echo}");
        assert_eq!(stack.echo.seen(), before + 1, "{name}");
    }
}

#[test]
fn a_key_allows_its_own_request_and_no_later_one_on_the_connection() {
    let (stack, key) = stack();
    let with_key = format!("GET /v1/reviews HTTP/1.1\r\nhost: a\r\nx-api-key: {}\r\n\r\n", key.secret);
    let public = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let without = "GET /v1/reviews HTTP/1.1\r\nhost: a\r\n\r\n";
    for (name, requests, expected) in [
        ("a key, then none", [with_key.as_str(), without], ["200 -", "401 missing-key"]),
        ("none, then a key", [without, &with_key], ["401 missing-key", "200 -"]),
        ("public, then none", [public, without], ["200 -", "401 missing-key"]),
        ("none, then public", [without, public], ["401 missing-key", "200 -"]),
    ] {
        let mut connection = Connection::open(stack.envoy.port);
        // Both together, before any answer.
        connection.send(requests.concat().as_bytes()).expect("sent");
        let seen = expected.map(|_| connection.read_answer().expect("an answer").verdict());
        assert_eq!(seen, expected, "{name}");
    }
    let mut connection = Connection::open(stack.envoy.port);
    // A body is never read as a request.
    let body = [with_key.as_str(), without].concat();
    let post = format!("POST /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = connection.raw(post.as_bytes());
    assert_eq!(
        (answer.verdict().as_str(), answer.json()["body_bytes"].as_u64()),
        ("200 -", u64::try_from(body.len()).ok())
    );
}

#[test]
fn no_proxy_header_changes_the_decision() {
    let (stack, key) = stack();
    let before = stack.echo.seen();
    for (name, value) in [
        ("x-envoy-original-path", "/healthz"),
        ("x-envoy-original-method", "OPTIONS"),
        ("x-original-url", "/healthz"),
        ("x-rewrite-url", "/healthz"),
        ("x-forwarded-prefix", "/healthz"),
        ("x-forwarded-uri", "/healthz"),
        ("x-http-method-override", "OPTIONS"),
        ("x-envoy-internal", "true"),
        ("x-envoy-expected-rq-timeout-ms", "1"),
        ("x-envoy-decorator-operation", "public"),
        ("x-latchkey-verdict", "allowed"),
        ("x-latchkey-rule", "public "),
        ("connection", "x-latchkey-key-id, x-latchkey-rule"),
        ("via", "1.1 latchkey"),
        ("forwarded", "for=127.0.0.1;by=127.0.0.1"),
    ] {
        let verdict = |secret: &str| {
            Connection::open(stack.envoy.port).get("/v1/webhooks", &[(name, value), ("x-api-key", secret)]).verdict()
        };
        assert_eq!(verdict(&key.secret), "403 missing-scope", "{name}");
        assert_eq!(verdict("x"), "401 malformed-key", "{name}");
    }
    assert_eq!(stack.echo.seen(), before, "the upstream saw one of them");
    // Before any filter, Envoy removes the headers that `connection` names. That includes the key, so such
    // a request is denied.
    let named = [("connection", "x-api-key"), ("x-api-key", key.secret.as_str())];
    assert_eq!(Connection::open(stack.envoy.port).get("/v1/reviews", &named).verdict(), "401 missing-key");
    let named = [("connection", "x-latchkey-key-id, x-latchkey-workspace-id"), ("x-api-key", key.secret.as_str())];
    let echo = Connection::open(stack.envoy.port).get("/v1/reviews", &named).json();
    assert_eq!(echo["headers"]["x-latchkey-key-id"], json!([key.id]), "no client can have it removed: {echo}");
}
