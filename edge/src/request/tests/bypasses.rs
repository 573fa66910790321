//! Attempts to bypass the rule of a route, each of which is denied.

use super::*;
use crate::fake_envoy::map;

/// A configuration with these fields beside `control_plane`.
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
    handle_with(edge, envoy, Some(worker));
    envoy.state("latchkey_verdict").unwrap()
}

#[test]
fn an_ambiguous_path_is_refused_first_for_every_origin_of_the_rule() {
    let (secret, unknown) = (secret(1), secret(2));
    let worker = source_with(&[record(&secret)]);
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
            let by_routes = FakeEnvoy::new("GET", path, headers);
            let by_metadata = metadata.iter().map(|metadata| on_route(metadata, path, headers));
            for envoy in std::iter::once(by_routes).chain(by_metadata) {
                assert_eq!(verdict(&edge, &envoy, &worker), "denied:bad-path", "{path} {:?}", envoy.metadata);
                assert_eq!(envoy.answer.borrow().as_ref().map(|answer| answer.status), Some(400), "{path}");
                assert_eq!(envoy.forwarded("x-api-key"), [""; 0], "{path}: the key is removed before the response");
                assert_eq!(envoy.state("latchkey_key_id"), None, "{path}: no key was looked up");
            }
        }
    }
}

#[test]
fn the_ready_path_is_compared_exactly_and_first() {
    let worker = source_with(&[]);
    let edge = edge(r#""ready_path": "/ready;now""#);
    for (path, status) in [("/ready;now", 200), ("/ready;now?x", 200), ("/ready;now/", 400), ("/%72eady", 400)] {
        let envoy = FakeEnvoy::new("GET", path, &[]);
        handle_with(&edge, &envoy, Some(&worker));
        assert_eq!(envoy.answer.borrow().as_ref().map(|answer| answer.status), Some(status), "{path}");
    }
}

#[test]
fn allowed_path_parameters_are_ignored_in_matching() {
    let secret = secret(1);
    let worker = source_with(&[record(&secret)]);
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
    let worker = source_with(&[record(&secret)]);
    let host = format!("{secret}.example");
    for rule in ["public", "key"] {
        let envoy =
            on_route(&[("rule", rule)], "/", &[(":authority", host.as_bytes()), ("x-api-key", secret.as_bytes())]);
        assert_eq!(verdict(&edge(r#""edge": "e""#), &envoy, &worker), "denied:bad-authority", "{rule}");
        assert_eq!(envoy.answer.borrow().as_ref().map(|answer| answer.status), Some(400), "{rule}");
    }
}

#[test]
fn a_stray_key_reaches_no_upstream() {
    let secret = secret(1);
    let worker = source_with(&[record(&secret)]);
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
        assert_eq!(handle_with(&edge(r#""edge": "e""#), &envoy, Some(&worker)), RequestOutcome::Passes, "{rule}");
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
fn a_redirected_pass_finds_no_key_that_this_edge_does_not_accept() {
    let foreign = "sk_foreign";
    let secret = secret(1);
    let staging = "lk_staging_000000000000000000000000000000001XBj4K";
    let imported = KeyRecord { digest: Digest::of(foreign.as_bytes()), ..record(&secret) };
    let elsewhere = KeyRecord {
        digest: Digest::of(staging.as_bytes()),
        key: policy::KeyId::from_bytes([3; 16]),
        ..record(&secret)
    };
    let worker = source_with(&[imported, elsewhere]);
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
fn behind_proxies_an_allowlist_is_checked_against_the_forwarded_address() {
    let secret = secret(1);
    let allowlist = Allowlist::try_from(Some(vec!["10.0.0.0/8".to_owned(), "192.0.2.0/24".to_owned()])).unwrap();
    let mut worker = source_with(&[KeyRecord { allowlist, ..record(&secret) }]);
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
        assert_eq!(envoy.addresses_read.get(), 0, "{forwarded:?}: the peer's address is not used");
    }
    let batch = usage_batch(&mut worker);
    let addresses: Vec<_> =
        batch["denials"].as_array().unwrap().iter().map(|denial| denial["address"].clone()).collect();
    let named = serde_json::json!("203.0.113.9");
    assert!(addresses.contains(&named) && addresses.contains(&serde_json::Value::Null), "{addresses:?}");
    assert!(!batch.to_string().contains("192.0.2.7"), "{batch}");
}

#[test]
fn a_template_with_more_parameters_than_the_router_supports_denies() {
    let secret = secret(1);
    let worker = source_with(&[record(&secret)]);
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
