//! Former bypasses of the filter, each tried on a real Envoy.

use end_to_end::{Connection, EnvoyConfig, Stack, eventually};
use serde_json::json;
use test_support::digest;

const BEFORE_ROUTES: &str = "              # Each route states";

/// A route before all others.
fn route(config: &mut EnvoyConfig, path: &str, metadata: &str, more: &str) {
    let route = format!(
        "              - match: {{path: {path}}}\n                metadata: {{filter_metadata: {{latchkey: {metadata}}}}}\n{more}"
    );
    config.replace(BEFORE_ROUTES, &format!("{route}\n{BEFORE_ROUTES}"));
}

const UPSTREAM: &str = "                route: {cluster: upstream}";

#[test]
fn behind_a_proxy_no_forwarded_entry_makes_a_client_the_proxy() {
    let stack = Stack::start_with(|config| {
        config.replace(
            "          use_remote_address: true\n",
            "          use_remote_address: true\n          xff_num_trusted_hops: 1\n",
        );
        config.plugin["trusted_hops"] = json!(1);
    });
    // Allows the proxies' network, from which this test connects, and the addresses of clients.
    let key = stack.admin.create_key_with(
        "acme",
        &json!({"name": "k", "expires_in": "none", "scopes": {"reviews": "read"},
                "ip_allowlist": ["127.0.0.0/8", "198.51.100.7", "2001:db8::/32"]}),
    );
    let mut connection = Connection::open(stack.envoy.port);
    let mut verdict = |lines: &[&str]| {
        let mut headers = vec![("x-api-key", key.secret.as_str())];
        headers.extend(lines.iter().map(|line| ("x-forwarded-for", *line)));
        connection.get("/v1/reviews", &headers).verdict()
    };
    eventually("the key is known", || {
        let seen = verdict(&["198.51.100.7"]);
        if seen == "200 -" { Ok(()) } else { Err(seen) }
    });
    for lines in [
        &["198.51.100.7:55220"][..],
        &["203.0.113.9, 198.51.100.7"],
        &["203.0.113.9", "198.51.100.7"],
        &["[2001:db8::7]:443"],
        &["2001:db8::7"],
        &["::ffff:198.51.100.7"],
    ] {
        assert_eq!(verdict(lines), "200 -", "{lines:?}");
    }
    for lines in [
        &[][..],
        &["203.0.113.9"],
        &["203.0.113.9:55220"],
        &["198.51.100.7, 203.0.113.9:55220"],
        &["[2001:db9::7]:443"],
        &["unknown"],
        &["198.51.100.7,"],
        &[","],
        &["127.0.0.1, unknown"],
        &["_hidden"],
        &["198.51.100.7 203.0.113.9"],
    ] {
        assert_eq!(verdict(lines), "403 address-not-allowed", "{lines:?}");
    }
    // A denial is reported with the address that was checked, and without one for an unknown client.
    let path = format!("/v1/workspaces/acme/keys/{}/usage", key.id);
    eventually("the denials have their addresses", || {
        let denials = stack.admin.get(&path)["denials"].clone();
        let has = |address: &serde_json::Value| {
            denials.as_array().is_some_and(|all| all.iter().any(|denial| denial["address"] == *address))
        };
        let is_reported = has(&json!("203.0.113.9")) && has(&serde_json::Value::Null) && !has(&json!("127.0.0.1"));
        if is_reported { Ok(()) } else { Err(denials.to_string()) }
    });
}

