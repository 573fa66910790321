//! A route's rule: by its metadata, by `routes`, or by `unmatched`.

use end_to_end::{Connection, CreatedKey, EnvoyConfig, Stack};
use serde_json::{Value, json};

/// Removes all metadata and path normalisation from the config, so that the filter's own reading shows.
fn without_metadata(config: &mut EnvoyConfig) {
    for rule in ["public", "reviews", "webhooks"] {
        config.replace(&format!("                metadata: {{filter_metadata: {{latchkey: {{rule: {rule}}}}}}}\n"), "");
    }
    config.replace(
        "                metadata: {filter_metadata: {latchkey: {rule: workspaces, path: \"/v1/workspaces/{workspace}/{*rest}\"}}}\n",
        "",
    );
    config.replace("          normalize_path: true\n", "");
    config.replace("          merge_slashes: true\n", "");
    config.replace("          path_with_escaped_slashes_action: REJECT_REQUEST\n", "");
}

fn routes() -> Value {
    json!([
        {"path": "/v1/reviews/{*rest}", "rule": "reviews"},
        {"path": "/v1/workspaces/{workspace}/{*rest}", "rule": "workspaces"},
        {"methods": ["POST"], "path": "/v1/scans/search", "rule": "security_scans:read"},
        {"path": "/v1/scans/start", "rule": "security_scans:write"},
        {"methods": ["OPTIONS"], "path": "/v1/cors", "rule": "public"},
        {"path": "/v1/cors", "rule": "key"},
        {"path": "/v1/closed", "rule": "deny"},
        {"path": "/healthz", "rule": "public"},
    ])
}

/// A key that may read reviews, workspaces and scans, and that every worker knows.
fn reader(stack: &Stack) -> CreatedKey {
    let scopes = json!({"reviews": "read", "workspaces": "read", "security_scans": "read"});
    let body = json!({"name": "reader", "expires_in": "none", "scopes": scopes});
    let key = stack.admin.create_key_with("acme", &body);
    stack.wait_known(&key);
    key
}

/// Each row on a new connection, because Envoy closes one after a 400.
fn assert_verdicts(stack: &Stack, key: &CreatedKey, rows: &[(&str, &str, &str)]) {
    for (method, path, expected) in rows {
        let mut connection = Connection::open(stack.envoy.port);
        let seen = connection.request(method, path, &[("x-api-key", &key.secret)]).verdict();
        assert_eq!(seen, *expected, "{method} {path}");
    }
}

fn get(stack: &Stack, path: &str) -> String {
    Connection::open(stack.envoy.port).get(path, &[]).verdict()
}

