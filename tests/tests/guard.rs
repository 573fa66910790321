//! The guard behind the filter stops what wasn't decided, or was decided by another route's rule.

use std::path::Path;

use end_to_end::{Connection, ControlPlane, Echo, Envoy, EnvoyConfig, Response, Stack, eventually};
use serde_json::json;

/// A module whose configuration succeeds on the main thread and fails on every worker, with the instruction `FAILURE`.
const FAILS_ON_WORKERS: &str = r#"(module
    (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "calls")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "_initialize"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
    (func (export "proxy_on_context_create") (param i32 i32))
    (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
    ;; Each call of any worker writes the same value once more, and so raises its compare-and-swap number.
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $set (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 5) (i32.const 0)))
        (drop (call $get (i32.const 0) (i32.const 5) (i32.const 64) (i32.const 68) (i32.const 72)))
        (if (i32.gt_u (i32.load (i32.const 72)) (i32.const 1)) (then FAILURE))
        (i32.const 1))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
)"#;

/// Asserts that the refusal is the guard's, not the filter's.
fn assert_from_guard(name: &str, answer: &Response) {
    assert_eq!(answer.verdict(), "403 -", "{name}: {answer:?}");
    assert!(answer.body.contains("RBAC: access denied"), "{name}: {answer:?}");
}

/// Asserts that the guard refuses it, and the upstream doesn't see it.
fn assert_guard_denies(echo: &Echo, connection: &mut Connection, path: &str, headers: &[(&str, &str)]) {
    let before = echo.seen();
    assert_from_guard(path, &connection.get(path, headers));
    assert_eq!(echo.seen(), before, "{path}: the upstream saw it");
}

fn envoy_with_broken_workers(
    control_plane: &ControlPlane,
    echo: &Echo,
    folder: &Path,
    failure: &str,
    guard: bool,
) -> Envoy {
    let module = folder.join("fails_on_workers.wasm");
    let text = FAILS_ON_WORKERS.replace("FAILURE", failure);
    std::fs::write(&module, wat::parse_str(text).expect("a module")).expect("a file");
    let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
    config.wasm = module;
    let capability = |name: &str| format!("                    {name}: {{}}\n");
    let shared_data = ["proxy_set_shared_data", "proxy_get_shared_data"].map(capability).concat();
    config.replace(&capability("proxy_log"), &format!("{}{shared_data}", capability("proxy_log")));
    if !guard {
        config.replace(
            "          - name: latchkey-guard\n",
            "          - name: latchkey-guard\n            disabled: true\n",
        );
    }
    let mut envoy = Envoy::start(&config);
    envoy.wait_listening();
    envoy
}

#[test]
fn a_request_whose_worker_skips_the_filter_is_denied() {
    let (control_plane, echo, folder) = (ControlPlane::start(), Echo::start(), tempfile::tempdir().expect("a folder"));
    for (name, failure) in [("refuses", "(return (i32.const 0))"), ("traps", "unreachable")] {
        let open = envoy_with_broken_workers(&control_plane, &echo, folder.path(), failure, false);
        for mut connection in open.connections(4) {
            let seen = connection.get("/v1/reviews", &[]).verdict();
            assert_eq!(seen, "200 -", "{name}: without the guard, Envoy skips a filter that failed");
        }
        let guarded = envoy_with_broken_workers(&control_plane, &echo, folder.path(), failure, true);
        for mut connection in guarded.connections(4) {
            for path in ["/v1/reviews", "/healthz", "/elsewhere"] {
                assert_guard_denies(&echo, &mut connection, path, &[]);
                assert_guard_denies(&echo, &mut connection, path, &[("x-api-key", "anything")]);
            }
        }
    }
}

#[test]
fn a_route_that_disables_the_filter_is_denied() {
    let stack = Stack::start_with(|config| {
        config.replace(
            "                metadata: {filter_metadata: {latchkey: {rule: webhooks}}}\n",
            "                typed_per_filter_config: {latchkey: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true, config: {}}}\n",
        );
    });
    let mut connection = Connection::open(stack.envoy.port);
    assert_guard_denies(&stack.echo, &mut connection, "/v1/webhooks", &[]);
    assert_guard_denies(&stack.echo, &mut connection, "/v1/webhooks", &[("x-api-key", "anything")]);
}

