//! The command line against a real control plane and a real Envoy: what it prints is true.

use std::time::Duration;

use end_to_end::{
    CommandLine, CommandOutput, Connection, ControlPlane, Echo, Envoy, EnvoyConfig, Stack, eventually,
    eventually_within,
};
use serde_json::{Value, json};
use test_support::digest;

/// Deadline for usage to be reported: workers report every 10 s.
const REPORT_DEADLINE: Duration = Duration::from_secs(40);

/// Deadline for a lease to end: an instance counts as connected for 30 s after its last message.
const LEASE: Duration = Duration::from_secs(60);

fn verdict(connection: &mut Connection, method: &str, path: &str, secret: &str) -> String {
    connection.request(method, path, &[("x-api-key", secret)]).verdict()
}

/// Asserts that every connection gets this verdict, from the first request on.
fn assert_verdict(connections: &mut [Connection], secret: &str, expected: &str) {
    for connection in connections {
        assert_eq!(verdict(connection, "GET", "/v1/reviews", secret), expected);
    }
}

/// Creates a key; returns its id and secret.
fn create(line: &CommandLine, name: &str, more: &[&str]) -> (String, String) {
    let base = ["keys", "create", name, "--expires-in", "none", "--scope", "reviews:read", "--json"];
    let created: Value = serde_json::from_str(&line.ok(&[&base[..], more].concat())).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&created["key"]["id"]), text(&created["secret"]))
}

/// `enforced on 6 of 6 workers of 2 edges after 9 ms`
fn assert_enforced(output: &CommandOutput) {
    let last = output.stderr.lines().last().unwrap_or_default();
    let ms =
        last.strip_prefix("enforced on 6 of 6 workers of 2 edges after ").and_then(|rest| rest.strip_suffix(" ms"));
    assert!(ms.is_some_and(|ms| ms.parse::<u32>().is_ok()), "{output:?}");
}

