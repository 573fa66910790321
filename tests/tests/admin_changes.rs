//! An admin's change is enforced in Envoy, on every worker and on open connections.

use std::time::Duration;

use end_to_end::{Admin, Connection, CreatedKey, Envoy, Stack, eventually, eventually_within};
use serde_json::Value;

/// How long a change may take until every worker enforces it.
const ENFORCEMENT_DEADLINE: Duration = Duration::from_secs(1);

/// Enough to have several on each of two workers.
const CONNECTIONS: usize = 16;

/// A well-formed secret that no key has.
const UNKNOWN: &str = "lk_live_000000000000000000000000000000004cjNQE";

fn verdict(connection: &mut Connection, secret: &str) -> String {
    connection.get("/v1/reviews/7", &[("x-api-key", secret)]).verdict()
}

fn verdicts(connections: &mut [Connection], secret: &str) -> Vec<String> {
    connections.iter_mut().map(|connection| verdict(connection, secret)).collect()
}

/// Every open connection sees `expected` for this secret within the second, and sees nothing else after that.
fn wait_enforced(connections: &mut [Connection], what: &str, secret: &str, expected: &str) {
    eventually_within(ENFORCEMENT_DEADLINE, &format!("{what}: {expected} on every connection"), || {
        let seen = verdicts(connections, secret);
        if seen.iter().all(|verdict| verdict == expected) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    for verdict in verdicts(connections, secret) {
        assert_eq!(verdict, expected, "{what}: it was enforced on every connection before");
    }
}

#[test]
fn each_action_on_a_key_is_enforced_on_every_worker_and_on_open_connections() {
    let stack = Stack::start();
    let mut connections = stack.envoy.connections(CONNECTIONS);
    for before_any_key in verdicts(&mut connections, UNKNOWN) {
        assert_eq!(before_any_key, "401 unknown-key", "every connection is open before the first change");
    }
    let key = stack.admin.create_key("acme", "sync");
    wait_enforced(&mut connections, "create", &key.secret, "200 -");
    stack.admin.act(&key, "deactivate");
    wait_enforced(&mut connections, "deactivate", &key.secret, "401 inactive-key");
    stack.admin.act(&key, "activate");
    wait_enforced(&mut connections, "activate", &key.secret, "200 -");
    let rotated = stack.admin.rotate(&key);
    wait_enforced(&mut connections, "rotate, the old secret", &key.secret, "401 rotated-key");
    wait_enforced(&mut connections, "rotate, the new secret", &rotated.secret, "200 -");
    stack.admin.delete(&rotated);
    wait_enforced(&mut connections, "delete", &rotated.secret, "401 unknown-key");
    wait_enforced(&mut connections, "delete, the older secret", &key.secret, "401 unknown-key");
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn the_upstream_sees_who_called_and_no_credential() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    let mut connections = stack.envoy.connections(CONNECTIONS);
    wait_enforced(&mut connections, "create", &key.secret, "200 -");
    let workspace = stack.admin.get("/v1/workspaces/acme")["id"].clone();
    for carrier in [("x-api-key", key.secret.clone()), ("authorization", format!("Bearer {}", key.secret))] {
        let headers = [
            (carrier.0, carrier.1.as_str()),
            ("x-latchkey-key-id", "forged"),
            ("x-latchkey-scopes", "forged"),
            ("x-latchkey-other", "forged"),
            ("accept", "text/plain"),
        ];
        let echo = connections[0].get("/v1/reviews/7?page=2", &headers).json();
        let received = &echo["headers"];
        assert_eq!(received["x-latchkey-key-id"], serde_json::json!([key.id]), "{echo}");
        assert_eq!(received["x-latchkey-workspace-id"], serde_json::json!([workspace]), "{echo}");
        assert_eq!(received["accept"], serde_json::json!(["text/plain"]), "{echo}");
        for gone in ["x-api-key", "authorization", "x-latchkey-scopes", "x-latchkey-other"] {
            assert_eq!(received.get(gone), None, "{gone} reached the upstream: {echo}");
        }
        assert!(!echo.to_string().contains(&key.secret), "the secret reached the upstream: {echo}");
        assert_eq!(echo["path"], "/v1/reviews/7?page=2");
    }
    let log = eventually("the access log names the key", || {
        let log = stack.envoy.process.log();
        if log.contains(&format!("\"latchkey_key_id\":\"{}\"", key.id)) { Ok(log) } else { Err(log) }
    });
    assert!(!log.contains(&key.secret), "the access log has a secret");
}

#[test]
fn an_identity_header_of_a_client_chooses_no_route() {
    let stack = Stack::start_with(|config| {
        config.replace(
            "              # Each route states",
            "              - match: {prefix: /, headers: [{name: x-latchkey-key-id, present_match: true}]}\n                metadata: {filter_metadata: {latchkey: {rule: public}}}\n                route: {cluster: upstream}\n              # Each route states",
        );
    });
    let forged = [("x-latchkey-key-id", "key_1")];
    for mut connection in stack.envoy.connections(4) {
        assert_eq!(connection.get("/v1/reviews", &forged).verdict(), "401 missing-key");
    }
}

#[test]
fn a_key_under_a_name_that_the_filter_does_not_know_reaches_no_access_log() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    let mut connection = Connection::open(stack.envoy.port);
    assert_eq!(connection.get(&format!("/v1/reviews?token={}", key.secret), &[]).verdict(), "401 missing-key");
    assert_eq!(connection.get(&format!("/healthz?token={}", key.secret), &[]).verdict(), "200 -");
    let log = eventually("both requests are in the access log", || {
        let log = stack.envoy.process.log();
        let logged = ["/v1/reviews", "/healthz"].iter().all(|path| log.contains(&format!("\"path\":\"{path}\"")));
        if logged { Ok(log) } else { Err(log) }
    });
    assert!(!log.contains(&key.secret), "the access log has a secret");
}

#[test]
fn a_public_route_needs_no_key_and_an_unmatched_path_passes_nobody() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    let mut connections = stack.envoy.connections(2);
    wait_enforced(&mut connections, "create", &key.secret, "200 -");
    let with_key = [("x-api-key", key.secret.as_str())];
    for (path, headers, expected) in [
        ("/healthz", &[][..], "200 -"),
        ("/healthz", &with_key, "200 -"),
        ("/elsewhere", &[], "401 missing-key"),
        ("/elsewhere", &with_key, "403 no-route-rule"),
        ("/v1/webhooks", &with_key, "403 missing-scope"),
        ("/v1/workspaces/acme", &with_key, "403 missing-scope"),
        ("/v1/workspaces/other", &with_key, "403 wrong-workspace"),
    ] {
        assert_eq!(connections[0].get(path, headers).verdict(), expected, "{path} {}", headers.len());
    }
    assert_eq!(connections[0].request("POST", "/v1/reviews", &with_key).verdict(), "403 missing-scope");
}

