//! Connections: their limits, their timeouts, and their end.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::body::PacedBody;
use super::listener::ListeningSocket;
use super::proxies::{Peer, TrustedProxies};
use super::socket::Socket;
use super::tls::Tls;
use crate::base::entropy::Entropy;
use crate::web::auth_failures::rate_limit_address;
use crate::web::connection_slots::{ConnectionSlot, ConnectionSlots};
use crate::web::pace::{Pace, PaceLimits};
use crate::web::problem::Problem;

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// For the next byte of a body, and for the client to take the next byte of an answer. Also for a TLS handshake,
    /// for the head of a request, and for the next request of a connection.
    pub(super) max_idle: Duration,
    /// For the client to take the next byte of an answer, once the service shuts down.
    pub(super) max_idle_at_shutdown: Duration,
    /// How far a body may be behind its minimum rate.
    max_lag: Duration,
    /// For a connection at a limit, until it has presented a valid token.
    trial: Duration,
    /// For the last request of a connection to begin, a fifth more or less, so that load spreads over the control
    /// planes again after one of them restarts.
    max_age: Duration,
}

impl Deadlines {
    /// All in proportion to `max_idle`: if that is 30 s, the others are 2 s, 60 s, 5 s and 10 min.
    pub(super) fn of(max_idle: Duration) -> Self {
        Self {
            max_idle,
            max_idle_at_shutdown: max_idle / 15,
            max_lag: max_idle * 2,
            trial: max_idle / 6,
            max_age: max_idle * 20,
        }
    }

    fn pace_limits(&self) -> PaceLimits {
        PaceLimits { max_idle: self.max_idle, max_lag: self.max_lag }
    }
}

/// What all connections of a listener share.
#[derive(Clone)]
pub(super) struct ConnectionContext {
    pub(super) router: Router,
    pub(super) tls: Option<Tls>,
    pub(super) slots: ConnectionSlots,
    pub(super) proxies: TrustedProxies,
    pub(super) deadlines: Deadlines,
    pub(super) entropy: Entropy,
}

impl ConnectionContext {
    /// Acquires a slot for a connection, before the next one is accepted. A proxy's connections are of many clients, so
    /// they have no limit by address. Those of any other Unix socket have no address, and count as one client.
    fn slot(&self, remote: Peer) -> Arc<ConnectionSlot> {
        let of = (!self.proxies.has(remote.address())).then(|| rate_limit_address(remote.address()));
        self.slots.acquire(of)
    }
}

