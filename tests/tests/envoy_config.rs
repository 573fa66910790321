//! The configuration that `latchkey envoy-config` prints, in a real Envoy: headers, trailers, paths, addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use end_to_end::{
    Connection, CreatedKey, Echo, HTTP2_CLUSTER, Http2Upstream, Response, Sidecar, SidecarFlags, eventually,
    post_with_trailers,
};
use serde_json::{Value, json};

const ROUTES: [&str; 2] = ["--route=/healthz=public", "--route=/v1/reviews=reviews"];

/// Headers by which an upstream could read another request than the one that was decided.
const OVERRIDES: [(&str, &str); 5] = [
    ("x-http-method-override", "DELETE"),
    ("x-method-override", "DELETE"),
    ("x-http-method", "DELETE"),
    ("x-original-url", "/v1/webhooks"),
    ("x-rewrite-url", "/v1/webhooks"),
];

fn trailers(answer: Result<Response, h2::Error>) -> Value {
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["trailers"].clone()
}

#[test]
fn request_trailers_carry_neither_identity_nor_keys_to_the_upstream() {
    let upstream = Http2Upstream::start();
    let cluster = "  - name: upstream\n    type: STRICT_DNS\n";
    let replacements = [(cluster, &*format!("{cluster}{HTTP2_CLUSTER}"))];
    for flags in [&[][..], &["--keep-override-headers"]] {
        let flags = [&ROUTES[..], flags].concat();
        let sidecar =
            Sidecar::start(&SidecarFlags { replacements: &replacements, ..SidecarFlags::new(upstream.port, &flags) });
        let key = sidecar.create_key();
        let bearer = format!("Bearer {}", key.secret);
        let mut sent = vec![
            ("checksum", "1"),
            ("x-latchkey-key-id", "key_1"),
            ("x-latchkey-scopes", "webhooks:write"),
            ("x-latchkey-anything", "else"),
            ("x-api-key", key.secret.as_str()),
            ("x-api-key", "another"),
            ("authorization", bearer.as_str()),
            ("cookie", "api_key=a"),
        ];
        let note = format!("a, {}", key.secret);
        sent.push(("note", &note));
        sent.extend(OVERRIDES);
        let expected = json!({"checksum": ["1"]});
        for (path, headers) in [("/healthz", &[][..]), ("/v1/reviews", &[("x-api-key", key.secret.as_str())])] {
            let seen = trailers(post_with_trailers(sidecar.port, path, headers, &sent));
            assert_eq!(seen, expected, "{path} {flags:?}");
        }
        // A trailer that an upstream could take for one of them ends the stream.
        for name in ["x_latchkey_key_id", "x_api_key"] {
            let seen = post_with_trailers(sidecar.port, "/healthz", &[], &[(name, "a")]);
            assert!(seen.is_err(), "{name}: {seen:?}");
        }
    }
}

#[test]
fn override_headers_reach_the_upstream_only_if_the_flag_keeps_them() {
    let echo = Echo::start();
    for (flags, stay) in [(&[][..], false), (&["--keep-override-headers"][..], true)] {
        let flags = [&ROUTES[..], flags].concat();
        let sidecar = Sidecar::start(&SidecarFlags::new(echo.port, &flags));
        let key = sidecar.create_key();
        for path in ["/healthz", "/v1/reviews"] {
            let headers = [&OVERRIDES[..], &[("x-api-key", key.secret.as_str())]].concat();
            let answer = sidecar.get(path, &headers);
            assert_eq!(answer.verdict(), "200 -", "{path} {flags:?}");
            for (name, value) in OVERRIDES {
                let expected = if stay { json!([value]) } else { Value::Null };
                assert_eq!(answer.json()["headers"][name], expected, "{path} {flags:?} {name}");
            }
        }
    }
}

