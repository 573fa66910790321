//! Any bytes as path, cookie and credential: no key is left behind, and nothing is public that isn't.
#![no_main]

use std::sync::LazyLock;

use filter::credential::{Removal, find};
use filter::edge::Edge;
use filter::metadata::RouteMetadata;
use libfuzzer_sys::fuzz_target;
use policy::route::{RouteRuleBinding, bind, plain_path};

static EDGE: LazyLock<Edge> = LazyLock::new(|| {
    let config = br#"{
        "control_plane": {"cluster": "latchkey", "authority": "latchkey"},
        "credentials": [{"header": "x-api-key"}, {"header": "authorization", "prefix": "Bearer "}, {"query": "api_key"},
                        {"cookie": "api_key"}],
        "routes": [{"path": "/open/{*rest}", "rule": "public"}, {"path": "/open/{id}/closed", "rule": "deny"},
                   {"path": "/v1/workspaces/{workspace}/{*rest}", "rule": "workspaces"},
                   {"methods": ["GET"], "path": "/v1/reviews", "rule": "reviews"}]
    }"#;
    Edge::parse(config).expect("a configuration")
});

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let path = parts.next().unwrap_or_default();
    let names = [":path", "cookie", "authorization"];
    let values = [path, parts.next().unwrap_or_default(), parts.next().unwrap_or_default()];
    let headers: Vec<_> = names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();

    let found = find(&headers, &EDGE.config.credentials);
    assert_eq!(found.keys.is_empty(), found.removals.is_empty());
    let mut left = headers.clone();
    for removal in &found.removals {
        match removal {
            Removal::Header(name) => left.retain(|(own, _)| own != name),
            Removal::Rewrite(name, value) => {
                left.iter_mut().filter(|(own, _)| own == name).for_each(|(_, own)| own.clone_from(value));
            }
        }
    }
    assert!(find(&left, &EDGE.config.credentials).keys.is_empty(), "a key is left behind");

    for method in [&b"GET"[..], b"POST"] {
        if EDGE.route_rule(RouteMetadata::Absent, method, path).is_public() {
            let plain = plain_path(path).expect("a public path can be read in one way");
            assert!(plain.starts_with("/open") && !plain.ends_with("/closed"), "{plain}");
        }
    }
    for template in ["/v1/workspaces/{workspace}/{*rest}", "/{*rest}", "/a{id}/b"] {
        if let RouteRuleBinding::Fits { workspace: Some(workspace) } = bind(template, path) {
            assert!(!workspace.is_empty() && !workspace.contains(['/', '?', '#']), "{workspace}");
        }
    }
    let _ = RouteMetadata::read(Some(bytes)).guard_text();
});
