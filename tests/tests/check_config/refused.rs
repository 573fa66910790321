//! The table of edits that open a door: each is refused by name, with what to do.

use crate::doors::Probe;
use crate::printed::{Places, check, printed};
use crate::{chains, guards, listeners, routes};
use serde_json::Value;

/// An edit of what is printed.
pub struct Row {
    pub name: &'static str,
    pub edit: fn(&mut Value),
    /// Where it is refused, and what the refusal says: the door, then what to do.
    pub words: [&'static str; 3],
    /// True where a request shows that the door is open; none where no real Envoy runs the edit, or where it opens only
    /// together with something else, like a worker whose VM failed.
    pub door: Option<fn(&Probe) -> bool>,
}

pub fn rows() -> Vec<Row> {
    [guards::rows(), chains::rows(), listeners::rows(), routes::rows()].into_iter().flatten().collect()
}

#[test]
fn each_edit_that_opens_a_door_is_refused_with_what_to_do() {
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
