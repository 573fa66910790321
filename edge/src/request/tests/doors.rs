//! Ways past the rule of a route, each tried and shut.

use super::*;
use crate::fake_envoy::map;

/// A config with this beside the control plane.
fn edge(fields: &str) -> Edge {
    let json = format!(r#"{{"control_plane": {{"cluster": "latchkey", "authority": "latchkey"}}, {fields}}}"#);
    Edge::parse(json.as_bytes()).unwrap()
}

/// A request on a route with this metadata.
fn on_route(pairs: &[(&str, &str)], path: &str, headers: &[(&str, &[u8])]) -> FakeEnvoy {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    FakeEnvoy { metadata: Ok(Some(map(&pairs))), ..FakeEnvoy::new("GET", path, headers) }
}

fn verdict(edge: &Edge, envoy: &FakeEnvoy, worker: &Source) -> String {
    handled_by(edge, envoy, Some(worker));
    envoy.state("latchkey_verdict").unwrap()
}

#[test]
fn a_path_with_two_readings_is_refused_before_all_else_whatever_the_rule_comes_from() {
    let (secret, unknown) = (secret(1), secret(2));
    let worker = knowing(&[record(&secret)]);
    let edge = edge(
        r#""routes": [{"path": "/healthz/{*rest}", "rule": "public"}, {"path": "/v1/reviews/{*rest}", "rule": "reviews"}],
           "unmatched": "key""#,
    );
    let metadata: [&[(&str, &str)]; 5] = [
        &[("rule", "public")],
        &[("rule", "reviews")],
        &[("rule", "key"), ("path", "/v1/{*rest}")],
        &[("rule", "deny")],
        &[("rule", "no rule")],
    ];
    for path in ["/healthz/..;/v1/reviews/1", "/v1/reviews/%2e%2e;/webhooks", "/v1/reviews//7", "/a%09", "/v1/other;x"]
    {
        for key in ["", &secret, &unknown, "nonsense"] {
            let headers: &[(&str, &[u8])] = if key.is_empty() { &[] } else { &[("x-api-key", key.as_bytes())] };
            let routed = FakeEnvoy::new("GET", path, headers);
            let stated = metadata.iter().map(|metadata| on_route(metadata, path, headers));
            for envoy in std::iter::once(routed).chain(stated) {
                assert_eq!(verdict(&edge, &envoy, &worker), "denied:bad-path", "{path} {:?}", envoy.metadata);
                assert_eq!(envoy.answer.borrow().as_ref().map(|answer| answer.status), Some(400), "{path}");
                assert_eq!(envoy.forwarded("x-api-key"), [""; 0], "{path}: the key is gone before the answer");
                assert_eq!(envoy.state("latchkey_key_id"), None, "{path}: nobody was looked up");
            }
        }
    }
}

#[test]
fn the_ready_path_is_compared_exactly_and_first() {
    let worker = knowing(&[]);
    let edge = edge(r#""ready_path": "/ready;now""#);
    for (path, status) in [("/ready;now", 200), ("/ready;now?x", 200), ("/ready;now/", 400), ("/%72eady", 400)] {
        let envoy = FakeEnvoy::new("GET", path, &[]);
        handled_by(&edge, &envoy, Some(&worker));
        assert_eq!(envoy.answer.borrow().as_ref().map(|answer| answer.status), Some(status), "{path}");
    }
}

#[test]
fn what_is_admitted_in_paths_is_matched_without_parameters() {
    let secret = secret(1);
    let worker = knowing(&[record(&secret)]);
    let edge = edge(
        r#""paths": {"allow": ["semicolon"]},
           "routes": [{"path": "/v1/webhooks/{*rest}", "rule": "webhooks"}, {"path": "/{*rest}", "rule": "public"}]"#,
    );
    for (path, expected) in [
        ("/v1/webhooks;x/1", "denied:missing-scope"),
        ("/v1/other;x", "public"),
        ("/v1/other/..;x/webhooks", "denied:bad-path"),
    ] {
        let envoy = FakeEnvoy::new("GET", path, &[("x-api-key", secret.as_bytes())]);
        assert_eq!(verdict(&edge, &envoy, &worker), expected, "{path}");
    }
    let envoy = on_route(&[("rule", "reviews")], "/v1/reviews;x", &[("x-api-key", secret.as_bytes())]);
    assert_eq!(verdict(&edge, &envoy, &worker), "allowed", "taken as Envoy matched it");
}

#[test]
fn a_key_in_the_host_is_refused_on_public_routes_too() {
    let secret = secret(1);
    let worker = knowing(&[record(&secret)]);
    let host = format!("{secret}.example");
    for rule in ["public", "key"] {
        let envoy =
            on_route(&[("rule", rule)], "/", &[(":authority", host.as_bytes()), ("x-api-key", secret.as_bytes())]);
        assert_eq!(verdict(&edge(r#""edge": "e""#), &envoy, &worker), "denied:bad-authority", "{rule}");
        assert_eq!(envoy.answer.borrow().as_ref().map(|answer| answer.status), Some(400), "{rule}");
    }
}

#[test]
fn a_key_reaches_no_upstream_from_where_none_belongs() {
    let secret = secret(1);
    let worker = knowing(&[record(&secret)]);
    let other = format!("https://a.example/?k={secret}");
    let path = format!("/v1/reviews?a=b&leak={secret}");
    for rule in ["public", "reviews"] {
        let headers: &[(&str, &[u8])] = &[
            ("x-api-key", secret.as_bytes()),
            ("authorization", secret.as_bytes()),
            ("referer", other.as_bytes()),
            ("cookie", b"a=1"),
        ];
        let envoy = on_route(&[("rule", rule)], &path, headers);
        assert_eq!(handled_by(&edge(r#""edge": "e""#), &envoy, Some(&worker)), Outcome::Passes, "{rule}");
        for (name, expected) in [
            (":path", "/v1/reviews?a=b"),
            ("authorization", "removed"),
            ("referer", "https://a.example/?k=removed"),
            ("cookie", "a=1"),
        ] {
            assert_eq!(envoy.forwarded(name), [expected], "{rule}: {name}");
        }
    }
}

#[test]
fn a_redirected_pass_finds_no_key_that_would_not_have_been_taken_here() {
    let foreign = "sk_foreign";
    let secret = secret(1);
    let staging = "lk_staging_000000000000000000000000000000001XBj4K";
    let imported = KeyRecord { digest: Digest::of(foreign.as_bytes()), ..record(&secret) };
    let elsewhere = KeyRecord {
        digest: Digest::of(staging.as_bytes()),
        key: policy::KeyId::from_bytes([3; 16]),
        ..record(&secret)
    };
    let worker = knowing(&[imported, elsewhere]);
    for (fields, key, expected) in [
        (r#""foreign_keys": false"#, foreign, "denied:missing-key"),
        (r#""foreign_keys": true"#, foreign, "allowed"),
        (r#""foreign_keys": true"#, staging, "denied:missing-key"),
        (r#""foreign_keys": false"#, "nonsense", "denied:missing-key"),
    ] {
        let edge = edge(fields);
        let mut envoy = on_route(&[("rule", "public")], "/login", &[("x-api-key", key.as_bytes())]);
        assert_eq!(verdict(&edge, &envoy, &worker), "public", "{fields} {key}");
        envoy.redirect("/v1/reviews");
        envoy.metadata = Ok(Some(map(&[("rule", &b"reviews"[..])])));
        assert_eq!(verdict(&edge, &envoy, &worker), expected, "{fields} {key}");
    }
}

#[test]
fn behind_proxies_an_allowlist_is_held_against_whom_they_named() {
    let secret = secret(1);
    let allowlist = Allowlist::try_from(Some(vec!["10.0.0.0/8".to_owned(), "192.0.2.0/24".to_owned()])).unwrap();
    let mut worker = knowing(&[KeyRecord { allowlist, ..record(&secret) }]);
    let edge = edge(r#""trusted_hops": 1"#);
    for (forwarded, expected) in [
        (Some("10.0.0.9,10.0.0.1"), "allowed"),
        (Some("10.0.0.9:55220,10.0.0.1"), "allowed"),
        (Some("203.0.113.9:55220,10.0.0.1"), "denied:address-not-allowed"),
        (Some("10.0.0.9,203.0.113.9,10.0.0.1"), "denied:address-not-allowed"),
        (Some("unknown,10.0.0.1"), "denied:address-not-allowed"),
        (Some("ip,,10.0.0.1"), "denied:address-not-allowed"),
        (Some("10.0.0.1"), "denied:address-not-allowed"),
        (None, "denied:address-not-allowed"),
    ] {
        let mut headers = vec![("x-api-key", secret.as_bytes())];
        headers.extend(forwarded.map(|value| ("x-forwarded-for", value.as_bytes())));
        let envoy = on_route(&[("rule", "reviews")], "/v1/reviews", &headers);
        assert_eq!(verdict(&edge, &envoy, &worker), expected, "{forwarded:?}");
        assert_eq!(envoy.addresses_read.get(), 0, "{forwarded:?}: the peer is nobody's address");
    }
    let told = told(&mut worker);
    let addresses: Vec<_> =
        told["denials"].as_array().unwrap().iter().map(|denial| denial["address"].clone()).collect();
    let named = serde_json::json!("203.0.113.9");
    assert!(addresses.contains(&named) && addresses.contains(&serde_json::Value::Null), "{addresses:?}");
    assert!(!told.to_string().contains("192.0.2.7"), "{told}");
}

#[test]
fn a_template_with_more_parameters_than_the_router_knows_denies_and_harms_nobody() {
    let secret = secret(1);
    let worker = knowing(&[record(&secret)]);
    let edge = edge(r#""edge": "e""#);
    for parameters in [17, 26, 27, 1000] {
        let template = "/{a}".repeat(parameters);
        let headers: &[(&str, &[u8])] = &[("x-api-key", secret.as_bytes())];
        let envoy = on_route(&[("rule", "key"), ("path", &template)], &"/a".repeat(parameters), headers);
        assert_eq!(verdict(&edge, &envoy, &worker), "denied:no-route-rule", "{parameters}");
        let envoy = on_route(&[("rule", "key"), ("path", "")], "/a", headers);
        assert_eq!(verdict(&edge, &envoy, &worker), "denied:no-route-rule");
    }
}
