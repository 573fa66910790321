//! Denials: one format for all, and nothing that the client may not know.

use end_to_end::{Connection, CreatedKey, Envoy, Response, Stack, eventually, now};
use serde_json::{Value, json};

fn with_key(stack: &Stack, body: Value) -> CreatedKey {
    let mut whole = json!({"name": "k", "expires_in": "none", "scopes": {"reviews": "read"}});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    stack.admin.create_key_with("acme", &whole)
}

fn request(stack: &Stack, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    Connection::open(stack.envoy.port).request(method, path, headers)
}

/// Waits until every worker gives this verdict.
fn on_all_workers(stack: &Stack, headers: &[(&str, &str)], expected: &str) {
    for mut connection in stack.envoy.connections(8) {
        eventually(expected, || {
            let seen = connection.get("/v1/reviews", headers).verdict();
            if seen == expected { Ok(()) } else { Err(seen) }
        });
    }
}

#[test]
fn every_denial_has_one_form() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let inactive = stack.admin.create_key("acme", "inactive");
    stack.admin.act(&inactive, "deactivate");
    on_all_workers(&stack, &[("x-api-key", &inactive.secret)], "401 inactive-key");
    let good = [("x-api-key", key.secret.as_str())];
    let unknown = "lk_live_000000000000000000000000000000004cjNQE";
    for (method, path, headers, expected) in [
        ("GET", "/v1/reviews", &[][..], "401 missing-key"),
        ("GET", "/v1/reviews", &[("x-api-key", "a"), ("x-api-key", "a")], "401 multiple-keys"),
        ("GET", "/v1/reviews", &[("x-api-key", "a")], "401 malformed-key"),
        ("GET", "/v1/reviews", &[("x-api-key", unknown)], "401 unknown-key"),
        ("GET", "/v1/reviews", &[("x-api-key", &inactive.secret)], "401 inactive-key"),
        ("GET", "/elsewhere", &good, "403 no-route-rule"),
        ("GET", "/v1/workspaces/other", &good, "403 wrong-workspace"),
        ("POST", "/v1/reviews", &good, "403 missing-scope"),
    ] {
        let answer = request(&stack, method, path, headers);
        assert_eq!(answer.verdict(), expected);
        let (status, code) = expected.split_once(' ').unwrap();
        let problem = answer.json();
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{expected}");
        assert_eq!(problem["status"].to_string(), status, "{expected}");
        assert_eq!(problem["code"], code);
        assert_eq!(problem["type"], "about:blank", "{expected}");
        for field in ["title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{expected}: {field} in {problem}");
        }
        let challenge = (status == "401").then_some("Bearer realm=\"latchkey\"");
        assert_eq!(answer.headers.get("www-authenticate").map(String::as_str), challenge, "{expected}");
        assert_eq!(problem.get("scope").is_some(), code == "missing-scope", "{problem}");
    }
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_denied_head_has_no_body_and_a_denied_grpc_call_has_a_grpc_status() {
    let stack = Stack::start();
    let mut connection = Connection::open(stack.envoy.port);
    let head = connection.head("/v1/reviews", &[]);
    assert_eq!(head.verdict(), "401 missing-key");
    let after = connection.get("/v1/reviews", &[]);
    assert_eq!(after.verdict(), "401 missing-key", "a body after HEAD's answer would have been read as this one");
    let grpc = request(&stack, "POST", "/v1/reviews", &[("content-type", "application/grpc"), ("te", "trailers")]);
    assert_eq!(grpc.status, 200, "{grpc:?}");
    assert_eq!(grpc.headers["grpc-status"], "16", "UNAUTHENTICATED: {grpc:?}");
    assert_eq!(grpc.headers["latchkey-code"], "missing-key");
    assert!(grpc.headers["grpc-message"].contains("no API key"), "{grpc:?}");
}

#[test]
fn a_client_without_a_valid_secret_learns_nothing_about_keys_or_routes() {
    let stack = Stack::start();
    let unknown = "lk_live_000000000000000000000000000000004cjNQE";
    for path in ["/v1/reviews", "/v1/webhooks", "/v1/workspaces/acme", "/v1/workspaces/other", "/elsewhere"] {
        for method in ["GET", "POST"] {
            for (headers, expected) in [
                (&[][..], "401 missing-key"),
                (&[("x-api-key", unknown)], "401 unknown-key"),
                (&[("x-api-key", "x")], "401 malformed-key"),
            ] {
                let answer = request(&stack, method, path, headers);
                assert_eq!(answer.verdict(), expected, "{method} {path}");
                assert!(!answer.body.contains("reviews") && !answer.body.contains("acme"), "{answer:?}");
            }
        }
    }
}

