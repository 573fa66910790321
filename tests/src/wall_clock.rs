//! A wall clock that a test moves while real programs run by it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use tempfile::{NamedTempFile, TempPath};

use crate::process::root;

/// The wall clock of the programs that were started with it. Clones are the same clock.
#[derive(Clone)]
pub struct WallClock {
    moved_by: Arc<TempPath>,
}

impl WallClock {
    /// One that shows the right time.
    pub fn right() -> Self {
        let clock = Self { moved_by: Arc::new(NamedTempFile::new().expect("a file").into_temp_path()) };
        clock.move_by(0);
        clock
    }

    /// From now on it is so many seconds ahead of the right time; behind, when negative.
    pub fn move_by(&self, secs: i64) {
        use std::io::Write as _;
        // In place: the programs have this very file mapped.
        let mut file = std::fs::File::options().write(true).open(&*self.moved_by).expect("the clock's file");
        file.write_all(&secs.to_ne_bytes()).expect("the clock's file");
    }

    /// Has `command` run by this clock.
    pub(crate) fn rule(&self, command: &mut Command) {
        command.env("LD_PRELOAD", shim()).env("WALL_CLOCK", &**self.moved_by);
    }
}

/// `wall_clock.c` as a library, built once.
fn shim() -> &'static PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let (source, built) = (root().join("tests/src/wall_clock.c"), root().join("target/wall_clock.so"));
        let new = root().join(format!("target/wall_clock.{}.so", std::process::id()));
        let mut command = Command::new("cc");
        let status = command.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&new).arg(source).status();
        assert!(status.is_ok_and(|status| status.success()), "cc can't build tests/src/wall_clock.c");
        std::fs::rename(new, &built).expect("the library in its place");
        built
    })
}
