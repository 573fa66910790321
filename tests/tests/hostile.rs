//! Hostile requests by raw socket: whatever they say, nothing passes that wasn't allowed and no worker breaks.

use std::sync::atomic::{AtomicU64, Ordering};

use end_to_end::{Connection, CreatedKey, Response, Stack, eventually};
use serde_json::json;

/// Requests of the generator, each from its own seed.
const GENERATED: u64 = 10_000;

fn stack() -> (Stack, CreatedKey) {
    let stack = Stack::start_with(|config| {
        config.plugin["credentials"] = json!([
            {"header": "x-api-key"},
            {"header": "authorization", "prefix": "Bearer "},
            {"query": "api_key"},
            {"cookie": "api_key"},
        ]);
    });
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    (stack, key)
}

/// True when the upstream answered: its answer says what it received.
fn from_upstream(answer: &Response) -> bool {
    answer.status == 200 && answer.body.contains("\"body_bytes\"")
}

/// What must hold of any answer; counts those that came from the upstream.
fn check(name: &str, request: &[u8], answer: &Response, secret: &str, passed: &AtomicU64) {
    let ours = answer.headers.contains_key("latchkey-code");
    assert!(answer.status < 500 || ours, "{name}: {answer:?}\n{}", String::from_utf8_lossy(request));
    assert!(!answer.body.contains(secret), "{name}: the secret came back: {answer:?}");
    if from_upstream(answer) {
        passed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Nothing broke, nothing was seen that didn't pass, and nothing was logged that mustn't be.
fn check_stack(stack: &Stack, seen_before: u64, passed: &AtomicU64, secret: &str) {
    stack.envoy.assert_no_vm_broke();
    let expected = seen_before + passed.load(Ordering::SeqCst);
    assert_eq!(stack.echo.seen(), expected, "the upstream saw a request whose client saw no answer of it");
    let mut last = Connection::open(stack.envoy.port);
    assert_eq!(last.get("/v1/reviews/last", &[("x-api-key", secret)]).verdict(), "200 -", "the edge serves on");
    let log = eventually("the last request is in the access log", || {
        let log = stack.envoy.process.log();
        if log.contains("/v1/reviews/last") { Ok(log) } else { Err("not yet".to_owned()) }
    });
    let leaks: Vec<&str> = log.lines().filter(|line| line.contains(secret)).take(5).collect();
    assert!(leaks.is_empty(), "the access log has the secret: {leaks:#?}");
}

/// Twenty values that a client may take for a key.
fn values(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let text = |value: String| value.into_bytes();
    vec![
        ("nothing", vec![]),
        ("a space", text(" ".into())),
        ("ff fe", vec![0xff, 0xfe]),
        ("a tab inside", text("lk_live\t_".into())),
        ("16 KiB", vec![b'k'; 16 << 10]),
        ("60 KiB of prefixes", text("lk_".repeat(20 << 10))),
        ("one symbol more", text(format!("{secret}0"))),
        ("one symbol less", secret.as_bytes()[..secret.len() - 1].to_vec()),
        ("upper case", text(secret.to_uppercase())),
        ("twice with a comma", text(format!("{secret},{secret}"))),
        ("twice with a space", text(format!("{secret} {secret}"))),
        ("prefix alone", text("lk_live_".into())),
        ("unknown but well made", text("lk_live_000000000000000000000000000000004cjNQE".into())),
        ("another environment's prefix", text(secret.replace("lk_live_", "lk_test_"))),
        ("an admin token's prefix", text(secret.replace("lk_live_", "lkadm_"))),
        ("JSON", text("{\"key\":1}".into())),
        ("SQL", text("' OR 1=1 --".into())),
        ("another script", "лк_live_ключ".as_bytes().to_vec()),
        ("a percent sign", text(format!("%{secret}"))),
        ("a bearer in a value", text(format!("Bearer {secret}"))),
    ]
}

/// Ten ways to send a value; the value is never the right one as it stands.
fn requests(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let header = |start: &[u8], end: &[u8]| {
        [b"GET /v1/reviews HTTP/1.1\r\nhost: a\r\n", start, value, end, b"\r\n\r\n"].concat()
    };
    // What can't stand in a request line is escaped, as a client would.
    let escaped: String = value.iter().map(|byte| format!("%{byte:02X}")).collect();
    let path = |query: String| format!("GET /v1/reviews?{query} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes();
    vec![
        ("header", header(b"x-api-key: ", b"")),
        ("header in capitals", header(b"X-API-KEY:", b"")),
        ("bearer", header(b"authorization: Bearer ", b"")),
        ("bearer in lower case", header(b"authorization: bearer ", b"")),
        ("another scheme", header(b"authorization: Token ", b"")),
        ("query", path(format!("api_key={escaped}"))),
        ("query, name escaped", path(format!("api%5fkey={escaped}&x=1"))),
        ("cookie", header(b"cookie: api_key=", b"")),
        ("quoted cookie", header(b"cookie: a=1; api_key=\"", b"\"; b=2")),
        ("header and identity", header(b"x-latchkey-key-id: key_1\r\nx-latchkey-verdict: allowed\r\nx-api-key: ", b"")),
    ]
}

#[test]
fn two_hundred_hostile_credentials_open_nothing() {
    let (stack, key) = stack();
    let passed = AtomicU64::new(0);
    let before = stack.echo.seen();
    let mut count = 0;
    for (value_name, value) in values(&key.secret) {
        for (place, request) in requests(&value) {
            count += 1;
            let name = format!("{value_name}, {place}");
            // Envoy may refuse to read some of them at all, and close.
            let Ok(answer) = Connection::open(stack.envoy.port).try_raw(&request) else { continue };
            check(&name, &request, &answer, &key.secret, &passed);
            // In a header without a prefix "Bearer" is part of the key; behind a prefix it is one "Bearer " too many.
            assert!(!from_upstream(&answer), "{name} passed: {answer:?}");
            assert!((400..500).contains(&answer.status), "{name}: {answer:?}");
        }
    }
    assert_eq!(count, 200);
    check_stack(&stack, before, &passed, &key.secret);
}

/// A request that is complete, so that nobody waits for the rest of it.
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
    // The secret stands only where a key may stand: what else a client sends is its own affair, and passes as it is.
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
    // After this answer the connection ends, so that a second reading of the request would be a second answer.
    request.extend(b"content-length: 0\r\n\r\n");
    request
}

#[test]
fn ten_thousand_generated_requests_open_nothing() {
    let (stack, key) = stack();
    let passed = AtomicU64::new(0);
    let before = stack.echo.seen();
    std::thread::scope(|scope| {
        for lane in 0..4 {
            let (stack, key, passed) = (&stack, &key, &passed);
            scope.spawn(move || {
                for seed in (lane..GENERATED).step_by(4) {
                    let request = generated(seed, &key.secret);
                    let is_head = request.starts_with(b"HEAD ");
                    let mut connection = Connection::open(stack.envoy.port);
                    let sent = connection.send(&request);
                    let answer = match (sent, is_head) {
                        (Err(_), _) => continue,
                        (Ok(()), true) => connection.read_head(),
                        (Ok(()), false) => connection.read_answer(),
                    };
                    // A request that Envoy can't read may be answered by closing.
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
    assert!(passed.load(Ordering::SeqCst) > 100, "some of them are right, else this shows nothing");
    check_stack(&stack, before, &passed, &key.secret);
}
