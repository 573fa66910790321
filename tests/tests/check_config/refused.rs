//! The table of edits that open a door: each is refused by name, with the next step.

use crate::doors::Probe;
use crate::printed::{Places, check, printed};
use crate::{chains, guards, listeners, routes};
use serde_json::Value;

/// An edit of the printed configuration.
pub struct Row {
    pub name: &'static str,
    pub edit: fn(&mut Value),
    /// Parts of the refusal: the place, the door, and the next step.
    pub words: [&'static str; 3],
    /// Whether a request shows that the door is open. `None` if no real Envoy runs the edit, or if it opens a door only
    /// together with something else, such as a worker whose VM failed.
    pub door: Option<fn(&Probe) -> bool>,
}

pub fn rows() -> Vec<Row> {
    [guards::rows(), chains::rows(), listeners::rows(), routes::rows()].into_iter().flatten().collect()
}

#[test]
fn each_edit_that_opens_a_door_is_refused_with_the_next_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = printed(&Places::nowhere(), folder.path());
    let (code, said) = check(&base, folder.path());
    assert!(code == Some(0) && said.contains("accepted, with 0 warnings"), "{said}");
    let rows = rows();
    assert!(rows.len() >= 40, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for Row { name, edit, words, .. } in rows {
        let mut edited = base.clone();
        edit(&mut edited);
        assert_ne!(edited, base, "{name}: nothing was edited");
        let (code, said) = check(&edited, folder.path());
        let is_named =
            said.lines().any(|line| line.contains(": refused: ") && words.iter().all(|word| line.contains(word)));
        if code != Some(1) || !is_named {
            wrong.push(format!("{name}: expected {words:?}, exit code {code:?}:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
