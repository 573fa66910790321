//! Requests from a generator with fixed seeds.

use std::sync::atomic::{AtomicU64, Ordering};

use end_to_end::Connection;

use crate::{check, check_stack, from_upstream, stack};

/// Requests of the generator, each from its own seed.
const GENERATED: u64 = 10_000;

/// A complete request, so that Envoy doesn't wait for the rest of it.
fn generated(seed: u64, secret: &str) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let pick = |random: &mut fastrand::Rng, from: &[&str]| from[random.usize(..from.len())].to_owned();
    let method =
        pick(&mut random, &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "FOO", "PRI"]);
    let paths = [
        "/healthz",
        "/v1/reviews",
        "/v1/reviews/7",
        "/v1/webhooks",
        "/v1/workspaces/acme",
        "/v1/workspaces/%61cme",
        "/",
        "*",
        "//",
        "/..",
        "/v1/./reviews",
        "/v1/reviews/../../healthz",
        "/v1/%2e%2e/healthz",
        "/v1/reviews;a",
        "/latchkey/ready",
        "/latchkey/ready/..",
        "http://a/v1/reviews",
        "/v1/reviews%00",
        "/%ff%fe",
        "/v1/reviews#x",
        "/healthz%2f..%2fv1",
        "",
    ];
    let mut path = pick(&mut random, &paths);
    // The secret is only in the places where a request may carry a key.
    let strange =
        ["lk_live_000000000000000000000000000000004cjNQE", "", "x", "lk_", "%00", "Bearer", "\u{e9}", "lk_live_"];
    let value = |random: &mut fastrand::Rng, is_ours: bool| {
        if is_ours && random.bool() { secret.to_owned() } else { pick(random, &strange) }
    };
    for _ in 0..random.usize(..3) {
        let name = pick(&mut random, &["api_key", "api%5Fkey", "API_KEY", "x", "", "api_key[]"]);
        let separator = if path.contains('?') { '&' } else { '?' };
        let value = value(&mut random, matches!(name.as_str(), "api_key" | "api%5Fkey"));
        path.push_str(&format!("{separator}{name}={value}"));
    }
    let mut request = format!("{method} {path} HTTP/1.{}\r\n", u8::from(random.u8(..10) > 0)).into_bytes();
    if random.u8(..10) > 0 {
        request.extend(b"host: a\r\n");
    }
    let names = [
        "x-api-key",
        "X-Api-Key",
        "authorization",
        "cookie",
        "x-latchkey-key-id",
        "x-latchkey-verdict",
        "x_api_key",
        "x-forwarded-for",
        "content-type",
        "te",
        "origin",
        "upgrade",
        "connection",
        "x-envoy-original-path",
        "x-request-id",
        "accept",
        ":path",
        "x-a\u{e9}",
    ];
    for _ in 0..random.usize(..6) {
        let name = pick(&mut random, &names);
        request.extend(format!("{name}: ").into_bytes());
        match (random.u8(..8), name.as_str()) {
            (0, _) => request
                .extend(std::iter::repeat_with(|| random.u8(..)).filter(|b| !matches!(b, b'\r' | b'\n')).take(20)),
            (1, _) => request.extend(
                pick(&mut random, &["application/grpc", "trailers", "websocket", "close", "Basic eA==", "127.0.0.1"])
                    .into_bytes(),
            ),
            (2, _) => request.extend(vec![b'a'; random.usize(..9_000)]),
            (_, "authorization") => request.extend(format!("Bearer {}", value(&mut random, true)).into_bytes()),
            (_, "cookie") => request.extend(format!("a=1; api_key={}", value(&mut random, true)).into_bytes()),
            (_, name) => request.extend(value(&mut random, name.eq_ignore_ascii_case("x-api-key")).into_bytes()),
        }
        request.extend(b"\r\n");
    }
    // The request has no body, so that it is complete.
    request.extend(b"content-length: 0\r\n\r\n");
    request
}

#[test]
fn ten_thousand_generated_requests_open_nothing() {
    let (stack, key) = stack();
    let passed = AtomicU64::new(0);
    let before = stack.echo.seen();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (stack, key, passed) = (&stack, &key, &passed);
            scope.spawn(move || {
                for seed in (thread..GENERATED).step_by(4) {
                    let request = generated(seed, &key.secret);
                    let is_head = request.starts_with(b"HEAD ");
                    let mut connection = Connection::open(stack.envoy.port);
                    let sent = connection.send(&request);
                    let answer = match (sent, is_head) {
                        (Err(_), _) => continue,
                        (Ok(()), true) => connection.read_head(),
                        (Ok(()), false) => connection.read_answer(),
                    };
                    // Envoy may close instead of answering a request that it can't read.
                    let Ok(answer) = answer else { continue };
                    check(&format!("seed {seed}"), &request, &answer, &key.secret, passed);
                    let upstream = from_upstream(&answer)
                        || (is_head && answer.headers.contains_key("x-envoy-upstream-service-time"));
                    if is_head && upstream {
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                    let text = String::from_utf8_lossy(&request);
                    let public = text.lines().next().is_some_and(|line| line.contains("/healthz"));
                    let keys = text.matches(key.secret.as_str()).count();
                    assert!(
                        !upstream || public || keys == 1,
                        "seed {seed} passed with {keys} keys:\n{text}\n{answer:?}"
                    );
                }
            });
        }
    });
    assert!(passed.load(Ordering::SeqCst) > 100, "some of them pass, otherwise this shows nothing");
    check_stack(&stack, before, &passed, &key.secret);
}
