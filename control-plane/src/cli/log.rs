//! The log: lines on standard error, including panics.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::error;
use tracing_subscriber::EnvFilter;

use super::redact::without_secrets;
use crate::base::lossy_log::LossyWriter;

/// How long shutdown waits for the last lines to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// The log of this process. Dropping it writes the remaining lines, or gives them up after [`FLUSH`].
pub(super) struct Log {
    writer: LossyWriter,
    lines_lost: Counter,
}

impl Log {
    /// Starts logging as LATCHKEY_LOG and LATCHKEY_LOG_FORMAT specify. Logging never waits for standard error, and
    /// never fails with it.
    #[expect(clippy::disallowed_methods, reason = "the one place where the log goes to standard error")]
    pub(super) fn start() -> io::Result<Self> {
        let filter =
            EnvFilter::try_from_env("LATCHKEY_LOG").unwrap_or_else(|_| EnvFilter::new("info,rusqlite_migration=warn"));
        // Their log of each statement is of no use to an operator, and would be most of the log.
        let quiet = ["tokio_postgres=warn", "postgres=warn"].into_iter().filter_map(|directive| directive.parse().ok());
        let filter = quiet.fold(filter, EnvFilter::add_directive);
        let lines_lost = Counter::default();
        let writer = LossyWriter::start(io::stderr(), lines_lost.clone())?;
        let lines = writer.clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(move || lines.clone())
            .with_target(false)
            // It would print them to standard error, and panic if that can't be written.
            .log_internal_errors(false);
        if std::env::var("LATCHKEY_LOG_FORMAT").is_ok_and(|format| format == "json") {
            log.json().flatten_event(true).init();
        } else {
            log.with_ansi(io::stderr().is_terminal()).init();
        }
        // The default hook writes to standard error itself, and waits for a pipe that nobody reads.
        std::panic::set_hook(Box::new(log_panic));
        Ok(Self { writer, lines_lost })
    }

    /// The counter of lines that weren't written.
    pub(super) fn lines_lost(&self) -> Counter {
        self.lines_lost.clone()
    }

    /// Writes a line as it is, in order with the logged lines.
    pub(super) fn write_line(&self, line: &str) {
        self.writer.write_lines(line);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.writer.flush_within(FLUSH);
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::capture();
    // As in the default hook: only if RUST_BACKTRACE requests it.
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace));
    error!(place, thread, backtrace, "a panic, please report it: {}", without_secrets(message));
}
