//! Where a key may stand, and that it stays there for nobody else to see.

use end_to_end::{Connection, CreatedKey, EnvoyConfig, Stack, eventually};
use serde_json::{Value, json};

/// Envoy with all four kinds of places.
fn stack() -> Stack {
    stack_with(|_| {})
}

fn stack_with(change: impl FnOnce(&mut EnvoyConfig)) -> Stack {
    Stack::start_with(|config| {
        change(config);
        config.plugin["credentials"] = json!([
            {"header": "x-api-key"},
            {"header": "authorization", "prefix": "Bearer "},
            {"query": "api_key"},
            {"cookie": "api_key"},
        ]);
    })
}

/// A key that every worker knows, and a connection.
fn known(stack: &Stack) -> (CreatedKey, Connection) {
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    (key, Connection::open(stack.envoy.port))
}

#[test]
fn a_key_passes_from_each_place_and_only_it_is_removed() {
    let stack = stack();
    let (key, mut connection) = known(&stack);
    let secret = &key.secret;
    let encoded = secret.replace('_', "%5F");
    /// A name, the path and headers that are sent, the path that arrives, and the headers that arrive as they were.
    type Row<'a> = (&'a str, String, Vec<(&'a str, String)>, &'a str, Vec<(&'a str, Value)>);
    let rows: Vec<Row<'_>> = vec![
        ("header", "/v1/reviews".into(), vec![("x-api-key", secret.clone())], "/v1/reviews", vec![]),
        ("bearer", "/v1/reviews".into(), vec![("authorization", format!("Bearer {secret}"))], "/v1/reviews", vec![]),
        (
            "bearer in any case",
            "/v1/reviews".into(),
            vec![("authorization", format!("bEaReR {secret}"))],
            "/v1/reviews",
            vec![],
        ),
        ("query", format!("/v1/reviews?api_key={secret}"), vec![], "/v1/reviews", vec![]),
        (
            "query among others",
            format!("/v1/reviews?a=%26&api_key={secret}&b=x=y"),
            vec![],
            "/v1/reviews?a=%26&b=x=y",
            vec![],
        ),
        ("encoded name and value", format!("/v1/reviews?api%5Fkey={encoded}&c"), vec![], "/v1/reviews?c", vec![]),
        ("cookie", "/v1/reviews".into(), vec![("cookie", format!("api_key={secret}"))], "/v1/reviews", vec![]),
        (
            "cookie among others",
            "/v1/reviews".into(),
            vec![("cookie", format!("a=1; api_key={secret}; b=\"2\""))],
            "/v1/reviews",
            vec![("cookie", json!(["a=1; b=\"2\""]))],
        ),
        (
            "another scheme beside a key",
            "/v1/reviews".into(),
            vec![("authorization", "Basic dXNlcjpwYXNz".into()), ("x-api-key", secret.clone())],
            "/v1/reviews",
            vec![("authorization", json!(["Basic dXNlcjpwYXNz"]))],
        ),
    ];
    for (name, path, headers, expected_path, kept) in rows {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = connection.get(&path, &headers);
        assert_eq!(answer.verdict(), "200 -", "{name}");
        let echo = answer.json();
        assert_eq!(echo["path"], expected_path, "{name}");
        assert!(!answer.body.contains(secret.as_str()), "{name}: the upstream saw the secret: {echo}");
        let mut carriers = echo["headers"].clone();
        for (header, value) in kept {
            assert_eq!(carriers[header], value, "{name}");
            carriers[header].take();
        }
        for header in ["x-api-key", "authorization", "cookie"] {
            assert!(carriers.get(header).is_none_or(Value::is_null), "{name}: {header} reached the upstream: {echo}");
        }
    }
}

#[test]
fn two_keys_are_one_too_many_wherever_they_stand() {
    let stack = stack();
    let (key, mut connection) = known(&stack);
    let secret = &key.secret;
    let (query, cookie, bearer) =
        (format!("/v1/reviews?api_key={secret}"), format!("api_key={secret}"), format!("Bearer {secret}"));
    for (name, path, headers) in [
        ("header and query", query.as_str(), vec![("x-api-key", secret.as_str())]),
        ("query and cookie", &query, vec![("cookie", cookie.as_str())]),
        ("cookie and bearer", "/v1/reviews", vec![("cookie", cookie.as_str()), ("authorization", bearer.as_str())]),
        ("header twice", "/v1/reviews", vec![("x-api-key", secret.as_str()), ("x-api-key", secret)]),
        ("bearer twice", "/v1/reviews", vec![("authorization", bearer.as_str()), ("authorization", &bearer)]),
        ("a right key and a wrong one", "/v1/reviews", vec![("x-api-key", secret.as_str()), ("x-api-key", "x")]),
    ] {
        assert_eq!(connection.get(path, &headers).verdict(), "401 multiple-keys", "{name}");
    }
    let twice = format!("/v1/reviews?api_key={secret}&api_key={secret}");
    assert_eq!(connection.get(&twice, &[]).verdict(), "401 multiple-keys", "query twice");
}

#[test]
fn no_key_reaches_the_access_log_allowed_public_or_denied() {
    // The whole path, to see that the filter has removed the key, and not only the log's format.
    let stack = stack_with(|config| config.replace("%PATH(NQ)%", "%REQ(:PATH)%"));
    let (key, mut connection) = known(&stack);
    let cookie = format!("api_key={}", key.secret);
    let paths = ["/v1/reviews", "/healthz", "/v1/webhooks", "/elsewhere", "/latchkey/ready"];
    for path in paths {
        connection.get(&format!("{path}?n=1&api_key={}", key.secret), &[]);
        connection.get(&format!("{path}?n=2"), &[("cookie", &cookie)]);
        connection.get(&format!("{path}?n=3"), &[("x-api-key", &key.secret)]);
        connection.get(&format!("{path}?n=4&api_key={}x", key.secret), &[]);
    }
    let log = eventually("every request is in the access log", || {
        let log = stack.envoy.process.log();
        let logged = |path: &&str| (1..=4).all(|n| log.contains(&format!("\"path\":\"{path}?n={n}\"")));
        if paths.iter().all(logged) { Ok(log.clone()) } else { Err(log.clone()) }
    });
    assert!(!log.contains(&key.secret), "the access log has the secret");
}
