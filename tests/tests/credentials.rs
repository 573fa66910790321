//! The places where a request may carry a key. The filter removes the key before the upstream and the logs.

use end_to_end::{Connection, CreatedKey, EnvoyConfig, Stack, eventually};
use serde_json::{Value, json};

/// Envoy with all four kinds of places for a key.
fn stack() -> Stack {
    stack_with(|_| {})
}

fn stack_with(change: impl FnOnce(&mut EnvoyConfig)) -> Stack {
    Stack::start_with(|config| {
        change(config);
        config.accept_keys_everywhere();
    })
}

/// A key that every worker knows, and a connection.
fn known(stack: &Stack) -> (CreatedKey, Connection) {
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    (key, Connection::open(stack.envoy.port))
}

#[test]
fn a_key_is_accepted_in_each_place_and_only_it_is_removed() {
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
fn two_keys_are_denied_wherever_they_are() {
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
fn no_key_reaches_the_access_log_whatever_the_verdict() {
    // Log the whole path and the headers, to show that the filter removes the key, and not only the log's format.
    let stack = stack_with(|config| {
        config.replace(
            "                  path: \"%PATH(NQ)%\"\n",
            "                  path: \"%REQ(:PATH)%\"\n                  carriers: \"%REQ(X-API-KEY)% %REQ(AUTHORIZATION)% %REQ(COOKIE)%\"\n",
        );
    });
    let (key, mut connection) = known(&stack);
    let (cookie, bearer) = (format!("api_key={}", key.secret), format!("Bearer {}", key.secret));
    let paths = ["/v1/reviews", "/healthz", "/v1/webhooks", "/elsewhere", "/latchkey/ready"];
    for path in paths {
        connection.get(&format!("{path}?n=1&api_key={}", key.secret), &[]);
        connection.get(&format!("{path}?n=2"), &[("cookie", &cookie)]);
        connection.get(&format!("{path}?n=3"), &[("x-api-key", &key.secret)]);
        connection.get(&format!("{path}?n=4&api_key={}x", key.secret), &[]);
        connection.get(&format!("{path}?n=5"), &[("authorization", &bearer)]);
        connection.get(&format!("{path}?n=6"), &[("x-api-key", &key.secret), ("authorization", &bearer)]);
        connection.get(&format!("{path}?n=7&kept=1"), &[("authorization", "Basic kept"), ("cookie", "a=kept")]);
    }
    let log = eventually("every request is in the access log", || {
        let log = stack.envoy.process.log();
        let logged = |path: &&str| (1..=6).all(|n| log.contains(&format!("\"path\":\"{path}?n={n}\"")));
        if paths.iter().all(logged) { Ok(log.clone()) } else { Err(log.clone()) }
    });
    assert!(!log.contains(&key.secret), "the access log has the secret");
    assert!(log.contains("- Basic kept a=kept"), "the log shows what isn't removed: {log}");
}

#[test]
fn the_upstream_of_a_public_route_receives_everything_but_the_key() {
    let stack = stack();
    let (key, mut connection) = known(&stack);
    let secret = &key.secret;
    let (cookie, bearer) = (format!("a=1; api_key={secret}; b=2"), format!("Bearer {secret}"));
    let sent = [
        ("x-api-key", secret.as_str()),
        ("authorization", &bearer),
        ("cookie", &cookie),
        ("x-latchkey-key-id", "forged"),
        ("x-latchkey-anything", "forged"),
        ("accept-language", "de"),
    ];
    let answer = connection.get(&format!("/healthz?a=1&api_key={secret}&b=2"), &sent);
    assert_eq!(answer.verdict(), "200 -");
    assert!(!answer.body.contains(secret.as_str()) && !answer.body.contains("forged"), "{answer:?}");
    let echo = answer.json();
    assert_eq!(echo["path"], "/healthz?a=1&b=2");
    assert_eq!(echo["headers"]["cookie"], json!(["a=1; b=2"]));
    assert_eq!(echo["headers"]["accept-language"], json!(["de"]));
    for gone in ["x-api-key", "authorization", "x-latchkey-key-id", "x-latchkey-anything"] {
        assert!(echo["headers"].get(gone).is_none(), "{gone} reached the upstream: {echo}");
    }
}

#[test]
fn a_place_that_is_not_configured_carries_no_key_and_stays_as_it_is() {
    let stack = Stack::start_with(|config| {
        config.plugin["credentials"] = json!([{"header": "x-service-key", "prefix": "Key "}]);
    });
    let key = stack.admin.create_key("acme", "sync");
    let mut connection = Connection::open(stack.envoy.port);
    let own = format!("kEy {}", key.secret);
    eventually("the key is known", || {
        let seen = connection.get("/v1/reviews", &[("x-service-key", &own)]).verdict();
        if seen == "200 -" { Ok(()) } else { Err(seen) }
    });
    let headers =
        [("x-service-key", own.as_str()), ("x-api-key", "a"), ("authorization", "Bearer b"), ("cookie", "c=d")];
    let echo = connection.get("/v1/reviews?api_key=e", &headers).json();
    assert_eq!(echo["path"], "/v1/reviews?api_key=e");
    let received = &echo["headers"];
    for (name, value) in &headers[1..] {
        assert_eq!(received[*name], json!([value]), "{echo}");
    }
    assert!(received.get("x-service-key").is_none(), "{echo}");
    assert_eq!(connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict(), "401 missing-key");
}

#[test]
fn the_upstream_receives_each_forwarded_header_once() {
    let stack = Stack::start_with(|config| {
        config.plugin["forward"] = json!(["key_id", "workspace_id", "workspace", "scopes"]);
    });
    let scopes = json!({"webhooks": "write", "reviews": "read"});
    let key = stack.admin.create_key_with("acme", &json!({"name": "k", "expires_in": "none", "scopes": scopes}));
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    let forged = ["x-latchkey-key-id", "x-latchkey-workspace-id", "x-latchkey-workspace", "x-latchkey-scopes"];
    let mut headers: Vec<(&str, &str)> = forged.iter().flat_map(|name| [(*name, "forged"), (*name, "again")]).collect();
    headers.push(("x-api-key", &key.secret));
    let echo = connection.get("/v1/reviews", &headers).json();
    let received = &echo["headers"];
    assert_eq!(received["x-latchkey-key-id"], json!([key.id]));
    assert_eq!(received["x-latchkey-workspace-id"], json!([stack.admin.get("/v1/workspaces/acme")["id"]]));
    assert_eq!(received["x-latchkey-workspace"], json!(["acme"]));
    assert_eq!(received["x-latchkey-scopes"], json!(["reviews:read webhooks:write"]));
}
