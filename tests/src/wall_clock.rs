//! A wall clock that a test moves while real programs use it.

use std::process::Command;
use std::sync::Arc;

use tempfile::{NamedTempFile, TempPath};

use crate::preload::preload;

/// The wall clock of the programs that were started with it. Clones are the same clock.
#[derive(Clone)]
pub struct WallClock {
    moved_by: Arc<TempPath>,
}

impl WallClock {
    /// A clock with the system's time.
    pub fn accurate() -> Self {
        let clock = Self { moved_by: Arc::new(NamedTempFile::new().expect("a file").into_temp_path()) };
        clock.move_by(0);
        clock
    }

    /// Sets it this many seconds ahead of the system's time; behind, if negative.
    pub fn move_by(&self, secs: i64) {
        use std::io::Write as _;
        // In place, because the programs have this file mapped.
        let mut file = std::fs::File::options().write(true).open(&*self.moved_by).expect("the clock's file");
        file.write_all(&secs.to_ne_bytes()).expect("the clock's file");
    }

    /// Makes `command` use this clock.
    pub(crate) fn attach(&self, command: &mut Command) {
        preload(command, "wall_clock");
        command.env("WALL_CLOCK", &**self.moved_by);
    }
}