/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long to wait after the system has refused a socket, such as at the limit of open files.
const NO_SOCKET_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `ending` becomes true, and returns when all requests in flight are answered.
pub(super) async fn serve(listener: ListeningSocket, context: ConnectionContext, mut ending: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            _ = ending.wait_for(|ending| *ending) => break,
        };
        let Some(accepted) = accepted else { continue };
        let (context, watcher, ending) = (context.clone(), graceful.watcher(), ending.clone());
        match accepted {
            Accepted::Tcp(stream, remote) => {
                let (remote, socket) =
                    (Peer::Address(remote), Socket::of_tcp(stream, context.deadlines, ending.clone()));
                let slot = context.slot(remote);
                tokio::spawn(serve_connection(context, socket, remote, slot, watcher, ending));
            }
            Accepted::Unix(stream) => {
                let socket = Socket::new(stream, context.deadlines, ending.clone());
                let (context, slot) = (ConnectionContext { tls: None, ..context.clone() }, context.slot(Peer::Unix));
                tokio::spawn(serve_connection(context, socket, Peer::Unix, slot, watcher, ending));
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// The next connection; `None` if it was lost before it was accepted, or can't be accepted.
async fn accept(listener: &ListeningSocket) -> Option<Accepted> {
    let accepted = match listener {
        ListeningSocket::Tcp(listener) => listener.accept().await.map(|(stream, remote)| Accepted::Tcp(stream, remote)),
        ListeningSocket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    };
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(cause) if is_client_error(&cause) => None,
        Err(cause) => {
            warn!(%cause, "cannot accept a connection; raise the limit of open files if it was reached");
            sleep(NO_SOCKET_PAUSE).await;
            None
        }
    }
}

fn is_client_error(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves a connection as long as it has a slot.
async fn serve_connection(
    context: ConnectionContext,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: Peer,
    slot: Arc<ConnectionSlot>,
    watcher: Watcher,
    ending: watch::Receiver<bool>,
) {
    let (trial, trial_slot) = (context.deadlines.trial, Arc::clone(&slot));
    tokio::select! {
        () = handshake(context, socket, remote, slot, watcher, ending) => {}
        () = trial_slot.trial_is_over(trial) => debug!(%remote, "a connection presented no valid token in time"),
    }
}

/// Performs the TLS handshake if there is TLS.
async fn handshake(
    context: ConnectionContext,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: Peer,
    slot: Arc<ConnectionSlot>,
    watcher: Watcher,
    mut ending: watch::Receiver<bool>,
) {
    let Some(tls) = context.tls.clone() else { return serve_requests(context, socket, remote, slot, watcher).await };
    let result = tokio::select! {
        result = timeout(context.deadlines.max_idle, tls.accept(socket)) => result,
        // No request was sent yet.
        _ = ending.wait_for(|ending| *ending) => return,
    };
    match result {
        Ok(Ok(stream)) => serve_requests(context, stream, remote, slot, watcher).await,
        Ok(Err(cause)) => debug!(%remote, %cause, "a TLS handshake failed"),
        Err(_) => debug!(%remote, "a TLS handshake took too long"),
    }
}

/// Serves all requests of a connection, one after the other.
async fn serve_requests(
    context: ConnectionContext,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: Peer,
    slot: Arc<ConnectionSlot>,
    watcher: Watcher,
) {
    let ConnectionContext { router, deadlines, entropy, proxies, .. } = context;
    let close_after = Instant::now() + entropy.jittered(deadlines.max_age);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let client = proxies.client(remote, request.headers());
        answer(router.clone(), request, client, Arc::clone(&slot), deadlines.pace_limits(), close_after)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(deadlines.max_idle).max_buf_size(MAX_HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // Logged for debugging only: a client's errors on its own connection concern nobody else.
    if let Err(cause) = watcher.watch(connection).await {
        debug!(%remote, %cause, "a connection ended early");
    }
}

async fn answer(
    router: Router,
    request: hyper::Request<Incoming>,
    client: Option<IpAddr>,
    slot: Arc<ConnectionSlot>,
    pace_limits: PaceLimits,
    close_after: Instant,
) -> Result<Response, Infallible> {
    // Not for requests without a body, because thousands of them wait.
    let pace = (!request.body().is_end_stream()).then(|| Pace::new(pace_limits));
    let mut request: Request = request.map(|body| match &pace {
        Some(pace) => Body::new(PacedBody::new(body, pace.clone())),
        None => Body::new(body),
    });
    if let Some(client) = client {
        request.extensions_mut().insert(ConnectInfo(client));
    }
    request.extensions_mut().insert(Arc::clone(&slot));
    if let Some(pace) = &pace {
        request.extensions_mut().insert(pace.clone());
    }
    let Ok(mut response) = router.oneshot(request).await;
    let is_too_slow = pace.is_some_and(|pace| pace.is_expired());
    let refused = slot.refused_by();
    if let Some(limit) = refused {
        response = Problem::too_many_connections(limit).into_response();
    } else if is_too_slow {
        response = Problem::slow_body().into_response();
    }
    if refused.is_some() || is_too_slow || close_after <= Instant::now() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::web::connection_slots::SlotLimits;

    struct Server {
        address: SocketAddr,
        end: watch::Sender<bool>,
        serving: tokio::task::JoinHandle<()>,
    }

    const USUAL: Duration = Duration::from_secs(30);

    async fn server(deadlines: Deadlines, router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ending) = watch::channel(false);
        let slots = ConnectionSlots::new(SlotLimits { all: 100, trials: 10, of_address: None });
        let proxies = TrustedProxies::default();
        let context = ConnectionContext { router, tls: None, slots, proxies, deadlines, entropy: Entropy::system() };
        Server { address, end, serving: tokio::spawn(serve(ListeningSocket::Tcp(listener), context, ending)) }
    }

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Everything until the server closes.
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
        let server = server(Deadlines::of(Duration::from_millis(50)), hello()).await;
        for begun in ["", "GET / HTTP/1.1\r\nhost: a\r\nx-slow: "] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            assert!(!rest(&mut stream).await.contains("200 OK"), "{begun:?}");
        }
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let server = server(Deadlines::of(Duration::from_millis(50)), hello()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(rest(&mut stream).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn an_old_connection_is_closed_after_an_answer() {
        let max_age = Duration::from_millis(200);
        let server = server(Deadlines { max_age, ..Deadlines::of(USUAL) }, hello()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let (began, mut answers) = (Instant::now(), 0);
        // One request after the other, until the server has closed.
        loop {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut answer = vec![0; 1024];
            let read = timeout(DEADLINE, stream.read(&mut answer)).await.unwrap().unwrap();
            let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
            assert!(answer.ends_with("hello"), "after {answers} answers: {answer:?}");
            answers += 1;
            if answer.contains("connection: close") {
                break;
            }
            assert!(began.elapsed() < DEADLINE, "it never ends");
        }
        assert!(began.elapsed() >= max_age * 4 / 5 && answers > 1, "{answers} answers in {:?}", began.elapsed());
        assert_eq!(rest(&mut stream).await, "");
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let server = server(Deadlines::of(USUAL), hello()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(4 * MAX_HEAD_BYTES));
        // The server may close before it has read all of it.
        let _ = stream.write_all(long.as_bytes()).await;
        let mut bytes = vec![0; 64];
        let read = timeout(DEADLINE, stream.read(&mut bytes)).await.unwrap().unwrap_or(0);
        assert!(!String::from_utf8_lossy(&bytes[..read]).contains("200"));
    }

    #[tokio::test]
    async fn requests_in_flight_are_answered_before_shutdown() {
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
        let server = server(Deadlines::of(USUAL), Router::new().route("/", get(slow))).await;
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
