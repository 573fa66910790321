//! The guard behind the filter: what wasn't decided, or was decided by another route's rule, doesn't pass.

use std::path::Path;

use end_to_end::{Connection, ControlPlane, Echo, Envoy, EnvoyConfig, Stack, eventually};

/// A module whose configuration is taken on the main thread and refused on every worker.
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
        (i32.le_u (i32.load (i32.const 72)) (i32.const 1)))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
)"#;

/// Envoy's own refusal, not one of ours.
fn assert_guard_denies(connection: &mut Connection, path: &str, headers: &[(&str, &str)]) {
    let answer = connection.get(path, headers);
    assert_eq!(answer.verdict(), "403 -", "{path}: {answer:?}");
    assert!(answer.body.contains("RBAC: access denied"), "{path}: {answer:?}");
}

fn envoy_with_broken_workers(control_plane: &ControlPlane, echo: &Echo, folder: &Path, guard: bool) -> Envoy {
    let module = folder.join("fails_on_workers.wasm");
    std::fs::write(&module, wat::parse_str(FAILS_ON_WORKERS).expect("a module")).expect("a file");
    let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
    config.wasm = module;
    let capability = |name: &str| format!("                    {name}: {{}}\n");
    let shared_data = ["proxy_set_shared_data", "proxy_get_shared_data"].map(capability).concat();
    config.replace(&capability("proxy_log"), &(capability("proxy_log") + &shared_data));
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
    let open = envoy_with_broken_workers(&control_plane, &echo, folder.path(), false);
    for mut connection in open.connections(4) {
        assert_eq!(
            connection.get("/v1/reviews", &[]).verdict(),
            "200 -",
            "Envoy skips such a filter: that is the hole"
        );
    }
    let guarded = envoy_with_broken_workers(&control_plane, &echo, folder.path(), true);
    for mut connection in guarded.connections(4) {
        for path in ["/v1/reviews", "/healthz", "/elsewhere"] {
            assert_guard_denies(&mut connection, path, &[]);
            assert_guard_denies(&mut connection, path, &[("x-api-key", "anything")]);
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
    assert_guard_denies(&mut connection, "/v1/webhooks", &[]);
    assert_guard_denies(&mut connection, "/v1/webhooks", &[("x-api-key", "anything")]);
}

/// Puts a route in front that takes requests with the header `x-api-key`, which the filter removes.
fn lend(config: &mut EnvoyConfig, prefix: &str, metadata: &str) {
    config.replace(
        "              # Each route says",
        &format!(
            "              - match: {{path_separated_prefix: {prefix}, headers: [{{name: x-api-key, present_match: true}}]}}\n                metadata: {{filter_metadata: {{latchkey: {metadata}}}}}\n                route: {{cluster: upstream}}\n              # Each route says"
        ),
    );
}

#[test]
fn a_public_route_lends_its_rule_to_no_other() {
    let stack = Stack::start_with(|config| lend(config, "/v1/webhooks", "{rule: public}"));
    let mut connection = Connection::open(stack.envoy.port);
    assert_guard_denies(&mut connection, "/v1/webhooks", &[("x-api-key", "anything")]);
    let log = eventually("the access log says why", || {
        let log = stack.envoy.process.log();
        if log.contains("rbac_access_denied") { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("\"latchkey_verdict\":\"public\""), "the filter took it for public: {log}");
}

#[test]
fn a_rule_without_a_workspace_is_lent_to_no_rule_with_one() {
    let stack = Stack::start_with(|config| lend(config, "/v1/workspaces", "{rule: workspaces}"));
    let body =
        serde_json::json!({"name": "w", "expires_in": "none", "scopes": {"workspaces": "read", "reviews": "read"}});
    let key = stack.admin.create_key_with("acme", &body);
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    for workspace in ["other", "acme"] {
        assert_guard_denies(&mut connection, &format!("/v1/workspaces/{workspace}"), &[("x-api-key", &key.secret)]);
    }
    // By a header that no route looks at, the right rule is read and holds.
    let bearer = format!("Bearer {}", key.secret);
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(connection.get("/v1/workspaces/acme", &headers).verdict(), "200 -");
    assert_eq!(connection.get("/v1/workspaces/other", &headers).verdict(), "403 wrong-workspace");
}

#[test]
fn a_pass_that_envoy_redirected_within_is_decided_anew() {
    let stack = Stack::start_with(|config| {
        // The upstream answers a redirect from one path to another, and Envoy follows it by itself.
        for (from, rule, to) in [
            ("/v1/moved", "key", "/v1/reviews/7"),
            ("/v1/lent", "public", "/v1/reviews/7"),
            ("/v1/up", "key", "/v1/webhooks/7"),
            ("/v1/skip", "key", "/v1/skipped"),
        ] {
            config.replace(
                "              # Each route says",
                &format!(
                    "              - match: {{path: {from}}}\n                metadata: {{filter_metadata: {{latchkey: {{rule: {rule}}}}}}}\n                request_headers_to_add: [{{header: {{key: x-echo-redirect, value: \"http://api.example{to}\"}}}}]\n                route: {{cluster: upstream, internal_redirect_policy: {{max_internal_redirects: 3}}}}\n              # Each route says"
                ),
            );
        }
        config.replace(
            "              # Each route says",
            "              - match: {path: /v1/skipped}\n                typed_per_filter_config: {latchkey: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true, config: {}}}\n                route: {cluster: upstream}\n              # Each route says",
        );
    });
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    let with_key = [("x-api-key", key.secret.as_str())];
    let moved = connection.get("/v1/moved", &with_key);
    assert_eq!(moved.verdict(), "200 -", "{moved:?}");
    assert_eq!(moved.json()["path"], "/v1/reviews/7");
    assert_eq!(moved.json()["headers"]["x-latchkey-key-id"], serde_json::json!([key.id]));
    assert!(!moved.body.contains(&key.secret), "{moved:?}");
    assert_eq!(connection.get("/v1/lent", &with_key).verdict(), "200 -", "the key was there on the public pass");
    assert_eq!(connection.get("/v1/lent", &[]).verdict(), "401 missing-key");
    assert_eq!(connection.get("/v1/up", &with_key).verdict(), "403 missing-scope", "another rule on the second pass");
    assert_guard_denies(&mut connection, "/v1/skip", &with_key);
}
