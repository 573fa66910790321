//! The migration guides in docs/moving: their commands work as written, and print the output shown.

use std::process::Command;

use end_to_end::{Stack, root};
use serde_json::json;

/// The page's commands, and what all of them print.
fn script(page: &str) -> (String, String) {
    let text = std::fs::read_to_string(root().join("docs/moving").join(page)).expect(page);
    let (mut commands, mut expected) = (String::from("set -euo pipefail\n"), String::new());
    // Pieces between fences alternate: text, block, text, block. An answer directly follows its commands.
    let pieces: Vec<&str> = text.split("```").collect();
    for (at, piece) in pieces.iter().enumerate().skip(1).step_by(2) {
        if let Some(block) = piece.strip_prefix("sh\n") {
            commands.push_str(block);
        } else if let Some(answer) = piece.strip_prefix("text\n")
            && pieces[at - 1] == "\n"
        {
            expected.push_str(answer);
        }
    }
    (commands, expected)
}

/// Runs a page against a control plane and an Envoy that accepts foreign keys in the places that the page names.
fn assert_works(page: &str, credentials: &serde_json::Value) {
    let stack = Stack::start_with(|config| {
        config.plugin["foreign_keys"] = json!(true);
        config.plugin["credentials"] = credentials.clone();
    });
    let (commands, expected) = script(page);
    assert!(expected.lines().count() >= 4, "{page} shows few answers: {expected}");
    let folder = tempfile::tempdir().expect("a folder");
    let token = std::fs::read_to_string(stack.control_plane.folder().join("admin-token")).expect("the token");
    let mut shell = Command::new("bash");
    shell.args(["-c", &commands]).current_dir(folder.path()).env("NO_PROXY", "*");
    shell.env("KEYS", stack.control_plane.url()).env("TOKEN", token.trim());
    shell.env("GATEWAY", format!("http://127.0.0.1:{}", stack.envoy.port));
    let output = shell.output().expect("bash");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{page}: {out}\n{error}");
    assert_eq!(out, expected, "{page}: {error}");
}

#[test]
fn the_page_for_api_key_auth_works() {
    assert_works("api-key-auth.md", &json!([{"header": "x-api-key"}]));
}

#[test]
fn the_page_for_kong_works() {
    assert_works("kong.md", &json!([{"header": "apikey"}, {"query": "apikey"}]));
}

#[test]
fn the_page_for_ext_authz_works() {
    assert_works("ext-authz.md", &json!([{"header": "authorization", "prefix": "Bearer "}]));
}
