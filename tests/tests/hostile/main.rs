//! Hostile requests over raw sockets: nothing passes that wasn't allowed, and no worker fails.

use std::sync::atomic::{AtomicU64, Ordering};

use end_to_end::{Connection, CreatedKey, Response, Stack, eventually};
use serde_json::Value;

mod framing;
mod generated;
mod presented;
mod trailers;

fn stack() -> (Stack, CreatedKey) {
    let stack = Stack::start_with(|config| {
        config.accept_keys_everywhere();
        config.replace(
            "                  ms: \"%DURATION%\"\n",
            "                  ms: \"%DURATION%\"\n                  upstream: \"%UPSTREAM_HOST%\"\n",
        );
    });
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    (stack, key)
}

/// Whether the upstream answered: its answer contains what it received.
fn from_upstream(answer: &Response) -> bool {
    answer.status == 200 && answer.body.contains("\"body_bytes\"")
}

/// Checks what must hold for any answer; counts the answers from the upstream.
fn check(name: &str, request: &[u8], answer: &Response, secret: &str, passed: &AtomicU64) {
    let ours = answer.headers.contains_key("latchkey-code");
    assert!(answer.status < 500 || ours, "{name}: {answer:?}\n{}", String::from_utf8_lossy(request));
    assert!(!answer.body.contains(secret), "{name}: the secret came back: {answer:?}");
    if from_upstream(answer) {
        passed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Checks that no VM failed, that the upstream saw only what passed, and that the log has no secret.
fn check_stack(stack: &Stack, seen_before: u64, passed: &AtomicU64, secret: &str) {
    stack.envoy.assert_no_vm_failed();
    let expected = seen_before + passed.load(Ordering::SeqCst);
    assert_eq!(stack.echo.seen(), expected, "the upstream saw a request whose client saw no answer of it");
    let mut last = Connection::open(stack.envoy.port);
    assert_eq!(last.get("/v1/reviews/last", &[("x-api-key", secret)]).verdict(), "200 -", "the edge still serves");
    let seen = stack.echo.seen();
    let log = eventually("the access log has each request that the upstream saw", || {
        let log = stack.envoy.process.log();
        match u64::try_from(to_upstream(&log).len()).expect("a count") {
            sent if sent == seen && log.contains("/v1/reviews/last") => Ok(log),
            sent => Err(format!("{sent} sent, {seen} seen")),
        }
    });
    for line in to_upstream(&log) {
        let verdict = line["latchkey_verdict"].as_str();
        assert!(matches!(verdict, Some("allowed" | "public")), "sent without a verdict that allows it: {line}");
    }
    let leaks: Vec<&str> = log.lines().filter(|line| line.contains(secret)).take(5).collect();
    assert!(leaks.is_empty(), "the access log has the secret: {leaks:#?}");
}

/// The access log's lines for requests that Envoy sent to the upstream. Every line must be valid JSON.
fn to_upstream(log: &str) -> Vec<Value> {
    let parsed = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines = log.lines().filter(|line| line.starts_with('{') && line.ends_with('}')).map(parsed);
    lines.filter(|line: &Value| line["upstream"].is_string()).collect()
}
