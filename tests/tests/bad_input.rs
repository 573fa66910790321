//! Bad input: requests, plugin configurations and command lines that are wrong.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use end_to_end::{Envoy, EnvoyConfig, Stack, free_port, serve_command};
use serde_json::json;

#[test]
fn hostile_requests_are_denied_and_break_no_worker() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let mut connections = stack.envoy.connections(4);
    let get = |headers: &[u8]| [b"GET /v1/reviews HTTP/1.1\r\nhost: a\r\n", headers, b"\r\n"].concat();
    let secret = key.secret.as_bytes();
    let huge = vec![b'k'; 64 << 10];
    let requests: Vec<(&str, Vec<u8>, &str)> = vec![
        ("bytes ff fe for a key", get(b"x-api-key: \xff\xfe\r\n"), "401 malformed-key"),
        ("bytes ff fe in a bearer", get(b"authorization: Bearer \xff\xfe\r\n"), "401 malformed-key"),
        (
            "bytes ff fe in another header",
            get(&[b"x-other: \xff\xfe\r\nx-api-key: ", secret, b"\r\n"].concat()),
            "200 -",
        ),
        ("an empty key", get(b"x-api-key:\r\n"), "401 malformed-key"),
        ("an empty bearer", get(b"authorization: Bearer\r\n"), "401 malformed-key"),
        ("a 64 KiB key", get(&[b"x-api-key: ", huge.as_slice(), b"\r\n"].concat()), "401 malformed-key"),
        ("two keys", get(&[b"x-api-key: ", secret, b"\r\nx-api-key: ", secret, b"\r\n"].concat()), "401 multiple-keys"),
        (
            "two keys in two places",
            get(&[b"x-api-key: ", secret, b"\r\nauthorization: Bearer ", secret, b"\r\n"].concat()),
            "401 multiple-keys",
        ),
        (
            "two bearers",
            get(&[b"authorization: Bearer ", secret, b"\r\nauthorization: Bearer ", secret, b"\r\n"].concat()),
            "401 multiple-keys",
        ),
        ("another scheme", get(b"authorization: Basic dXNlcjpwYXNz\r\n"), "401 missing-key"),
        ("no header at all", get(b""), "401 missing-key"),
    ];
    for (name, request, expected) in &requests {
        for connection in &mut connections {
            assert_eq!(connection.raw(request).verdict(), *expected, "{name}");
        }
    }
    for mut connection in stack.envoy.connections(4) {
        // Envoy answers CONNECT itself unless a route takes it; either way nothing passes.
        let answer = connection.raw(b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n");
        assert!((400..500).contains(&answer.status), "CONNECT was answered {answer:?}");
    }
    stack.envoy.assert_no_vm_failed();
    assert!(!stack.envoy.process.log().contains(&key.secret), "the access log has a secret");
}

#[test]
fn a_connect_that_a_route_takes_is_denied_without_a_key() {
    let stack = Stack::start_with(|config| {
        config.replacements.push((
            "              # Each route states".to_owned(),
            "              - match: {connect_matcher: {}}\n                metadata: {filter_metadata: {latchkey: {rule: key}}}\n                route: {cluster: upstream, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}\n              # Each route states".to_owned(),
        ));
        config.replacements.push((
            "          stat_prefix: public\n".to_owned(),
            "          stat_prefix: public\n          upgrade_configs: [{upgrade_type: CONNECT}]\n".to_owned(),
        ));
    });
    for mut connection in stack.envoy.connections(4) {
        let answer = connection.raw(b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n");
        assert_eq!(answer.verdict(), "401 missing-key");
    }
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_wrong_plugin_configuration_stops_envoy_and_names_the_field() {
    let control_plane = json!({"cluster": "latchkey", "authority": "latchkey"});
    for (plugin, field) in [
        (json!({}), "control_plane"),
        (json!({"control_plane": control_plane, "egde": "x"}), "egde"),
        (json!({"control_plane": control_plane, "environment": "LIVE"}), "environment"),
        (
            json!({"control_plane": control_plane, "routes": [{"path": "/a", "rule": "read everything"}]}),
            "routes[0].rule",
        ),
        (json!({"control_plane": control_plane, "max_staleness_secs": 1}), "max_staleness_secs"),
        (json!({"control_plane": {"cluster": "", "authority": "latchkey"}}), "control_plane.cluster"),
    ] {
        let mut config = EnvoyConfig::new(free_port(), free_port(), "no token");
        config.plugin = plugin.clone();
        let mut envoy = Envoy::start(&config);
        let status = envoy.process.wait_for_exit();
        let log = envoy.process.log();
        assert_eq!(status.code(), Some(1), "{plugin}: {log}");
        assert!(log.contains(&format!("`{field}`")), "{plugin}: the log doesn't name {field}:\n{log}");
    }
}

/// Runs `latchkey serve` with these flags in place of the usual ones.
fn serve(folder: &Path, flags: &[(&str, &str)]) -> Output {
    serve_command(folder, free_port(), flags).output().expect("latchkey serve")
}

/// Asserts a failure with one line that names the fault and the next step.
fn assert_refused(name: &str, output: &Output, expected: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{name} was accepted: {error}");
    assert_eq!(error.trim().lines().count(), 1, "{name}: one line is expected: {error}");
    for part in expected {
        assert!(error.contains(part), "{name}: {part:?} is expected in: {error}");
    }
}

#[test]
fn a_wrong_database_path_is_refused_in_one_line_with_the_next_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("not/there/latchkey.db");
    let output = serve(folder.path(), &[("database", missing.to_str().unwrap())]);
    assert_refused("a folder that isn't there", &output, &["not/there", "make its directory"]);
    let text = folder.path().join("text.db");
    std::fs::write(&text, "this is no database, only text that is long enough to be read as one").unwrap();
    let output = serve(folder.path(), &[("database", text.to_str().unwrap())]);
    assert_refused("a file that is no database", &output, &["text.db", "not one of Latchkey's"]);
}

#[test]
fn a_taken_port_is_refused_in_one_line_with_the_next_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_refused("a taken port", &serve(folder.path(), &[("listen", &address)]), &[&address, "--listen"]);
}

#[test]
fn a_token_file_that_others_can_read_is_refused_in_one_line_with_the_next_step() {
    for name in ["admin-token", "edge-token"] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(name);
        std::fs::write(&file, "lkadm_0").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_refused(name, &serve(folder.path(), &[]), &[name, "chmod 600"]);
    }
}
