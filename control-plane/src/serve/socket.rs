//! A socket that fails if its client stops reading.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::connections::Deadlines;

/// The most unsent bytes that the system keeps for a client. A client that reads half of them makes progress.
/// Bytes in flight don't count, so this costs no throughput.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 16 << 10;

/// A socket whose writes fail once bytes have waited too long for the client to read them. That ends its connection.
pub(super) struct Socket<S> {
    stream: S,
    deadlines: Deadlines,
    /// Becomes true at shutdown, when the service no longer waits long for a client that reads nothing.
    ending: watch::Receiver<bool>,
    stalled: Option<Stalled>,
}

/// The state while the system accepts no more bytes, because the client reads none.
struct Stalled {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Socket<TcpStream> {
    pub(super) fn of_tcp(stream: TcpStream, deadlines: Deadlines, ending: watch::Receiver<bool>) -> Self {
        // Answers are small, and clients wait for them.
        if let Err(cause) = stream.set_nodelay(true) {
            debug!(%cause, "a connection without TCP_NODELAY");
        }
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(&stream);
            // The same deadline for the bytes that the system has accepted.
            if let Err(cause) = socket.set_tcp_user_timeout(Some(deadlines.max_idle)) {
                debug!(%cause, "a connection without TCP_USER_TIMEOUT");
            }
            // Otherwise the system would accept megabytes, and then nothing until a slow client has read a third of
            // them.
            if let Err(cause) = socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
                debug!(%cause, "a connection without TCP_NOTSENT_LOWAT");
            }
        }
        Self::new(stream, deadlines, ending)
    }
}

impl<S: AsFd> Socket<S> {
    pub(super) fn new(stream: S, deadlines: Deadlines, ending: watch::Receiver<bool>) -> Self {
        Self { stream, deadlines, ending, stalled: None }
    }

    /// Handles the result of a write.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let now = Instant::now();
        let max_idle =
            if *self.ending.borrow() { self.deadlines.max_idle_at_shutdown } else { self.deadlines.max_idle };
        let stalled = self.stalled.get_or_insert_with(|| Stalled { since: now, timer: Box::pin(sleep_until(now)) });
        let until = stalled.since + max_idle;
        if stalled.timer.deadline() != until {
            stalled.timer.as_mut().reset(until);
        }
        if stalled.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // Reset the connection: otherwise the system would keep sending its bytes to a client that doesn't read them.
        if let Err(cause) = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)) {
            debug!(%cause, "a connection that can't be reset");
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // Neither waits for the client: the bytes that a socket accepted are the system's.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