#[test]
fn routes_of_the_plugin_configuration_decide_where_no_metadata_does() {
    let stack = Stack::start_with(|config| {
        without_metadata(config);
        config.plugin["routes"] = routes();
    });
    let key = reader(&stack);
    let id = stack.admin.get("/v1/workspaces/acme")["id"].as_str().unwrap().to_owned();
    assert_verdicts(
        &stack,
        &key,
        &[
            ("GET", "/v1/reviews", "200 -"),
            ("GET", "/v1/reviews/", "200 -"),
            ("GET", "/v1/reviews/7/comments?page=2", "200 -"),
            ("POST", "/v1/reviews/7", "403 missing-scope"),
            ("GET", "/v1/workspaces/acme/members", "200 -"),
            ("GET", &format!("/v1/workspaces/{id}/members"), "200 -"),
            ("GET", "/v1/workspaces/other/members", "403 wrong-workspace"),
            ("DELETE", "/v1/workspaces/acme/members", "403 missing-scope"),
            ("POST", "/v1/scans/search", "200 -"),
            ("GET", "/v1/scans/search", "403 no-route-rule"),
            ("GET", "/v1/scans/start", "403 missing-scope"),
            ("GET", "/v1/cors", "200 -"),
            ("GET", "/v1/closed", "403 no-route-rule"),
            ("GET", "/v1/elsewhere", "403 no-route-rule"),
            ("GET", "/healthz", "200 -"),
        ],
    );
    assert_eq!(get(&stack, "/healthz"), "200 -", "public needs no key");
    let mut connection = Connection::open(stack.envoy.port);
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    assert_eq!(connection.request("OPTIONS", "/v1/cors", &preflight).verdict(), "200 -", "a preflight carries no key");
    assert_eq!(connection.request("OPTIONS", "/v1/reviews", &preflight).verdict(), "401 missing-key");
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused_whatever_unmatched_is() {
    for unmatched in ["deny", "key"] {
        let stack = Stack::start_with(|config| {
            without_metadata(config);
            config.plugin["routes"] = routes();
            config.plugin["unmatched"] = json!(unmatched);
        });
        let key = reader(&stack);
        let bad = "400 bad-path";
        assert_verdicts(
            &stack,
            &key,
            &[
                ("GET", "/v1/reviews/../closed", bad),
                ("GET", "/v1/reviews/./7", bad),
                ("GET", "//healthz", bad),
                ("GET", "/v1//reviews", bad),
                ("GET", "/v1/reviews;x=1", bad),
                ("GET", "/v1/reviews\\7", bad),
                ("GET", "/v1/%72eviews", bad),
                ("GET", "/v1/reviews/%2e%2e/closed", bad),
                ("GET", "/v1/reviews%2F7", bad),
                ("GET", "/v1/reviews%5C7", bad),
                ("GET", "/v1/reviews/%25", bad),
                ("GET", "/v1/reviews/%3B", bad),
                ("GET", "/v1/reviews/%zz", bad),
                ("GET", "/v1/reviews/caf%C3%A9", "200 -"),
            ],
        );
        assert_eq!(get(&stack, "/v1/%72eviews"), "400 bad-path", "before any credential is checked");
    }
}

#[test]
fn unmatched_key_passes_any_valid_key_and_nobody_else() {
    let stack = Stack::start_with(|config| {
        without_metadata(config);
        config.plugin["routes"] = routes();
        config.plugin["unmatched"] = json!("key");
    });
    let key = reader(&stack);
    assert_verdicts(
        &stack,
        &key,
        &[
            ("GET", "/v1/elsewhere", "200 -"),
            ("DELETE", "/v1/elsewhere", "200 -"),
            ("GET", "/v1/closed", "403 no-route-rule"),
            ("GET", "/v1/scans/search", "403 no-route-rule"),
        ],
    );
    assert_eq!(get(&stack, "/v1/elsewhere"), "401 missing-key");
}

#[test]
fn metadata_that_is_no_rule_denies() {
    for value in ["7", "true", "{a: b}", "[public]", "\"\"", "\"Public\"", "\"reviews:admin\""] {
        let stack = Stack::start_with(|config| {
            config.replace("latchkey: {rule: webhooks}", &format!("latchkey: {{rule: {value}}}"));
        });
        let key = reader(&stack);
        assert_verdicts(&stack, &key, &[("GET", "/v1/webhooks", "403 no-route-rule")]);
        assert_eq!(get(&stack, "/v1/webhooks"), "401 missing-key", "{value}");
    }
    let stack =
        Stack::start_with(|config| config.replace("latchkey: {rule: webhooks}", "latchkey: {rule: public, path: 7}"));
    let key = reader(&stack);
    assert_verdicts(&stack, &key, &[("GET", "/v1/webhooks", "403 no-route-rule")]);
}

#[test]
fn a_template_in_metadata_refuses_a_path_that_can_be_read_in_two_ways() {
    let stack = Stack::start_with(|config| {
        config.replace("          normalize_path: true\n", "");
        config.replace("          merge_slashes: true\n", "");
        config.replace("          path_with_escaped_slashes_action: REJECT_REQUEST\n", "");
    });
    let key = reader(&stack);
    let before = stack.echo.seen();
    let bad = "400 bad-path";
    assert_verdicts(
        &stack,
        &key,
        &[
            ("GET", "/v1/workspaces/other/../acme", bad),
            ("GET", "/v1/workspaces/acme/../other", bad),
            ("GET", "/v1/workspaces/acme/%2e%2e/other", bad),
            ("GET", "/v1/workspaces/acme/.", bad),
            ("GET", "/v1/workspaces/acme/..", bad),
            ("GET", "/v1/workspaces/acme//members", bad),
            ("GET", "/v1/workspaces//acme", bad),
            ("GET", "/v1/workspaces/acme%2fmembers", bad),
            ("GET", "/v1/workspaces/acme\\members", bad),
            ("GET", "/v1/workspaces/acme;v=2/members", bad),
            ("GET", "/v1/workspaces/%61cme/members", bad),
            ("GET", "/v1/workspaces/acme/%00", bad),
            ("GET", "/v1/workspaces/acme/%0a", bad),
            ("GET", "/v1/workspaces/acme/%7f", bad),
        ],
    );
    assert_eq!(stack.echo.seen(), before, "the upstream saw one of them");
    assert_verdicts(&stack, &key, &[("GET", "/v1/workspaces/acme/members?of=../%2e%2e//;", "200 -")]);
}

#[test]
fn with_the_shipped_path_options_no_spelling_reaches_another_workspace() {
    let stack = Stack::start();
    let key = reader(&stack);
    let before = stack.echo.seen();
    for path in [
        "/v1/workspaces/acme/../other",
        "/v1/workspaces/acme/%2e%2e/other",
        "/v1/workspaces/acme/%2E%2E/other/",
        "/v1/workspaces//other",
        "/v1//workspaces/other",
        "/v1/reviews/../workspaces/other",
        "/v1/workspaces/acme%2f..%2fother",
        "/v1/workspaces/acme%5c..%5cother",
        "/v1/workspaces/acme;/../other",
        "/v1/workspaces/othe%72",
        "/v1/workspaces/OTHER",
        "/V1/workspaces/other",
    ] {
        let seen = Connection::open(stack.envoy.port).get(path, &[("x-api-key", &key.secret)]);
        assert!((400..404).contains(&seen.status), "{path}: {seen:?}");
    }
    assert_eq!(stack.echo.seen(), before, "the upstream saw one of them");
}

#[test]
fn a_rule_in_metadata_gives_the_level_that_its_method_needs() {
    let stack = Stack::start_with(|config| {
        for (prefix, rule) in [("/v1/search", "reviews:read"), ("/v1/purge", "reviews:write"), ("/v1/any", "key")] {
            config.replace(
                "              # Each route states",
                &format!(
                    "              - match: {{path_separated_prefix: {prefix}}}\n                metadata: {{filter_metadata: {{latchkey: {{rule: \"{rule}\"}}}}}}\n                route: {{cluster: upstream}}\n              # Each route states"
                ),
            );
        }
    });
    let writer = stack
        .admin
        .create_key_with("acme", &json!({"name": "writer", "expires_in": "none", "scopes": {"reviews": "write"}}));
    let none = stack.admin.create_key_with("acme", &json!({"name": "none", "expires_in": "none"}));
    // Created last, so a worker that knows it also knows the others.
    let reader = reader(&stack);
    let missing = "403 missing-scope";
    for (method, path, [by_none, by_reader, by_writer]) in [
        ("GET", "/v1/reviews", [missing, "200 -", "200 -"]),
        ("OPTIONS", "/v1/reviews", [missing, "200 -", "200 -"]),
        ("POST", "/v1/reviews", [missing, missing, "200 -"]),
        ("PUT", "/v1/reviews", [missing, missing, "200 -"]),
        ("PATCH", "/v1/reviews", [missing, missing, "200 -"]),
        ("DELETE", "/v1/reviews", [missing, missing, "200 -"]),
        ("PROPFIND", "/v1/reviews", [missing, missing, "200 -"]),
        ("POST", "/v1/search", [missing, "200 -", "200 -"]),
        ("GET", "/v1/purge", [missing, missing, "200 -"]),
        ("DELETE", "/v1/any", ["200 -", "200 -", "200 -"]),
    ] {
        for (key, expected) in [(&none, by_none), (&reader, by_reader), (&writer, by_writer)] {
            assert_verdicts(&stack, key, &[(method, path, expected)]);
        }
    }
}

#[test]
fn a_preflight_passes_only_by_a_public_route_of_its_own() {
    let stack = Stack::start_with(|config| {
        config.replace(
            "              # Each route states",
            "              - match: {path_separated_prefix: /v1/reviews, headers: [{name: \":method\", string_match: {exact: OPTIONS}}]}\n                metadata: {filter_metadata: {latchkey: {rule: public}}}\n                route: {cluster: upstream}\n              # Each route states",
        );
    });
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    let verdict = |method: &str, path: &str, headers: &[(&str, &str)]| {
        Connection::open(stack.envoy.port).request(method, path, headers).verdict()
    };
    assert_eq!(verdict("OPTIONS", "/v1/reviews/7", &preflight), "200 -", "a preflight carries no key");
    assert_eq!(verdict("GET", "/v1/reviews/7", &preflight), "401 missing-key", "the request itself still needs one");
    assert_eq!(verdict("OPTIONS", "/v1/webhooks", &preflight), "401 missing-key", "another route");
    let overridden = [preflight[0], ("x-http-method-override", "GET"), ("x-http-method", "DELETE")];
    assert_eq!(verdict("GET", "/v1/reviews/7", &overridden), "401 missing-key");
    assert_eq!(verdict("OPTIONS", "/v1/reviews/7", &[("x-api-key", "anything")]), "200 -", "public, whatever is sent");
}