/// Adds a first route that matches on what the filter removes, with or without `metadata`.
fn lend_by(config: &mut EnvoyConfig, prefix: &str, matcher: &str, metadata: Option<&str>) {
    let metadata = metadata.map_or(String::new(), |metadata| {
        format!("                metadata: {{filter_metadata: {{latchkey: {metadata}}}}}\n")
    });
    config.replace(
        "              # Each route states",
        &format!(
            "              - match: {{path_separated_prefix: {prefix}, {matcher}}}\n{metadata}                route: {{cluster: upstream}}\n              # Each route states"
        ),
    );
}

fn lend(config: &mut EnvoyConfig, prefix: &str, metadata: &str) {
    lend_by(config, prefix, "headers: [{name: x-api-key, present_match: true}]", Some(metadata));
}

#[test]
fn a_public_route_lends_its_rule_to_no_other() {
    let stack = Stack::start_with(|config| lend(config, "/v1/webhooks", "{rule: public}"));
    let mut connection = Connection::open(stack.envoy.port);
    assert_guard_denies(&stack.echo, &mut connection, "/v1/webhooks", &[("x-api-key", "anything")]);
    let log = eventually("the access log shows why", || {
        let log = stack.envoy.process.log();
        if log.contains("rbac_access_denied") { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("\"latchkey_verdict\":\"public\""), "the filter took it for public: {log}");
}

#[test]
fn no_place_of_a_key_lends_a_rule() {
    let stack = Stack::start_with(|config| {
        config.accept_keys_everywhere();
        for matcher in [
            "headers: [{name: x-api-key, present_match: true}]",
            "headers: [{name: authorization, present_match: true}]",
            "query_parameters: [{name: api_key, present_match: true}]",
            "headers: [{name: cookie, string_match: {contains: api_key}}]",
        ] {
            lend_by(config, "/v1/webhooks", matcher, Some("{rule: public}"));
        }
    });
    let mut connection = Connection::open(stack.envoy.port);
    for (path, headers) in [
        ("/v1/webhooks", &[("x-api-key", "k")][..]),
        ("/v1/webhooks", &[("authorization", "Bearer k")]),
        ("/v1/webhooks?api_key=k", &[]),
        ("/v1/webhooks?a=1&api_key=k", &[]),
        ("/v1/webhooks", &[("cookie", "api_key=k")]),
        ("/v1/webhooks", &[("cookie", "a=1; api_key=k")]),
    ] {
        assert_guard_denies(&stack.echo, &mut connection, path, headers);
    }
}

#[test]
fn a_route_with_a_rule_and_one_without_lend_each_other_nothing() {
    let stack = Stack::start_with(|config| {
        config.plugin["unmatched"] = json!("key");
        lend(config, "/elsewhere", "{rule: public}");
        lend_by(config, "/v1/webhooks", "headers: [{name: x-api-key, present_match: true}]", None);
    });
    let key = stack.admin.create_key("acme", "may only read reviews");
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    assert_guard_denies(&stack.echo, &mut connection, "/elsewhere", &[("x-api-key", "anything")]);
    assert_guard_denies(&stack.echo, &mut connection, "/v1/webhooks", &[("x-api-key", &key.secret)]);
}

#[test]
fn a_rule_without_a_path_is_not_lent_to_one_whose_path_is_empty() {
    let stack = Stack::start_with(|config| {
        let own = "metadata: {filter_metadata: {latchkey: {rule: webhooks}}}";
        config.replace(own, "metadata: {filter_metadata: {latchkey: {rule: key, path: \"\"}}}");
        lend(config, "/v1/webhooks", "{rule: key}");
    });
    let key = stack.admin.create_key("acme", "any");
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    assert_guard_denies(&stack.echo, &mut connection, "/v1/webhooks", &[("x-api-key", &key.secret)]);
    // With a header that no route matches on, the right rule applies, and no path fits an empty template.
    let bearer = format!("Bearer {}", key.secret);
    let seen = connection.get("/v1/webhooks", &[("authorization", &bearer)]).verdict();
    assert_eq!(seen, "403 no-route-rule");
}

#[test]
fn no_route_is_chosen_by_an_identity_header_of_a_client() {
    let stack = Stack::start_with(|config| {
        let matcher = "headers: [{name: x-latchkey-key-id, present_match: true}]";
        lend_by(config, "/v1/webhooks", matcher, Some("{rule: public}"));
    });
    let before = stack.echo.seen();
    for name in ["x-latchkey-key-id", "X-Latchkey-Key-Id"] {
        // The route's own rule decides: the header was removed before Envoy chose a route.
        let seen = Connection::open(stack.envoy.port).get("/v1/webhooks", &[(name, "key_1")]).verdict();
        assert_eq!(seen, "401 missing-key", "{name}");
    }
    assert_eq!(stack.echo.seen(), before);
}

#[test]
fn a_header_that_an_upstream_could_take_for_an_identity_header_is_refused() {
    let stack = Stack::start();
    let before = stack.echo.seen();
    for name in ["x_latchkey_key_id", "x-latchkey_key_id", "X_Latchkey_Scopes"] {
        let answer = Connection::open(stack.envoy.port).get("/healthz", &[(name, "key_1")]);
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
    }
    assert_eq!(stack.echo.seen(), before);
}

#[test]
fn a_rule_without_a_workspace_is_lent_to_no_rule_with_one() {
    let stack = Stack::start_with(|config| lend(config, "/v1/workspaces", "{rule: workspaces}"));
    let body = json!({"name": "w", "expires_in": "none", "scopes": {"workspaces": "read", "reviews": "read"}});
    let key = stack.admin.create_key_with("acme", &body);
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    for workspace in ["other", "acme"] {
        assert_guard_denies(
            &stack.echo,
            &mut connection,
            &format!("/v1/workspaces/{workspace}"),
            &[("x-api-key", &key.secret)],
        );
    }
    // With a header that no route matches on, the right rule applies.
    let bearer = format!("Bearer {}", key.secret);
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(connection.get("/v1/workspaces/acme", &headers).verdict(), "200 -");
    assert_eq!(connection.get("/v1/workspaces/other", &headers).verdict(), "403 wrong-workspace");
}

#[test]
fn a_request_that_envoy_redirects_internally_is_decided_again() {
    let stack = Stack::start_with(|config| {
        // The upstream answers a redirect from one path to another, and Envoy follows it internally.
        for (from, rule, to) in [
            ("/v1/moved", "key", "/v1/reviews/7"),
            ("/v1/lent", "public", "/v1/reviews/7"),
            ("/v1/up", "key", "/v1/webhooks/7"),
            ("/v1/skip", "key", "/v1/skipped"),
        ] {
            config.replace(
                "              # Each route states",
                &format!(
                    "              - match: {{path: {from}}}\n                metadata: {{filter_metadata: {{latchkey: {{rule: {rule}}}}}}}\n                request_headers_to_add: [{{header: {{key: x-echo-redirect, value: \"http://api.example{to}\"}}}}]\n                route: {{cluster: upstream, internal_redirect_policy: {{max_internal_redirects: 3}}}}\n              # Each route states"
                ),
            );
        }
        config.replace(
            "              # Each route states",
            "              - match: {path: /v1/skipped}\n                typed_per_filter_config: {latchkey: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true, config: {}}}\n                route: {cluster: upstream}\n              # Each route states",
        );
    });
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    let with_key = [("x-api-key", key.secret.as_str())];
    let moved = connection.get("/v1/moved", &with_key);
    assert_eq!(moved.verdict(), "200 -", "{moved:?}");
    assert_eq!(moved.json()["path"], "/v1/reviews/7");
    assert_eq!(moved.json()["headers"]["x-latchkey-key-id"], json!([key.id]));
    assert!(!moved.body.contains(&key.secret), "{moved:?}");
    assert_eq!(connection.get("/v1/lent", &with_key).verdict(), "200 -", "the key was there on the public pass");
    assert_eq!(connection.get("/v1/lent", &[]).verdict(), "401 missing-key");
    assert_eq!(connection.get("/v1/up", &with_key).verdict(), "403 missing-scope", "another rule on the second pass");
    let before = stack.echo.seen();
    assert_from_guard("/v1/skip", &connection.get("/v1/skip", &with_key));
    assert_eq!(stack.echo.seen(), before + 1, "the first pass, which was answered by the redirect");
}
