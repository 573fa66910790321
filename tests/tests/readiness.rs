//! What an edge reports: ready, not ready, stale, and its metrics.

use end_to_end::{Connection, ControlPlane, Echo, Envoy, EnvoyConfig, Stack, eventually, free_port};
use serde_json::json;

#[test]
fn an_edge_without_its_control_plane_denies_as_stale_and_recovers() {
    let mut stack = Stack::start_with(|config| config.plugin["max_staleness_secs"] = json!(10));
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    stack.control_plane.process.kill();
    let mut connections = stack.envoy.connections(4);
    for connection in &mut connections {
        assert_eq!(
            connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict(),
            "200 -",
            "the last table still serves"
        );
    }
    for connection in &mut connections {
        eventually("the table is stale", || {
            let seen = connection.get("/v1/reviews", &[("x-api-key", &key.secret)]);
            match seen.verdict().as_str() {
                "503 stale" if seen.headers.contains_key("retry-after") => Ok(()),
                "200 -" => Err("still allowed".to_owned()),
                other => panic!("{other}"),
            }
        });
        assert_eq!(connection.get("/latchkey/ready", &[]).status, 503);
        assert_eq!(connection.get("/healthz", &[]).verdict(), "200 -", "a public route needs no table");
    }
    stack.control_plane.restart();
    stack.wait_known(&key);
}

#[test]
fn an_edge_with_a_wrong_token_logs_it_and_is_never_ready() {
    let stack = Stack::start();
    let mut config = stack.config.clone();
    config.edge_token = "lkedge_000000000000000000000000000000000000".to_owned();
    let mut envoy = Envoy::start(&config);
    envoy.wait_listening();
    eventually("the log names the token", || {
        let log = envoy.process.log();
        if log.contains("refused the edge token") { Ok(()) } else { Err(log) }
    });
    assert_eq!(Connection::open(envoy.port).get("/latchkey/ready", &[]).status, 503);
}

#[test]
fn an_edge_without_keys_answers_not_ready_and_allows_only_public_routes() {
    let (control_plane, echo) = (ControlPlane::start(), Echo::start());
    let mut config = EnvoyConfig::new(free_port(), echo.port, &control_plane.edge_token());
    config.plugin["ready_path"] = json!("/internal/edge-ready");
    let mut envoy = Envoy::start(&config);
    envoy.wait_listening();
    let secret = "lk_live_000000000000000000000000000000004cjNQE";
    for mut connection in envoy.connections(4) {
        for path in ["/v1/reviews", "/elsewhere", "/internal/edge-ready", "/internal/edge-ready?x=1"] {
            let answer = connection.get(path, &[("x-api-key", secret)]);
            assert_eq!(answer.verdict(), "503 not-ready", "{path}");
            assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
            assert!(answer.headers["retry-after"].parse::<u32>().is_ok_and(|secs| secs > 0), "{path}: {answer:?}");
            assert_eq!(answer.json()["code"], "not-ready");
        }
        for (path, headers, expected) in [
            ("/v1/reviews", &[][..], "401 missing-key"),
            ("/v1/reviews", &[("x-api-key", "x")], "401 malformed-key"),
            ("/latchkey/ready", &[], "401 missing-key"),
            ("/internal/edge-ready/", &[], "401 missing-key"),
        ] {
            assert_eq!(connection.get(path, headers).verdict(), expected, "{path}");
        }
        assert_eq!(echo.seen(), 0, "nothing has reached the upstream yet");
    }
    assert_eq!(Connection::open(envoy.port).get("/healthz", &[]).verdict(), "200 -", "public");
    envoy.assert_no_vm_failed();
}

#[test]
fn ready_path_answers_everybody_and_is_no_way_in() {
    let (control_plane, echo) = (ControlPlane::start(), Echo::start());
    let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
    config.plugin["ready_path"] = json!("/v1/reviews/ready");
    // One worker, because the path reports for the worker that answers.
    config.workers = 1;
    let mut envoy = Envoy::start(&config);
    envoy.wait_listening();
    eventually("the worker is ready", || {
        let seen = Connection::open(envoy.port).get("/v1/reviews/ready?x=1", &[]).verdict();
        if seen == "200 -" { Ok(()) } else { Err(seen) }
    });
    let answer = Connection::open(envoy.port).get("/v1/reviews/ready", &[("x-api-key", "x"), ("x-api-key", "y")]);
    assert_eq!((answer.status, answer.body.as_str()), (200, "ready\n"));
    assert_eq!(Connection::open(envoy.port).get("/v1/reviews/ready/7", &[]).verdict(), "401 missing-key");
    assert_eq!(echo.seen(), 0, "a probe never reaches the upstream");
}

#[test]
fn metrics_have_labels_and_none_that_a_client_can_choose() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    connection.get("/v1/reviews", &[]);
    connection.get("/healthz", &[]);
    connection.get("/v1/webhooks", &[("x-api-key", &key.secret)]);
    let revision = stack.admin.key(&key)["revision"].as_u64().expect("a revision");
    let text = eventually("the Prometheus text shows what was counted", || {
        let text = Connection::open(stack.envoy.admin_port).get("/stats/prometheus", &[]).body;
        let counted = |verdict: &str, at_least: u64| {
            let start = format!("latchkey_requests_total{{verdict=\"{verdict}\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(start.as_str()));
            value.and_then(|value| value.parse::<u64>().ok()).is_some_and(|value| value >= at_least)
        };
        let gauge = |name: &str, value: u64| text.lines().any(|line| line == format!("{name}{{}} {value}"));
        let all = counted("allowed", 8)
            && counted("public", 1)
            && counted("missing-key", 1)
            && counted("missing-scope", 1)
            && counted("unknown-key", 0)
            && gauge("latchkey_revision", revision)
            && gauge("latchkey_keys", 1)
            && gauge("latchkey_ready", 1)
            && text.contains("latchkey_age_seconds{} ");
        if all {
            Ok(text.clone())
        } else {
            Err(text.lines().filter(|line| line.contains("latchkey")).collect::<Vec<_>>().join("\n"))
        }
    });
    assert!(!text.contains(&key.id) && !text.contains("acme"), "a metric names a key or a workspace");
}