#[test]
fn what_a_command_waited_for_is_enforced_on_every_worker_of_two_edges() {
    let (control_plane, echo) = (ControlPlane::start(), Echo::start());
    let line = CommandLine::of(&control_plane);
    line.ok(&["workspaces", "create", "Acme", "--slug", "acme"]);
    let config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
    let mut envoys = [Envoy::start(&config), Envoy::start(&config)];
    envoys.iter_mut().for_each(Envoy::wait_ready);
    eventually("both edges are known with all their workers", || {
        let seen = line.run(&["enforcement", "--wait=5"]);
        if seen.stdout.contains("is enforced on 6 of 6 workers of 2 edges") { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    let mut connections: Vec<Connection> = envoys.iter().flat_map(|envoy| envoy.connections(4)).collect();
    let connections = connections.as_mut_slice();

    let created = line.run_ok(&["keys", "create", "CI", "--expires-in", "90d", "--scope", "reviews:write", "--wait"]);
    assert_enforced(&created);
    let first = created.stdout.trim_end();
    assert_verdict(connections, first, "200 -");
    let keys: Value = serde_json::from_str(&line.ok(&["keys", "list", "--json"])).expect("JSON");
    let id = keys[0]["id"].as_str().expect("an id");

    let rotated = line.run_ok(&["keys", "rotate", id, "--overlap", "12h", "--wait"]);
    assert_enforced(&rotated);
    let second = rotated.stdout.trim_end();
    assert_verdict(connections, first, "200 -");
    assert_verdict(connections, second, "200 -");
    for (arguments, secret, expected) in [
        (&["keys", "end-overlap", id][..], first, "401 rotated-key"),
        (&["keys", "edit", id, "--scope", "webhooks:read"], second, "403 missing-scope"),
        (
            &["keys", "edit", id, "--scope", "reviews:read", "--allow", "192.0.2.0/24"],
            second,
            "403 address-not-allowed",
        ),
        (&["keys", "edit", id, "--any-address"], second, "200 -"),
        (&["keys", "deactivate", id], second, "401 inactive-key"),
        (&["keys", "activate", id], second, "200 -"),
        (&["keys", "deactivate", "--name", "C*", "--yes"], second, "401 inactive-key"),
        (&["keys", "delete", id], second, "401 unknown-key"),
    ] {
        assert_enforced(&line.run_ok(&[arguments, &["--wait"]].concat()));
        assert_verdict(connections, secret, expected);
    }

    // The output names an edge that hangs, and the change is still made.
    envoys[1].process.signal("STOP");
    let late = line.run(&["keys", "create", "late", "--expires-in", "none", "--scope", "reviews:read", "--wait=1"]);
    envoys[1].process.signal("CONT");
    assert_eq!(late.code, Some(3), "{late:?}");
    let last = late.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("not enforced after 1") && last.contains("3 of 6 workers of 2 edges have it; test "),
        "{late:?}"
    );
    assert!(last.contains(" is behind; it is enforced at "), "{late:?}");
    assert_verdict(&mut envoys[0].connections(4), late.stdout.trim_end(), "200 -");
    let table = line.ok(&["edges", "list"]);
    assert_eq!(table.lines().count(), 3, "{table}");

    // Once an admin removes a permanently lost edge, changes no longer wait for it.
    let known = line.run(&["enforcement"]).stdout;
    let connection = &mut envoys[1].connections(1)[0];
    let gone = connection.get("/latchkey/ready", &[]).headers["latchkey-instance"].clone();
    assert!(known.contains(&gone), "{known}");
    envoys[1].process.kill();
    eventually_within(LEASE, "its lease has run out", || {
        let output = line.run(&["edges", "remove", &gone]);
        let connected = output.code == Some(1) && output.stderr.contains("(edge-connected)");
        assert!(connected || output.code == Some(0), "{output:?}");
        if connected { Err(output.stderr) } else { Ok(()) }
    });
    let alone = line.run_ok(&["keys", "create", "alone", "--expires-in", "none", "--wait"]);
    assert!(alone.stderr.contains("enforced on 3 of 3 workers of 1 edge after "), "{alone:?}");
}

#[test]
fn explain_gives_the_answer_of_envoy() {
    let stack = Stack::start_with(|config| {
        config.plugin["routes"] = json!([
            {"path": "/v2/reviews/{*rest}", "rule": "reviews"},
            {"path": "/v2/workspaces/{workspace}/{*rest}", "rule": "key"},
            {"methods": ["POST"], "path": "/v2/scans", "rule": "security_scans:read"},
            {"path": "/v2/open", "rule": "public"},
        ]);
    });
    let line = CommandLine::of(&stack.control_plane);
    let plugin = stack.envoy.config_file().display().to_string();
    let checked = line.ok(&["check-config", &plugin]);
    assert!(checked.contains("accepted, with 0 warnings: 1 filter of the edge `test`"), "{checked}");

    let (reader, read) = create(&line, "reader", &[]);
    let (far, away) = create(&line, "elsewhere", &["--allow", "192.0.2.0/24"]);
    let (off, dead) = create(&line, "off", &[]);
    line.ok(&["keys", "deactivate", &off, "--wait"]);
    for (method, path, rule) in [
        ("GET", "/v2/reviews", None),
        ("GET", "/v2/reviews/7?a=b", None),
        ("POST", "/v2/reviews/7", None),
        ("GET", "/v2/reviews/a;b", None),
        ("GET", "/v2/workspaces/acme/x", None),
        ("GET", "/v2/workspaces/other/x", None),
        ("POST", "/v2/scans", None),
        ("GET", "/v2/scans", None),
        ("GET", "/v2/open", None),
        ("GET", "/v2/nowhere", None),
        // By the metadata of the demo's routes.
        ("GET", "/v1/reviews/7", Some(("reviews", None))),
        ("DELETE", "/v1/reviews/7", Some(("reviews", None))),
        ("GET", "/v1/workspaces/acme", Some(("workspaces", Some("/v1/workspaces/{workspace}/{*rest}")))),
        ("GET", "/healthz", Some(("public", None))),
    ] {
        for (id, secret) in [(&reader, &read), (&far, &away), (&off, &dead)] {
            let mut arguments =
                vec!["explain", method, path, "--config", &plugin, "--key", id, "--address", "127.0.0.1", "--json"];
            if let Some((rule, template)) = rule {
                arguments.extend(["--rule", rule]);
                arguments.extend(template.iter().flat_map(|template| ["--template", template]));
            }
            let output = line.run(&arguments);
            let explanation: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
            let passes = explanation["allowed"] == json!(true);
            assert_eq!(output.code, Some(if passes { 0 } else { 5 }));
            let code = if passes { "-" } else { explanation["verdict"].as_str().expect("a code") };
            let expected = format!("{} {code}", explanation["status"]);
            // One connection for each request, because Envoy closes it after a 400.
            let seen = verdict(&mut Connection::open(stack.envoy.port), method, path, secret);
            assert_eq!(seen, expected, "{method} {path}: {explanation}");
        }
    }
}

#[test]
fn usage_shows_how_often_a_key_was_used_and_denied() {
    let stack = Stack::start();
    let line = CommandLine::of(&stack.control_plane);
    let (id, secret) = create(&line, "CI", &["--wait"]);
    let mut connection = Connection::open(stack.envoy.port);
    for _ in 0..3 {
        assert_eq!(verdict(&mut connection, "GET", "/v1/reviews", &secret), "200 -");
    }
    for _ in 0..2 {
        assert_eq!(verdict(&mut connection, "POST", "/v1/reviews?x=y", &secret), "403 missing-scope");
    }
    let report = eventually_within(REPORT_DEADLINE, "the worker has reported what it counted", || {
        let report = line.ok(&["keys", "usage", &id]);
        if report.contains("allowed    3") { Ok(report) } else { Err(report) }
    });
    assert!(report.contains("denied     2 (missing-scope:2)") && report.contains(" from 127.0.0.1"), "{report}");
    let denials = report.split("latest denials\n").nth(1).expect("denials");
    let newest = denials.lines().nth(1).unwrap_or_default();
    assert!(newest.contains("missing-scope") && newest.ends_with("POST    /v1/reviews"), "{report}");
    // Clean-up relies on this column, the last use.
    assert!(!line.ok(&["keys", "list"]).lines().nth(1).expect("a key").ends_with(" -"));
}

#[test]
fn a_hundred_thousand_imported_digests_work_from_their_first_request_on() {
    const KEYS: usize = 100_000;
    let secret = |number: usize| format!("theirs.{number:06}");
    let stack = Stack::start_with(|config| config.plugin["foreign_keys"] = json!(true));
    let line = CommandLine::of(&stack.control_plane);
    let text = |number: usize| {
        let digest = digest::hexadecimal(&secret(number));
        let key =
            json!({"digest": digest, "name": secret(number), "expires_in": "none", "scopes": {"reviews": "read"}});
        format!("{key}\n")
    };
    let file = stack.control_plane.folder().join("keys.jsonl");
    std::fs::write(&file, (0..KEYS).map(text).collect::<String>()).expect("the file");
    let moved = line.run_ok(&["keys", "import", "keys.jsonl", "--wait=60"]);
    assert!(moved.stdout.starts_with("imported 100000 keys, up to revision "), "{moved:?}");
    assert!(moved.stderr.starts_with("enforced on 3 of 3 workers of 1 edge after "), "{moved:?}");
    let mut connections = stack.envoy.connections(8);
    for number in (0..KEYS).step_by(97) {
        assert_eq!(
            verdict(&mut connections[number % 8], "GET", "/v1/reviews", &secret(number)),
            "200 -",
            "key {number}"
        );
    }
    // Nothing is imported if one digest is already taken.
    std::fs::write(&file, [text(KEYS), text(7)].concat()).expect("the file");
    let refused = line.run(&["keys", "import", "keys.jsonl"]);
    assert!(refused.code == Some(1) && refused.stderr.ends_with("  line 2: digest is refused\n"), "{refused:?}");
    assert_eq!(verdict(&mut connections[0], "GET", "/v1/reviews", &secret(KEYS)), "401 unknown-key");
}