#[test]
fn spellings_of_paths_that_are_allowed_reach_the_upstream_as_they_are() {
    let echo = Echo::start();
    let kinds = "--allow-in-paths=semicolon,encoded-slash,encoded-unreserved";
    let flags = [&ROUTES[..], &[kinds, "--allow-in-paths=double-slash", "--allow-in-paths=encoded-query"]].concat();
    let sidecar = Sidecar::start(&SidecarFlags::new(echo.port, &flags));
    let key = sidecar.create_key();
    let with_key = [("x-api-key", key.secret.as_str())];
    for (path, expected) in [
        ("/v1/reviews/7;v=2", "/v1/reviews/7;v=2"),
        ("/v1/reviews/a%2Fb", "/v1/reviews/a%2Fb"),
        ("/v1/reviews//7", "/v1/reviews//7"),
        ("/v1/reviews/a%3Fb%23c", "/v1/reviews/a%3Fb%23c"),
        // Envoy decodes these itself, before it matches.
        ("/v1/%72eviews/%37", "/v1/reviews/7"),
    ] {
        let answer = sidecar.get(path, &with_key);
        assert_eq!(answer.verdict(), "200 -", "{path}: {answer:?}");
        assert_eq!(answer.json()["path"], expected, "{path}");
        assert_ne!(sidecar.get(path, &[]).status, 200, "{path} without a key");
    }
    // These never pass, whatever is allowed.
    let before = echo.seen();
    for path in ["/healthz/..%2F/v1/reviews", "/v1/webhooks;x/1", "//v1/reviews/7"] {
        assert_ne!(sidecar.get(path, &[]).status, 200, "{path}");
    }
    assert_eq!(echo.seen(), before);
}

/// A key that may be used from this address only.
fn bound(sidecar: &Sidecar, address: &str) -> CreatedKey {
    let scopes = json!({"reviews": "read"});
    let body = json!({"name": "bound", "expires_in": "none", "scopes": scopes, "ip_allowlist": [address]});
    sidecar.control_plane.admin().create_key_with("acme", &body)
}

#[test]
fn envoy_and_the_filter_count_the_same_hops() {
    let echo = Echo::start();
    for hops in [0, 2] {
        let flag = format!("--trusted-hops={hops}");
        let flags = [&ROUTES[..], &[flag.as_str()]].concat();
        let sidecar = Sidecar::start(&SidecarFlags::new(echo.port, &flags));
        let mut admin = Connection::try_open_at(sidecar.admin).expect("the admin pages");
        let dump = admin.get("/config_dump?resource=static_listeners", &[]).json();
        let listeners = dump["configs"].as_array().expect("listeners");
        assert_eq!(listeners.len(), 2, "{dump}");
        for listener in listeners {
            let manager = &listener["listener"]["filter_chains"][0]["filters"][0]["typed_config"];
            assert_eq!(manager["xff_num_trusted_hops"].as_u64().unwrap_or(0), hops, "{manager}");
            let plugin = &manager["http_filters"][0]["typed_config"]["config"]["configuration"]["value"];
            let plugin: Value = serde_json::from_str(plugin.as_str().expect("a text")).expect("JSON");
            assert_eq!(plugin["trusted_hops"].as_u64().unwrap_or(0), hops, "{plugin}");
        }
    }
}

#[test]
fn a_forwarded_entry_that_envoy_cannot_read_does_not_count_as_the_proxy() {
    let echo = Echo::start();
    let flags = [&ROUTES[..], &["--trusted-hops=1"]].concat();
    let sidecar = Sidecar::start(&SidecarFlags::new(echo.port, &flags));
    let (client, proxy) = (bound(&sidecar, "203.0.113.9"), bound(&sidecar, "127.0.0.1"));
    let verdict = |key: &CreatedKey, forwarded: &str| {
        sidecar.get("/v1/reviews", &[("x-api-key", &key.secret), ("x-forwarded-for", forwarded)]).verdict()
    };
    for _ in 0..8 {
        eventually("both keys are known", || {
            let seen = (verdict(&client, "203.0.113.9"), verdict(&proxy, "127.0.0.1"));
            if seen.0 == "200 -" && seen.1 == "200 -" { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }
    for (forwarded, of_client) in [
        ("203.0.113.9:55220", "200 -"),
        ("[2001:db8::9]:443", "403 address-not-allowed"),
        ("unknown", "403 address-not-allowed"),
        ("203.0.113.9,", "403 address-not-allowed"),
    ] {
        assert_eq!(verdict(&client, forwarded), of_client, "{forwarded}");
        assert_eq!(verdict(&proxy, forwarded), "403 address-not-allowed", "{forwarded}: a key for the proxies alone");
    }
}

#[test]
fn a_listener_on_all_ipv6_addresses_takes_ipv4_too() {
    let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    if TcpListener::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)).is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let echo = Echo::start();
    let sidecar = Sidecar::start(&SidecarFlags { listen: unspecified, ..SidecarFlags::new(echo.port, &ROUTES) });
    for loopback in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(loopback.parse().expect("an address"), sidecar.port);
        let scopes = json!({"reviews": "read"});
        // The client is seen under its own address.
        let body = json!({"name": loopback, "expires_in": "none", "scopes": scopes, "ip_allowlist": [loopback]});
        sidecar.create_key_at(address, &body);
    }
}
