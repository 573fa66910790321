//! `latchkey explain`: which rule, which verdict, and why.

use std::fs::write;

use serde_json::json;

use super::Cli;

const PLUGIN: &str = r#"{"control_plane": {"cluster": "latchkey", "authority": "latchkey"}, "routes": [
    {"path": "/v1/reviews/{*rest}", "rule": "reviews"},
    {"path": "/v1/workspaces/{workspace}/{*rest}", "rule": "key"},
    {"methods": ["POST"], "path": "/v1/scans", "rule": "security_scans:read"},
    {"path": "/healthz", "rule": "public"}]}"#;

#[test]
fn a_verdict_names_its_rule_and_its_reason() {
    let cli = Cli::start();
    write(cli.at("plugin.json"), PLUGIN).unwrap();
    let (id, _) = cli.key("CI", &["--scope", "reviews:read", "--allow", "10.0.0.0/8"]);
    let inside: &[&str] = &["--address", "10.1.2.3"];
    for (method, path, more, verdict, rule, why) in [
        ("GET", "/v1/reviews/7", inside, "allowed", "reviews:read (by the method GET)", "the key is valid for `live`"),
        (
            "POST",
            "/v1/reviews",
            inside,
            "missing-scope",
            "reviews:write (by the method POST)",
            "the key has reviews:read",
        ),
        ("POST", "/v1/scans", inside, "missing-scope", "security_scans:read", "the key has nothing of security_scans"),
        (
            "GET",
            "/v1/scans",
            inside,
            "no-route-rule",
            "none for this path and method",
            "this path and method have no rule",
        ),
        ("GET", "/v1/other", inside, "no-route-rule", "deny", "the rule is `deny`"),
        (
            "GET",
            "/v1/reviews/7",
            &["--address", "192.0.2.1"],
            "address-not-allowed",
            "reviews:read",
            "192.0.2.1 is in none of them",
        ),
        ("GET", "/v1/reviews/7", &[], "address-not-allowed", "reviews:read", "no --address was given"),
        (
            "GET",
            "/v1/reviews/../x",
            inside,
            "bad-path",
            "more than one way",
            "The path can be read in more than one way",
        ),
        ("GET", "/healthz/%2e%2e;/v1", &[], "bad-path", "more than one way", "`paths.allow` lists what else"),
        (
            "GET",
            "/v1/reviews;x",
            &["--rule", "public"],
            "bad-path",
            "more than one way",
            "can be read in more than one",
        ),
        ("GET", "/v1/workspaces/acme/keys", inside, "allowed", "key, for keys of workspace acme", "the key is valid"),
        (
            "GET",
            "/v1/workspaces/other",
            inside,
            "wrong-workspace",
            "for keys of workspace other",
            "the key's own, acme",
        ),
        ("GET", "/healthz", &[], "public", "public", "no key is needed"),
        ("GET", "/v1/reviews", &["--secret", "rotated-out"], "rotated-key", "reviews:read", "only the newest is valid"),
        ("GET", "/v1/reviews", &["--secret", "previous"], "rotated-key", "reviews:read", "only the newest is valid"),
        ("GET", "/v1/reviews", &["--foreign"], "malformed-key", "reviews:read", "`foreign_keys`"),
    ] {
        let arguments =
            [&["explain", method, path, "--config", "plugin.json", "-w", "acme", "--key", &id], more].concat();
        let ended = cli.run(&arguments);
        let passes = ["allowed", "public"].contains(&verdict);
        assert_eq!(ended.code, if passes { 0 } else { 5 }, "{arguments:?}: {ended:?}");
        for (name, expected) in [("verdict", verdict), ("rule", rule), ("why", why)] {
            let line = ended.stdout.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(line.contains(expected), "{arguments:?}: {line}");
        }
    }
}

#[test]
fn a_rule_may_come_from_a_route_s_metadata() {
    let cli = Cli::start();
    let (id, _) = cli.key("CI", &["--scope", "reviews:write"]);
    let explain = |path: &str, more: &[&str]| {
        let ended = cli.run(&[&["explain", "GET", path, "-w", "acme", "--key", &id, "--json"], more].concat());
        let explanation: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(explanation["allowed"], json!(ended.code == 0));
        (explanation["verdict"].as_str().unwrap().to_owned(), explanation["rule_from"].as_str().unwrap().to_owned())
    };
    let metadata = "the route's metadata".to_owned();
    assert_eq!(explain("/a", &["--rule", "reviews:write"]), ("allowed".to_owned(), metadata.clone()));
    assert_eq!(explain("/a", &["--rule", "no rule"]), ("no-route-rule".to_owned(), metadata.clone()));
    let template = "/w/{workspace}/{*rest}";
    assert_eq!(
        explain("/w/acme/x", &["--rule", "key", "--template", template]),
        ("allowed".to_owned(), metadata.clone())
    );
    assert_eq!(
        explain("/w/else/x", &["--rule", "key", "--template", template]),
        ("wrong-workspace".to_owned(), metadata)
    );
    assert_eq!(explain("/a", &[]), ("no-route-rule".to_owned(), "`unmatched`".to_owned()));
}

#[test]
fn a_key_in_a_file_needs_no_control_plane() {
    let cli = Cli::start();
    let (id, _) = cli.key("CI", &["--scope", "reviews:read"]);
    write(cli.at("key.json"), cli.ok(&["keys", "show", "-w", "acme", &id, "--json"])).unwrap();
    cli.ok(&["logout"]);
    let base = ["explain", "GET", "/v1/reviews", "--rule", "reviews", "--record", "key.json"];
    assert!(cli.ok(&base).contains(&format!("CI ({id})")));
    let mut later = base.to_vec();
    let mut key: serde_json::Value = serde_json::from_slice(&std::fs::read(cli.at("key.json")).unwrap()).unwrap();
    key["expires_at"] = json!("2030-01-01T00:00:00Z");
    write(cli.at("key.json"), key.to_string()).unwrap();
    assert_eq!(cli.run(&later).code, 0);
    later.extend(["--at", "2030-01-01T00:00:00Z"]);
    let expired = cli.run(&later);
    assert!(expired.code == 5 && expired.stdout.contains("the key expired at 2030-01-01T00:00:00Z"), "{expired:?}");
    key["active"] = json!(false);
    write(cli.at("key.json"), key.to_string()).unwrap();
    assert!(cli.run(&base).stdout.contains("401 inactive-key"));
    let keyless = cli.run(&base[..5]);
    assert!(keyless.code == 5 && keyless.stdout.contains("401 missing-key"), "{keyless:?}");
    write(cli.at("key.json"), "{}").unwrap();
    assert!(cli.run(&base).stderr.contains("not a key as `latchkey keys show --json` writes it"));
}
