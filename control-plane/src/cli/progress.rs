//! Progress of long work, shown only on a terminal.

use std::io::Read;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress line on standard error. Dropping it removes the line.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Work of unknown length.
    pub(super) fn waiting(what: &str) -> Self {
        let progress = Self(ProgressBar::new_spinner());
        progress.wait(what);
        progress
    }

    /// Work of so many steps.
    pub(super) fn counting(what: &str, steps: u64) -> Self {
        let bar = ProgressBar::new(steps).with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos} of {len} ({eta} left)") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    pub(super) fn step(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// All steps are done, and work of unknown length follows.
    fn wait(&self, what: &str) {
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            self.0.set_style(style);
        }
        self.0.set_message(what.to_owned());
        // Draw it now, because the work may end before the first tick.
        self.0.force_draw();
        self.0.enable_steady_tick(Duration::from_millis(100));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Lines that are being sent, with their progress.
pub(super) struct ProgressReader<'a> {
    rest: &'a [u8],
    progress: Progress,
    message_when_sent: &'static str,
}

impl<'a> ProgressReader<'a> {
    /// `message_when_sent` is shown when everything is sent.
    pub(super) fn new(bytes: &'a [u8], progress: Progress, message_when_sent: &'static str) -> Self {
        Self { rest: bytes, progress, message_when_sent }
    }
}

impl Read for ProgressReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let before = self.rest;
        let count = self.rest.read(buffer)?;
        let sent = before.get(..count).unwrap_or_default();
        self.progress.step(sent.iter().filter(|byte| **byte == b'\n').count() as u64);
        if count > 0 && self.rest.is_empty() {
            self.progress.wait(self.message_when_sent);
        }
        Ok(count)
    }
}
