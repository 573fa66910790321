//! Usage and denials of each key: exact, in a real Envoy, whatever happens in between.

use std::time::Duration;

use end_to_end::{Connection, CreatedKey, Stack, eventually_within, root};
use serde_json::{Value, json};

/// Deadline for usage to be reported: workers report every 10 s, and repeat a batch that found no control plane 10 s
/// later.
const REPORT_DEADLINE: Duration = Duration::from_secs(40);

/// The usage of a key.
fn usage(stack: &Stack, key: &CreatedKey) -> Value {
    let path = format!("/v1/workspaces/acme/keys/{}/usage", key.id);
    let (status, usage) = stack.admin.send("GET", &path, None).expect("an answer");
    assert_eq!(status, 200, "{usage}");
    usage
}

/// Waits until the totals of a key are these; fails if they are ever higher.
fn wait_totals(stack: &Stack, key: &CreatedKey, expected: &Value) -> Value {
    let number = |of: &Value| of["allowed"].as_u64().expect("a number");
    eventually_within(REPORT_DEADLINE, "every worker has reported what it counted", || {
        let usage = usage(stack, key);
        let totals = &usage["totals"];
        assert!(number(totals) <= number(expected), "{totals} is more than {expected}");
        if totals == expected { Ok(usage.clone()) } else { Err(totals.to_string()) }
    })
}

/// Sends `count` requests with a key, on these connections in turn. Each must get this verdict.
fn send(connections: &mut [Connection], key: &CreatedKey, count: usize, (path, verdict): (&str, &str)) {
    let several = connections.len();
    for connection in (0..count).map(|number| number % several) {
        let connection = &mut connections[connection];
        assert_eq!(connection.get(path, &[("x-api-key", &key.secret)]).verdict(), verdict);
    }
}

#[test]
fn counts_are_exact_over_workers_restarts_of_the_control_plane_and_takeovers_of_the_lead() {
    let mut stack = Stack::start_with(|config| {
        config.wasm = root().join("target/faulty_filter.wasm");
        assert!(config.wasm.exists(), "target/faulty_filter.wasm is missing: run `make test`");
    });
    let key = stack.admin.create_key("acme", "counted");
    let mut connections = stack.envoy.connections(8);
    // Waits until each worker knows the key, which takes one counted request for each connection.
    let mut known = 0;
    for connection in &mut connections {
        eventually_within(REPORT_DEADLINE, "the worker knows the key", || {
            let seen = connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
            if seen == "200 -" { Ok(()) } else { Err(seen) }
        });
        known += 1;
    }
    send(&mut connections, &key, 10_000 - known, ("/v1/reviews", "200 -"));
    wait_totals(&stack, &key, &json!({"allowed": 10_000, "denied": {}}));

    // A control plane that is killed while batches are in flight, and restarted.
    send(&mut connections, &key, 1_000, ("/v1/reviews", "200 -"));
    stack.control_plane.process.kill();
    send(&mut connections, &key, 1_000, ("/v1/reviews", "200 -"));
    stack.control_plane.restart();
    send(&mut connections, &key, 1_000, ("/v1/reviews", "200 -"));
    wait_totals(&stack, &key, &json!({"allowed": 13_000, "denied": {}}));

    // A leader that hangs is replaced; it continues to count when it is back.
    send(&mut connections, &key, 500, ("/v1/reviews", "200 -"));
    connections[0].get("/healthz", &[("x-fault", "leader-hang=5000")]);
    send(&mut connections, &key, 500, ("/v1/reviews", "200 -"));
    let terms = || stack.envoy.process.log().matches("subscribes to the control plane for all workers").count();
    let before = terms();
    eventually_within(REPORT_DEADLINE, "another worker leads", || {
        let seen = terms();
        if seen > before { Ok(()) } else { Err(format!("{seen} began to lead")) }
    });
    send(&mut connections, &key, 1_000, ("/v1/reviews", "200 -"));
    wait_totals(&stack, &key, &json!({"allowed": 15_000, "denied": {}}));
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_key_shows_where_it_was_used_from_and_why_it_was_denied() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "used");
    stack.wait_known(&key);
    let mut connections = stack.envoy.connections(4);
    let path = format!("/v1/workspaces/acme/keys/{}", key.id);
    let allowed = eventually_within(REPORT_DEADLINE, "the use is reported", || {
        let (_, shown) = stack.admin.send("GET", &path, None).expect("an answer");
        if shown["last_used_ip"] == "127.0.0.1" { Ok(shown) } else { Err(shown.to_string()) }
    });
    assert_eq!(allowed["secret_last_used_at"], allowed["last_used_at"]);
    assert!(allowed["last_used_at"].is_string(), "{allowed}");

    send(&mut connections, &key, 3, ("/v1/webhooks/7?token=not-shown", "403 missing-scope"));
    let denials = eventually_within(REPORT_DEADLINE, "the denials are reported", || {
        let usage = usage(&stack, &key);
        if usage["totals"]["denied"] == json!({"missing-scope": 3}) {
            Ok(usage["denials"].clone())
        } else {
            Err(usage.to_string())
        }
    });
    let denial = &denials[0];
    assert_eq!(denials.as_array().map(Vec::len), Some(3), "{denials}");
    assert_eq!(
        (&denial["code"], &denial["address"], &denial["method"], &denial["path"]),
        (&json!("missing-scope"), &json!("127.0.0.1"), &json!("GET"), &json!("/v1/webhooks/7"))
    );
}

