//! A connection's bytes, as long as its client takes what is sent.

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

/// The most bytes that the system keeps unsent for a client; a client that takes half of them is seen to take something. Those
/// that are on their way come besides, so this costs no throughput.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 16 << 10;

/// A socket whose writes fail once bytes have waited too long to be taken. That ends its connection.
pub(super) struct Socket<S> {
    stream: S,
    deadlines: Deadlines,
    /// When the service ends, nobody is waited for who takes nothing.
    ending: watch::Receiver<bool>,
    stalled: Option<Stalled>,
}

/// Bytes wait that the system doesn't take, because the client doesn't.
struct Stalled {
    since: Instant,
    over: Pin<Box<Sleep>>,
}

impl Socket<TcpStream> {
    pub(super) fn of_tcp(stream: TcpStream, deadlines: Deadlines, ending: watch::Receiver<bool>) -> Self {
        // Answers are small, and awaited.
        if let Err(cause) = stream.set_nodelay(true) {
            debug!(%cause, "a connection without TCP_NODELAY");
        }
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(&stream);
            // What the system has taken from us has the same deadline there.
            if let Err(cause) = socket.set_tcp_user_timeout(Some(deadlines.still)) {
                debug!(%cause, "a connection without TCP_USER_TIMEOUT");
            }
            // It would take megabytes, and then nothing for as long as a slow client needs for a third of them.
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

    /// What a write came to.
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
        // The system would go on to offer what it has, to somebody who doesn't take it.
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

    // Neither waits for the client: what a socket was given is the system's.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