#[test]
fn text_that_is_no_key_does_not_reach_a_redirected_request() {
    let foreign = "theirs.000001-with their own punctuation";
    let stack = Stack::start_with(|config| {
        let more = "                request_headers_to_add: [{header: {key: x-echo-redirect, value: \"http://api.example/v1/reviews/7\"}}]\n                route: {cluster: upstream, internal_redirect_policy: {max_internal_redirects: 3}}";
        route(config, "/v1/lent", "{rule: public}", more);
    });
    let line = json!({"digest": digest::hexadecimal(foreign), "name": "theirs", "expires_in": "none", "scopes": {"reviews": "read"}});
    let imported = stack.admin.send_lines("/v1/workspaces/acme/keys/import", format!("{line}\n"));
    assert_eq!(imported.0, 200, "{imported:?}");
    // Created later, so a worker that knows it also knows the imported one.
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let mut connection = Connection::open(stack.envoy.port);
    assert_eq!(connection.get("/v1/lent", &[("x-api-key", &key.secret)]).verdict(), "200 -");
    assert_eq!(connection.get("/v1/reviews", &[("x-api-key", foreign)]).verdict(), "401 malformed-key");
    assert_eq!(connection.get("/v1/lent", &[("x-api-key", foreign)]).verdict(), "401 missing-key");
}

#[test]
fn a_template_with_too_many_parameters_denies_on_its_route_and_no_other() {
    let template = (0..26).map(|number| format!("/{{p{number}}}")).collect::<String>();
    let stack = Stack::start_with(|config| {
        route(config, "/v1/many", &format!("{{rule: key, path: \"{template}\"}}"), UPSTREAM);
        route(config, "/v1/none", "{rule: key, path: \"\"}", UPSTREAM);
    });
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let with_key = [("x-api-key", key.secret.as_str())];
    for mut connection in stack.envoy.connections(4) {
        for round in 0..20 {
            assert_eq!(connection.get("/v1/many", &[]).verdict(), "401 missing-key", "round {round}");
            assert_eq!(connection.get("/v1/many", &with_key).verdict(), "403 no-route-rule", "round {round}");
            assert_eq!(connection.get("/v1/none", &with_key).verdict(), "403 no-route-rule", "round {round}");
            assert_eq!(connection.get("/v1/reviews", &with_key).verdict(), "200 -", "round {round}");
        }
    }
    stack.envoy.assert_no_vm_failed();
}

#[test]
fn a_key_in_a_wrong_place_reaches_no_upstream() {
    let stack = Stack::start();
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let secret = key.secret.as_str();
    let encoded = secret.replace('_', "%5f").replacen('l', "%6C", 1);
    let mut connection = Connection::open(stack.envoy.port);
    let (referer, json_value) = (format!("https://a.example/?api_key={secret}"), format!("{{\"key\": \"{secret}\"}}"));
    let (cookie, twice) = (format!("a=1; token={secret}; other={encoded}"), format!("Basic {secret}"));
    for (path, with_key) in [("/healthz", false), ("/v1/reviews", true)] {
        let mut headers = vec![
            ("authorization", twice.as_str()),
            ("x-token", secret),
            ("x-token", "kept"),
            ("referer", &referer),
            ("x-context", &json_value),
            ("cookie", &cookie),
            ("accept-language", "de"),
        ];
        if with_key {
            headers.push(("x-api-key", secret));
        }
        let answer = connection.get(&format!("{path}?a=1&leak={secret}&more={encoded}&b=2"), &headers);
        assert_eq!(answer.verdict(), "200 -", "{path}");
        assert!(!answer.body.contains(secret) && !answer.body.contains(&encoded), "{path}: {answer:?}");
        let echo = answer.json();
        assert_eq!(echo["path"], format!("{path}?a=1&b=2"));
        for (name, expected) in [
            ("authorization", "Basic removed"),
            ("x-token", "removed,kept"),
            ("referer", "https://a.example/?api_key=removed"),
            ("x-context", "{\"key\": \"removed\"}"),
            ("cookie", "a=1"),
            ("accept-language", "de"),
        ] {
            assert_eq!(echo["headers"][name], json!([expected]), "{path}: {name}");
        }
    }
    // In these places a key is no credential, and in the host it is refused.
    assert_eq!(connection.get("/v1/reviews", &[("x-token", secret)]).verdict(), "401 missing-key");
    assert_eq!(connection.get(&format!("/v1/reviews?leak={secret}"), &[]).verdict(), "401 missing-key");
    let in_host = format!("GET /healthz HTTP/1.1\r\nhost: {secret}.example\r\n\r\n");
    assert_eq!(connection.raw(in_host.as_bytes()).verdict(), "400 bad-authority");
}
