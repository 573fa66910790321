//! Preloaded libraries that replace system calls of a program under test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::process::root;

/// Makes `command` preload `tests/src/<name>.c`.
pub(crate) fn preload(command: &mut Command, name: &str) {
    command.env("LD_PRELOAD", library(name));
}

/// The library built from the source, once per process.
fn library(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(name.to_owned()).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let (source, built) = (root().join(format!("tests/src/{name}.c")), root().join(format!("target/{name}.so")));
    let new = root().join(format!("target/{name}.{}.so", std::process::id()));
    let mut command = Command::new("cc");
    let status = command.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&new).arg(source).status();
    assert!(status.is_ok_and(|status| status.success()), "cc can't build tests/src/{name}.c");
    std::fs::rename(new, &built).expect("the library in its place");
    built
}