#[test]
fn a_key_of_another_environment_is_denied_as_such() {
    let stack = Stack::start_with(|config| config.plugin["environment"] = json!("staging"));
    let key = stack.admin.create_key("acme", "live key at a staging edge");
    let answer = request(&stack, "GET", "/v1/reviews", &[("x-api-key", &key.secret)]);
    assert_eq!(answer.verdict(), "401 wrong-environment");
}

#[test]
fn a_key_expires_in_its_expiry_second() {
    let stack = Stack::start();
    let expires_at = jiff::Timestamp::from_second(now().as_second() + 4).unwrap();
    let key = stack.admin.create_key_with(
        "acme",
        &json!({"name": "short", "expires_at": expires_at.to_string(), "scopes": {"reviews": "read"}}),
    );
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    eventually("the key expires", || {
        let before = now();
        let seen = connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
        let after = now();
        match seen.as_str() {
            "200 -" => assert!(before < expires_at, "still allowed at {before}"),
            "401 expired-key" => assert!(after >= expires_at, "already expired at {after}"),
            other => panic!("{other}"),
        }
        if seen == "401 expired-key" { Ok(()) } else { Err(seen) }
    });
}

#[test]
fn a_rotated_secret_is_denied_as_rotated_when_its_overlap_ends() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let rotated = stack.admin.rotate_with(&key, &json!({"overlap": "1h"}));
    stack.wait_known(&rotated);
    on_all_workers(&stack, &[("x-api-key", &key.secret)], "200 -");
    stack.admin.act(&key, "end-overlap");
    on_all_workers(&stack, &[("x-api-key", &key.secret)], "401 rotated-key");
    on_all_workers(&stack, &[("x-api-key", &rotated.secret)], "200 -");
}

#[test]
fn an_allowlist_is_compared_with_the_client_address_that_envoy_trusts() {
    let stack = Stack::start_with(|config| {
        config.replace(
            "          use_remote_address: true\n",
            "          use_remote_address: true\n          xff_num_trusted_hops: 1\n",
        );
    });
    let free = stack.admin.create_key("acme", "from anywhere");
    let bound = with_key(
        &stack,
        json!({"ip_allowlist": ["192.0.2.7", "198.51.100.0/24", "2001:db8::/32", "::ffff:203.0.113.0/120"]}),
    );
    stack.wait_known(&free);
    let secret = [("x-api-key", bound.secret.as_str())];
    on_all_workers(&stack, &secret, "403 address-not-allowed");
    let (yes, no) = ("200 -", "403 address-not-allowed");
    for (client, expected) in [
        ("192.0.2.7", yes),
        ("192.0.2.8", no),
        ("198.51.100.0", yes),
        ("198.51.100.255", yes),
        ("198.51.101.0", no),
        ("198.51.99.255", no),
        ("2001:db8::1", yes),
        ("2001:db9::1", no),
        ("203.0.113.9", yes),
        ("203.0.114.9", no),
        ("::ffff:192.0.2.7", yes),
        ("::ffff:192.0.2.8", no),
        // The trusted hop wrote the last entry; entries that a client put before it are ignored.
        ("192.0.2.7, 192.0.2.8", no),
        ("192.0.2.8, 192.0.2.7", yes),
    ] {
        let headers = [secret[0], ("x-forwarded-for", client)];
        assert_eq!(request(&stack, "GET", "/v1/reviews", &headers).verdict(), expected, "{client}");
    }
}

#[test]
fn a_missing_scope_is_named_with_the_level_that_was_needed() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "may only read reviews");
    stack.wait_known(&key);
    for (method, path, scope, level) in
        [("POST", "/v1/reviews", "reviews", "write"), ("GET", "/v1/webhooks", "webhooks", "read")]
    {
        let problem = request(&stack, method, path, &[("x-api-key", &key.secret)]).json();
        assert_eq!((&problem["scope"], &problem["level"]), (&json!(scope), &json!(level)), "{problem}");
    }
}

