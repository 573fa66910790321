//! Handwritten values in the places for a key.

use std::sync::atomic::AtomicU64;

use end_to_end::Connection;

use crate::{check, check_stack, from_upstream, stack};

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

/// Ten ways to send a value, which is never a valid key itself.
fn requests(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let header = |start: &[u8], end: &[u8]| {
        [b"GET /v1/reviews HTTP/1.1\r\nhost: a\r\n", start, value, end, b"\r\n\r\n"].concat()
    };
    // Escaped, as a client does with what a request line can't contain.
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
            // Without a prefix, "Bearer" is a part of the key; after a prefix, it is one "Bearer " too many.
            assert!(!from_upstream(&answer), "{name} passed: {answer:?}");
            assert!((400..500).contains(&answer.status), "{name}: {answer:?}");
        }
    }
    assert_eq!(count, 200);
    check_stack(&stack, before, &passed, &key.secret);
}
