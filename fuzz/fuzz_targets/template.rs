//! Any text as the template of a route, with any path: no panic, and a workspace is a part of the path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::path::Paths;
use policy::route::{Binding, MAX_PARAMETERS, Template};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let Ok(text) = str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let Ok(template) = Template::compile(text) else { return };
    assert!(text.matches('{').count() <= MAX_PARAMETERS);
    let path = parts.next().unwrap_or_default();
    // A path made from the template, and the one that was given.
    let filled: String = text.chars().filter(|c| !matches!(c, '{' | '}' | '*')).collect();
    for path in [filled.as_bytes(), path] {
        let Some(path) = Paths::default().read(b"GET", path) else { continue };
        if let Binding::Match { workspace: Some(workspace) } = template.bind(&path) {
            assert!(text.contains("/{workspace}") && !workspace.contains('/'), "{workspace}");
        }
    }
});