#[test]
fn a_denial_gives_the_first_of_several_reasons() {
    // One worker, so that what one answer shows also holds for the next.
    let stack = Stack::start_with(|config| config.workers = 1);
    let elsewhere = json!({"ip_allowlist": ["192.0.2.1"], "scopes": {}});
    let (key, free) = (with_key(&stack, elsewhere.clone()), with_key(&stack, json!({"scopes": {}})));
    let both = [("x-api-key", key.secret.as_str()), ("x-api-key", "not a key")];
    let one = [("x-api-key", key.secret.as_str())];
    // The request has every fault; fixing one uncovers the next reason.
    let path = "/v1/workspaces/other";
    let verdict = |path: &str, headers: &[(&str, &str)]| request(&stack, "POST", path, headers).verdict();
    let becomes = |what: &str, secret: &str, expected: &str| {
        eventually(what, || {
            let seen = request(&stack, "POST", path, &[("x-api-key", secret)]).verdict();
            if seen == expected { Ok(()) } else { Err(seen) }
        });
    };
    stack.admin.act(&key, "deactivate");
    becomes("inactive before address", &key.secret, "401 inactive-key");
    assert_eq!(verdict(path, &both), "401 multiple-keys", "before malformed and inactive");
    stack.admin.act(&key, "activate");
    becomes("address before workspace and scope", &key.secret, "403 address-not-allowed");
    assert_eq!(verdict("/elsewhere", &one), "403 address-not-allowed", "before the rule");
    let rotated = stack.admin.rotate(&key);
    stack.admin.act(&rotated, "deactivate");
    becomes("the new secret is inactive", &rotated.secret, "401 inactive-key");
    becomes("rotated before inactive", &key.secret, "401 rotated-key");
    becomes("workspace before scope", &free.secret, "403 wrong-workspace");
    let free = [("x-api-key", free.secret.as_str())];
    assert_eq!(verdict("/elsewhere", &free), "403 no-route-rule");
    assert_eq!(verdict("/v1/workspaces/acme", &free), "403 missing-scope");
}

#[test]
fn a_denied_grpc_call_has_the_status_that_grpc_has_for_it() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "may only read reviews");
    stack.wait_known(&key);
    let denied = |port: u16, path: &str, secret: &str| {
        let headers = [("content-type", "application/grpc+proto"), ("te", "trailers"), ("x-api-key", secret)];
        let answer = Connection::open(port).request("POST", path, &headers);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, "", "{answer:?}");
        (answer.headers["grpc-status"].clone(), answer.headers["latchkey-code"].clone())
    };
    let port = stack.envoy.port;
    let pair = |status: &str, code: &str| (status.to_owned(), code.to_owned());
    assert_eq!(denied(port, "/v1/reviews", "x"), pair("16", "malformed-key"), "UNAUTHENTICATED");
    assert_eq!(denied(port, "/v1/reviews", &key.secret), pair("7", "missing-scope"), "PERMISSION_DENIED");
    assert_eq!(denied(port, "/elsewhere", &key.secret), pair("7", "no-route-rule"), "PERMISSION_DENIED");
    let mut config = stack.config.clone();
    config.control_plane_port = end_to_end::free_port();
    let mut unready = Envoy::start(&config);
    unready.wait_listening();
    assert_eq!(denied(unready.port, "/v1/reviews", &key.secret), pair("14", "not-ready"), "UNAVAILABLE");
}

#[test]
fn with_the_shipped_config_no_client_chooses_its_own_address() {
    let stack = Stack::start();
    let bound = with_key(&stack, json!({"ip_allowlist": ["192.0.2.7"]}));
    let local = with_key(&stack, json!({"ip_allowlist": ["127.0.0.1"]}));
    on_all_workers(&stack, &[("x-api-key", &local.secret)], "200 -");
    for name in
        ["x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip", "x-envoy-external-address", "x-client-ip"]
    {
        let verdict = |key: &CreatedKey, value: &str| {
            request(&stack, "GET", "/v1/reviews", &[("x-api-key", &key.secret), (name, value)]).verdict()
        };
        assert_eq!(verdict(&bound, "192.0.2.7"), "403 address-not-allowed", "{name}");
        assert_eq!(verdict(&local, "192.0.2.7"), "200 -", "{name}");
    }
}