/// How many requests had an unknown key, from the control plane's metrics.
fn unknown(stack: &Stack) -> u64 {
    let (_, text) = stack.admin.send("GET", "/metrics", None).expect("an answer");
    let name = "latchkey_usage_denied_total{code=\"unknown-key\"} ";
    let text = text.as_str().expect("text");
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |count| count.parse().expect("a number"))
}

#[test]
fn a_flood_of_unknown_keys_leaves_memory_and_database_as_they_were() {
    // With this, any text is looked up as a key.
    let stack = Stack::start_with(|config| config.plugin["foreign_keys"] = json!(true));
    let threads = 4;
    let flood = |from: u64, count: u64| {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let port = stack.envoy.port;
                scope.spawn(move || {
                    let mut connection = Connection::open(port);
                    for number in (from + thread..from + count).step_by(usize::try_from(threads).expect("few")) {
                        let key = format!("flood-{number}");
                        let verdict = connection.get("/v1/reviews", &[("x-api-key", &key)]).verdict();
                        assert_eq!(verdict, "401 unknown-key");
                    }
                });
            }
        });
    };
    let wait_reported = |count| {
        eventually_within(REPORT_DEADLINE, "the flood was reported", || {
            let seen = unknown(&stack);
            if seen == count { Ok(()) } else { Err(format!("{seen} of {count}")) }
        });
    };
    // A first flood, so that Envoy and V8 already have the memory that they allocate once for this many requests.
    let (first, more) =
        (20_000, std::env::var("LATCHKEY_FLOOD").map_or(40_000, |count| count.parse().expect("a number")));
    flood(0, first);
    wait_reported(first);
    let sizes = || {
        (
            stack.envoy.process.resident_bytes(),
            stack.control_plane.process.resident_bytes(),
            stack.control_plane.database_bytes(),
        )
    };
    let before = sizes();
    flood(first, more);
    wait_reported(first + more);
    let after = sizes();
    let mib = 1 << 20;
    assert!(after.0 < before.0 + 8 * mib, "Envoy's memory grew from {} to {}", before.0, after.0);
    assert!(after.1 < before.1 + 8 * mib, "the control plane's memory grew from {} to {}", before.1, after.1);
    // Its WAL has a fixed size after a while, and pages of the file are reused.
    assert!(after.2 <= before.2 + 64 * 1024, "the database grew from {} to {}", before.2, after.2);
    println!(
        "Envoy {} to {} bytes, control plane {} to {}, database {} to {}",
        before.0, after.0, before.1, after.1, before.2, after.2
    );
}
