//! Connections: how many there may be, how long each may take to say what it wants, and how they end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::tls::Tls;

/// What a client may take of us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time; who comes later waits in the system's queue.
    pub(super) connections: usize,
    /// How long a TLS handshake may take, the head of a request, and the pause before the next request of a connection.
    pub(super) head: Duration,
}

impl Default for Limits {
    /// Twice the edges that one control plane is made for, and what is usual for a head.
    fn default() -> Self {
        Self { connections: 20_000, head: Duration::from_secs(30) }
    }
}

/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// When the system has no more sockets for us, there may be some a little later.
const NO_SOCKET_PAUSE: Duration = Duration::from_millis(200);

/// Serves `router` until `ending` becomes true, and returns when all requests that were begun are answered.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: Limits,
    mut ending: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            _ = ending.wait_for(|ending| *ending) => break,
        };
        let Some((stream, remote, permit)) = accepted else { continue };
        let (tls, router, watcher) = (tls.clone(), router.clone(), graceful.watcher());
        let mut ending = ending.clone();
        tokio::spawn(async move {
            let _permit = permit;
            match tls {
                None => converse(stream, remote, router, limits, watcher).await,
                Some(tls) => {
                    let handshake = timeout(limits.head, tls.accept(stream));
                    let shaken = tokio::select! {
                        shaken = handshake => shaken,
                        // No request was sent yet.
                        _ = ending.wait_for(|ending| *ending) => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => converse(stream, remote, router, limits, watcher).await,
                        Ok(Err(cause)) => debug!(%remote, %cause, "a TLS handshake failed"),
                        Err(_) => debug!(%remote, "a TLS handshake took too long"),
                    }
                }
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

type Permit = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is room for it; `None` when it was lost on the way.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, Permit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, remote)) => {
            // Answers are small, and awaited.
            if let Err(cause) = stream.set_nodelay(true) {
                debug!(%cause, "a connection without TCP_NODELAY");
            }
            Some((stream, remote, permit))
        }
        Err(cause) if is_of_the_client(&cause) => None,
        Err(cause) => {
            warn!(%cause, "cannot accept a connection; raise the limit of open files if it was reached");
            sleep(NO_SOCKET_PAUSE).await;
            None
        }
    }
}

fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// All requests of a connection, one after the other.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: SocketAddr,
    router: Router,
    limits: Limits,
    watcher: Watcher,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(remote));
        answer(router.clone(), request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // What a client does wrong on its own connection is told to nobody else.
    if let Err(cause) = watcher.watch(connection).await {
        debug!(%remote, %cause, "a connection ended early");
    }
}

async fn answer(router: Router, request: Request) -> Result<Response, Infallible> {
    router.oneshot(request).await
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Server {
        address: SocketAddr,
        end: watch::Sender<bool>,
        serving: tokio::task::JoinHandle<()>,
    }

    async fn server(limits: Limits, router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ending) = watch::channel(false);
        Server { address, end, serving: tokio::spawn(serve(listener, None, router, limits, ending)) }
    }

    const DEADLINE: Duration = Duration::from_secs(20);

    /// What comes until the other side closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn hello() -> Router {
        Router::new().route("/", get(|| async { "hello" }))
    }

    #[tokio::test]
    async fn a_head_that_takes_too_long_ends_its_connection() {
        let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
        let server = server(limits, hello()).await;
        for begun in ["", "GET / HTTP/1.1\r\nhost: a\r\nx-slow: "] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            assert!(!rest(&mut stream).await.contains("200 OK"), "{begun:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_more_ends() {
        let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
        let server = server(limits, hello()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_waits_for_one() {
        let server = server(Limits { connections: 1, ..Limits::default() }, hello()).await;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let first = TcpStream::connect(server.address).await.unwrap();
        let mut second = TcpStream::connect(server.address).await.unwrap();
        second.write_all(request).await.unwrap();
        let mut byte = [0];
        assert!(timeout(Duration::from_millis(100), second.read(&mut byte)).await.is_err(), "there is one place");
        drop(first);
        assert!(rest(&mut second).await.contains("hello"));
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let server = server(Limits::default(), hello()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(4 * MAX_HEAD_BYTES));
        // The other side may close before it has read all of it.
        let _ = stream.write_all(long.as_bytes()).await;
        let mut bytes = vec![0; 64];
        let read = timeout(DEADLINE, stream.read(&mut bytes)).await.unwrap().unwrap_or(0);
        assert!(!String::from_utf8_lossy(&bytes[..read]).contains("200"));
    }

    #[tokio::test]
    async fn what_was_begun_is_answered_before_the_end() {
        let (entered, inside) = tokio::sync::oneshot::channel::<()>();
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        let gates = Arc::new(std::sync::Mutex::new(Some((entered, held))));
        let slow = move || {
            let gates = gates.lock().unwrap().take();
            async move {
                if let Some((entered, held)) = gates {
                    entered.send(()).unwrap();
                    held.await.unwrap();
                }
                "answered"
            }
        };
        let server = server(Limits::default(), Router::new().route("/", get(slow))).await;
        let idle = TcpStream::connect(server.address).await.unwrap();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        inside.await.unwrap();
        server.end.send_replace(true);
        release.send(()).unwrap();
        assert!(rest(&mut stream).await.contains("answered"));
        timeout(DEADLINE, server.serving).await.unwrap().unwrap();
        assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
        drop(idle);
    }
}
