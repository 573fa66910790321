//! What the service logs, kept for a test to read.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Level};

/// While a process has only one subscriber, tracing asks the first thread that reaches a log statement whether it is
/// enabled, and caches the answer for all threads. That thread may belong to a test that captures nothing.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

/// Everything that was logged since its start. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    /// Captures what this thread logs, until the guard is dropped.
    pub(crate) fn of_this_thread() -> (Self, DefaultGuard) {
        LazyLock::force(&SECOND);
        let logged = Self::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (logged, tracing::subscriber::set_default(subscriber))
    }

    /// Captures what all threads log, at every level, until the process ends. Other tests log into it as well.
    pub(crate) fn of_the_process() -> Self {
        let logged = Self::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(Level::TRACE);
        tracing::subscriber::set_global_default(subscriber.with_writer(move || writer.clone()).finish()).unwrap();
        logged
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Its lines of this level.
    pub(crate) fn lines(&self, level: Level) -> Vec<String> {
        let has_level = |line: &&str| line.contains(&format!(" {level} "));
        self.text().lines().filter(has_level).map(str::to_owned).collect()
    }
}

impl io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
