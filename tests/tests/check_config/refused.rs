//! The table of edits that let requests bypass the filter: each is refused by name, with the next step.

use crate::bypasses::Probe;
use crate::printed_config::{Addresses, check, printed_config};
use crate::{chains, guards, listeners, routes};
use serde_json::Value;

/// An edit of the printed configuration.
pub struct Row {
    pub name: &'static str,
    pub edit: fn(&mut Value),
    /// Parts of the refusal: the place, the bypass, and the next step.
    pub expected: [&'static str; 3],
    /// Whether a request gets through the bypass. `None` if no real Envoy runs the edit, or if it is a bypass only
    /// together with something else, such as a worker whose VM failed.
    pub bypass: Option<fn(&Probe) -> bool>,
}

pub fn rows() -> Vec<Row> {
    [guards::rows(), chains::rows(), listeners::rows(), routes::rows()].into_iter().flatten().collect()
}

#[test]
fn each_edit_that_opens_a_bypass_is_refused_with_the_next_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = printed_config(&Addresses::unused(), folder.path());
    let (code, output) = check(&base, folder.path());
    assert!(code == Some(0) && output.contains("accepted, with 0 warnings"), "{output}");
    let rows = rows();
    assert!(rows.len() >= 40, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for Row { name, edit, expected, .. } in rows {
        let mut edited = base.clone();
        edit(&mut edited);
        assert_ne!(edited, base, "{name}: nothing was edited");
        let (code, output) = check(&edited, folder.path());
        let is_named =
            output.lines().any(|line| line.contains(": refused: ") && expected.iter().all(|part| line.contains(part)));
        if code != Some(1) || !is_named {
            wrong.push(format!("{name}: expected {expected:?}, exit code {code:?}:\n{output}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
