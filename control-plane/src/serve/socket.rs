//! A socket that fails if its client stops taking what is sent.

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

/// The most unsent bytes that the system keeps for a client. A client that takes half of them is seen to make progress.
/// Bytes in flight don't count, so this costs no throughput.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 16 << 10;

/// A socket whose writes fail once bytes have waited too long for the client to take them. That ends its connection.
pub(super) struct Socket<S> {
    stream: S,
    deadlines: Deadlines,
    /// Once true, the service shuts down, and doesn't wait long for a client that takes nothing.
    ending: watch::Receiver<bool>,
    stalled: Option<Stalled>,
}

/// The system accepts no more bytes, because the client takes none.
struct Stalled {
    since: Instant,
    over: Pin<Box<Sleep>>,
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
            // The bytes that the system has accepted have the same deadline.
            if let Err(cause) = socket.set_tcp_user_timeout(Some(deadlines.still)) {
                debug!(%cause, "a connection without TCP_USER_TIMEOUT");
            }
            // Otherwise the system would accept megabytes, and then nothing until a slow client has taken a third of
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

    /// Notes the result of a write.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let now = Instant::now();
        let patience = if *self.ending.borrow() { self.deadlines.still_at_end } else { self.deadlines.still };
        let stalled = self.stalled.get_or_insert_with(|| Stalled { since: now, over: Box::pin(sleep_until(now)) });
        let until = stalled.since + patience;
        if stalled.over.deadline() != until {
            stalled.over.as_mut().reset(until);
        }
        if stalled.over.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // Reset the connection: otherwise the system would keep offering its bytes to a client that doesn't take them.
        if let Err(cause) = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)) {
            debug!(%cause, "a connection that can't be reset");
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
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