/// All keys of `acme` without their last use, which an Envoy may report at any moment.
fn keys_without_last_use(admin: &Admin) -> Vec<Value> {
    let mut page = admin.get("/v1/workspaces/acme/keys?limit=100");
    let keys = page["items"].as_array_mut().expect("keys");
    for key in &mut *keys {
        let key = key.as_object_mut().expect("a key");
        key.retain(|name, _| !name.contains("last_used"));
    }
    std::mem::take(keys)
}

#[test]
fn a_killed_control_plane_loses_nothing_and_envoy_keeps_serving() {
    let mut stack = Stack::start();
    let keys: Vec<CreatedKey> = (0..20).map(|n| stack.admin.create_key("acme", &format!("key {n}"))).collect();
    stack.admin.act(&keys[1], "deactivate");
    let rotated = stack.admin.rotate(&keys[2]);
    stack.admin.delete(&keys[3]);
    let before = keys_without_last_use(&stack.admin);
    let mut connections = stack.envoy.connections(CONNECTIONS);
    wait_enforced(&mut connections, "rotate", &rotated.secret, "200 -");

    stack.control_plane.process.kill();
    let assert_verdicts = |connections: &mut [Connection]| {
        for connection in connections {
            for (secret, expected) in [
                (&keys[0].secret, "200 -"),
                (&keys[1].secret, "401 inactive-key"),
                (&keys[2].secret, "401 rotated-key"),
                (&rotated.secret, "200 -"),
                (&keys[3].secret, "401 unknown-key"),
            ] {
                assert_eq!(verdict(connection, secret), expected, "without a control plane");
            }
        }
    };
    assert_verdicts(&mut connections);

    stack.control_plane.restart();
    assert_eq!(keys_without_last_use(&stack.admin), before, "every answered change is there");
    let later = stack.admin.create_key("acme", "after the restart");
    // Each worker retries within two seconds of a failure.
    eventually("a change after the restart reaches every worker", || {
        let seen: Vec<String> = connections.iter_mut().map(|connection| verdict(connection, &later.secret)).collect();
        if seen.iter().all(|verdict| verdict == "200 -") { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert_verdicts(&mut connections);
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_restarted_envoy_is_not_ready_until_it_has_its_table_again() {
    let mut stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    stack.control_plane.process.kill();
    stack.envoy.process.kill();
    let mut envoy = Envoy::start(&stack.config);
    envoy.wait_listening();
    let mut connections = envoy.connections(CONNECTIONS);
    for connection in &mut connections {
        assert_eq!(verdict(connection, &key.secret), "503 not-ready");
        assert_eq!(connection.get("/latchkey/ready", &[]).status, 503);
        assert_eq!(connection.get("/healthz", &[]).verdict(), "200 -", "a public route needs no table");
    }
    stack.control_plane.restart();
    eventually("every worker has its table", || {
        let seen: Vec<String> = connections.iter_mut().map(|connection| verdict(connection, &key.secret)).collect();
        match seen.iter().find(|verdict| *verdict != "200 -") {
            None => Ok(()),
            Some(other) if other == "503 not-ready" => Err(other.clone()),
            Some(other) => panic!("neither ready nor not-ready: {other}"),
        }
    });
    envoy.wait_ready();
    envoy.assert_no_vm_failed();
}
