//! A log writer that neither fails nor waits: lines that can't be written are dropped and counted.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

/// The most bytes that are queued for a slow reader: some thousand lines.
const MAX_QUEUED_BYTES: usize = 1 << 20;

/// Passes lines to a thread of its own, which writes them. Clones share the queue. A closed pipe, a full disk or a pipe
/// that nobody reads costs lines, but never the caller's time.
#[derive(Clone)]
pub(crate) struct LossyWriter(Arc<Queue>);

struct Queue {
    state: Mutex<State>,
    /// Signals that lines were queued, or that all of them were written.
    changed: Condvar,
    lost: Counter,
}

#[derive(Default)]
struct State {
    /// Whole lines.
    queued: Vec<u8>,
    /// The thread is writing lines that it has taken out of `queued`.
    is_writing: bool,
}

impl LossyWriter {
    /// Starts the thread, which lives as long as the process. `lost` counts the lines that `out` didn't get.
    pub(crate) fn start(out: impl io::Write + Send + 'static, lost: Counter) -> io::Result<Self> {
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new(), lost });
        let own = Arc::clone(&queue);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || own.write_all_to(LineWriter::new(out)))?;
        Ok(Self(queue))
    }

    /// Queues one or more whole lines.
    pub(crate) fn write_lines(&self, lines: &str) {
        self.0.push(lines.as_bytes());
    }

    /// Waits until everything that is queued now is written or lost, at most for `time`.
    pub(crate) fn flush_within(&self, time: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.queued.is_empty();
        // At the timeout, lines may still be queued for a reader that doesn't read.
        let _ = self.0.changed.wait_timeout_while(self.0.state(), time, is_busy);
    }
}

/// Takes one or more whole lines a call, as tracing-subscriber passes them.
impl io::Write for LossyWriter {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn push(&self, lines: &[u8]) {
        let mut state = self.state();
        if state.queued.len().saturating_add(lines.len()) > MAX_QUEUED_BYTES {
            drop(state);
            self.lost.inc_by(count_lines(lines));
            return;
        }
        state.queued.extend_from_slice(lines);
        self.changed.notify_all();
    }

    fn write_all_to(&self, mut out: LineWriter<impl io::Write>) {
        loop {
            let lines = self.take();
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                if out.write(line).is_err() {
                    self.lost.inc();
                }
            }
        }
    }

    /// Waits for lines, and takes all that are queued.
    fn take(&self) -> Vec<u8> {
        let mut state = self.state();
        state.is_writing = false;
        self.changed.notify_all();
        let waited = self.changed.wait_while(state, |state| state.queued.is_empty());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        std::mem::take(&mut state.queued)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of lines that [`Queue::write_all_to`] would write.
fn count_lines(lines: &[u8]) -> u64 {
    u64::try_from(lines.split_inclusive(|byte| *byte == b'\n').count()).unwrap_or(u64::MAX)
}

/// Writes lines to something that may fail in the middle of one.
struct LineWriter<W> {
    out: W,
    /// Whether only a part of the last line was written.
    is_incomplete: bool,
}

impl<W: io::Write> LineWriter<W> {
    fn new(out: W) -> Self {
        Self { out, is_incomplete: false }
    }

    /// Writes a line. After a part of a line, it begins a new one.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_incomplete {
            self.out.write_all(b"\n")?;
            self.is_incomplete = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.is_incomplete = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// What was written, and how many more bytes there is room for.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn has_room_for(&self, bytes: usize) {
            self.0.lock().unwrap().1 = bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(&bytes[..taken]);
            *room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer(out: impl io::Write + Send + 'static) -> (LossyWriter, Counter) {
        let lost = Counter::default();
        (LossyWriter::start(out, lost.clone()).unwrap(), lost)
    }

    #[test]
    fn lines_lost_on_a_full_disk_are_counted_and_the_next_one_is_a_line_of_its_own() {
        let disk = Disk::default();
        let (mut writer, lost) = writer(disk.clone());
        for (room, line, written, lines_lost) in [
            (100, "one\n", "one\n", 0),
            (3, "second\n", "one\nsec", 1),
            (0, "third\n", "one\nsec", 2),
            (100, "fourth\n", "one\nsec\nfourth\n", 2),
        ] {
            disk.has_room_for(room);
            writer.write_all(line.as_bytes()).unwrap();
            writer.flush_within(DEADLINE);
            assert_eq!((disk.text().as_str(), lost.get()), (written, lines_lost), "after {line:?}");
        }
    }

    /// Accepts nothing until its channel is closed.
    struct BlockedWriter(mpsc::Receiver<()>, Disk);

    impl io::Write for BlockedWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_reader_costs_lines_but_no_time() {
        let (reads, unread) = mpsc::channel();
        let disk = Disk::default();
        disk.has_room_for(usize::MAX);
        let (mut writer, lost) = writer(BlockedWriter(unread, disk.clone()));
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        // The thread has taken the first one, so there is room for 1,024.
        writer.write_all(&line).unwrap();
        while !writer.0.state().queued.is_empty() {
            std::thread::yield_now();
        }
        for _ in 0..1_034 {
            writer.write_all(&line).unwrap();
        }
        assert_eq!(lost.get(), 10);
        let began = Instant::now();
        writer.flush_within(Duration::from_millis(20));
        assert!(began.elapsed() < DEADLINE, "the flush waits for a reader");
        drop(reads);
        writer.flush_within(DEADLINE);
        assert_eq!(disk.text().lines().count(), 1_025);
    }
}
