//! Any bytes as path, cookie and credential: no key is left behind, and no protected path is public.
#![no_main]

use std::sync::LazyLock;

use edge::credential::{HeaderEdit, find};
use edge::edge::Edge;
use edge::metadata::RouteMetadata;
use libfuzzer_sys::fuzz_target;
use policy::key_text::find_key;
use policy::path::{PathKind, Paths};
use policy::route::{Binding, Template};

/// An edge is used by one thread, as in a worker.
fn edge() -> Edge {
    let config = br#"{
        "control_plane": {"cluster": "latchkey", "authority": "latchkey"},
        "credentials": [{"header": "x-api-key"}, {"header": "authorization", "prefix": "Bearer "}, {"query": "api_key"},
                        {"cookie": "api_key"}],
        "routes": [{"path": "/open/{*rest}", "rule": "public"}, {"path": "/open/closed", "rule": "deny"},
                   {"path": "/v1/workspaces/{workspace}/{*rest}", "rule": "workspaces"},
                   {"methods": ["GET"], "path": "/v1/reviews", "rule": "reviews"}]
    }"#;
    Edge::parse(config).expect("a configuration")
}

thread_local! {
    static EDGE: Edge = edge();
}

static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| {
    let texts = ["/v1/workspaces/{workspace}/{*rest}", "/{*rest}", "/a{id}/b"];
    texts.map(|text| Template::compile(text).expect("a template")).into()
});

fuzz_target!(|bytes: &[u8]| EDGE.with(|edge| read(edge, bytes)));

fn read(edge: &Edge, bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let path = parts.next().unwrap_or_default();
    let names = [":path", "cookie", "authorization"];
    let values = [path, parts.next().unwrap_or_default(), parts.next().unwrap_or_default()];
    let headers: Vec<_> = names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();

    let scan = find(&headers, &edge.config.credentials);
    assert!(scan.keys.is_empty() || !scan.header_edits.is_empty());
    let mut left = headers.clone();
    for edit in &scan.header_edits {
        match edit {
            HeaderEdit::Remove(name) => left.retain(|(own, _)| own != name),
            HeaderEdit::Rewrite(name, value) => {
                left.iter_mut().filter(|(own, _)| own == name).for_each(|(_, own)| own.clone_from(value));
            }
        }
    }
    assert!(find(&left, &edge.config.credentials).keys.is_empty(), "a key is left behind");
    for (name, value) in &left {
        let searched = if name == ":path" { value.splitn(2, |byte| *byte == b'?').nth(1) } else { Some(&value[..]) };
        assert!(searched.and_then(find_key).is_none(), "a key is left behind in {name}");
    }

    for method in [&b"GET"[..], b"POST"] {
        let read = edge.config.paths.read(method, path);
        if edge.route_rule(RouteMetadata::Absent, method, read.as_ref()).is_public() {
            let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
            assert!(path.starts_with(b"/open") && path != b"/open/closed" && !path.contains(&b';'));
            assert!(path.split(|byte| *byte == b'/').all(|segment| segment != b".."));
        }
    }
    let (ours, admitting) = (Paths::default(), Paths { allow: PathKind::ALL.into() });
    for read in [ours.read(b"GET", path), admitting.read(b"GET", path)].into_iter().flatten() {
        for template in &*TEMPLATES {
            if let Binding::Match { workspace: Some(workspace) } = template.bind(&read) {
                assert!(!workspace.is_empty() && !workspace.contains(['/', ';']), "{workspace}");
            }
        }
    }
    if let Some(path) = ours.read(b"GET", path) {
        assert_eq!(admitting.read(b"GET", bytes.split(|byte| *byte == 0).next().unwrap_or_default()), Some(path));
    }
    let _ = RouteMetadata::read(Some(bytes)).guard_text();
}
