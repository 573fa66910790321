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
use super::listener::Listening;
use super::proxies::{Peer, TrustedProxies};
use super::socket::Socket;
use super::tls::Tls;
use crate::entropy::Entropy;
use crate::guesses::counted_as;
use crate::pace::{Pace, Slowest};
use crate::places::{Place, Places};
use crate::problem::Problem;

/// How long a client may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// For the next byte of a body, and for the client to take the next byte of an answer. Also for a TLS handshake,
    /// for the head of a request, and for the next request of a connection.
    pub(super) still: Duration,
    /// For the client to take the next byte of an answer, once the service shuts down.
    pub(super) still_at_end: Duration,
    /// How far a body may be behind its minimum rate.
    behind: Duration,
    /// For a connection at a limit, until it has presented a valid token.
    trial: Duration,
    /// For the last request of a connection to begin, a fifth more or less, so that load spreads over the control
    /// planes again after one of them restarts.
    age: Duration,
}

impl Deadlines {
    /// All in proportion to `still`: if it is 30 s, the others are 2 s, 60 s, 5 s and 10 min.
    pub(super) fn of(still: Duration) -> Self {
        Self { still, still_at_end: still / 15, behind: still * 2, trial: still / 6, age: still * 20 }
    }

    fn slowest(&self) -> Slowest {
        Slowest { still: self.still, behind: self.behind }
    }
}

/// What all connections of a listener share.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) router: Router,
    pub(super) tls: Option<Tls>,
    pub(super) places: Places,
    pub(super) proxies: TrustedProxies,
    pub(super) deadlines: Deadlines,
    pub(super) entropy: Entropy,
}

impl Door {
    /// A place for a connection, before the next one is accepted. A proxy's connections are of many clients, so they
    /// have no limit by address. Those of any other Unix socket have no address, and count as one client.
    fn place(&self, remote: Peer) -> Arc<Place> {
        let of = (!self.proxies.has(remote.address())).then(|| counted_as(remote.address()));
        self.places.take(of)
    }
}

/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long to wait when the system has no more sockets for us.
const NO_SOCKET_PAUSE: Duration = Duration::from_millis(200);

/// Serves until `ending` becomes true, and returns when all requests in flight are answered.
pub(super) async fn serve(listener: Listening, door: Door, mut ending: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            _ = ending.wait_for(|ending| *ending) => break,
        };
        let Some(accepted) = accepted else { continue };
        let (door, watcher, ending) = (door.clone(), graceful.watcher(), ending.clone());
        match accepted {
            Accepted::Tcp(stream, remote) => {
                let (remote, socket) = (Peer::Address(remote), Socket::of_tcp(stream, door.deadlines, ending.clone()));
                let place = door.place(remote);
                tokio::spawn(enter(door, socket, remote, place, watcher, ending));
            }
            Accepted::Unix(stream) => {
                let socket = Socket::new(stream, door.deadlines, ending.clone());
                let (door, place) = (Door { tls: None, ..door.clone() }, door.place(Peer::Unix));
                tokio::spawn(enter(door, socket, Peer::Unix, place, watcher, ending));
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
async fn accept(listener: &Listening) -> Option<Accepted> {
    let accepted = match listener {
        Listening::Tcp(listener) => listener.accept().await.map(|(stream, remote)| Accepted::Tcp(stream, remote)),
        Listening::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    };
    match accepted {
        Ok(accepted) => Some(accepted),
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

/// Serves a connection as long as it has a place.
async fn enter(
    door: Door,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: Peer,
    place: Arc<Place>,
    watcher: Watcher,
    ending: watch::Receiver<bool>,
) {
    let (trial, of_trial) = (door.deadlines.trial, Arc::clone(&place));
    tokio::select! {
        () = shake_hands(door, socket, remote, place, watcher, ending) => {}
        () = of_trial.trial_is_over(trial) => debug!(%remote, "a connection showed no right token in time"),
    }
}

/// Performs the TLS handshake if there is TLS.
async fn shake_hands(
    door: Door,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: Peer,
    place: Arc<Place>,
    watcher: Watcher,
    mut ending: watch::Receiver<bool>,
) {
    let Some(tls) = door.tls.clone() else { return converse(door, socket, remote, place, watcher).await };
    let shaken = tokio::select! {
        shaken = timeout(door.deadlines.still, tls.accept(socket)) => shaken,
        // No request was sent yet.
        _ = ending.wait_for(|ending| *ending) => return,
    };
    match shaken {
        Ok(Ok(stream)) => converse(door, stream, remote, place, watcher).await,
        Ok(Err(cause)) => debug!(%remote, %cause, "a TLS handshake failed"),
        Err(_) => debug!(%remote, "a TLS handshake took too long"),
    }
}

/// Serves all requests of a connection, one after the other.
async fn converse(
    door: Door,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    remote: Peer,
    place: Arc<Place>,
    watcher: Watcher,
) {
    let Door { router, deadlines, entropy, proxies, .. } = door;
    let is_old_at = Instant::now() + entropy.jittered(deadlines.age);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let client = proxies.client(remote, request.headers());
        answer(router.clone(), request, client, Arc::clone(&place), deadlines.slowest(), is_old_at)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(deadlines.still).max_buf_size(MAX_HEAD_BYTES);
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
    place: Arc<Place>,
    slowest: Slowest,
    is_old_at: Instant,
) -> Result<Response, Infallible> {
    // Not for requests without a body: thousands of those wait.
    let pace = (!request.body().is_end_stream()).then(|| Pace::new(slowest));
    let mut request: Request = request.map(|body| match &pace {
        Some(pace) => Body::new(PacedBody::new(body, pace.clone())),
        None => Body::new(body),
    });
    if let Some(client) = client {
        request.extensions_mut().insert(ConnectInfo(client));
    }
    request.extensions_mut().insert(Arc::clone(&place));
    if let Some(pace) = &pace {
        request.extensions_mut().insert(pace.clone());
    }
    let Ok(mut response) = router.oneshot(request).await;
    let is_too_slow = pace.is_some_and(|pace| pace.has_run_out());
    let refused = place.refused();
    if let Some(limit) = refused {
        response = Problem::too_many_connections(limit).into_response();
    } else if is_too_slow {
        response = Problem::slow_body().into_response();
    }
    if refused.is_some() || is_too_slow || is_old_at <= Instant::now() {
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
    use crate::places::Most;

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
        let places = Places::new(Most { all: 100, trials: 10, of_address: None });
        let proxies = TrustedProxies::default();
        let door = Door { router, tls: None, places, proxies, deadlines, entropy: Entropy::system() };
        Server { address, end, serving: tokio::spawn(serve(Listening::Tcp(listener), door, ending)) }
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
        let age = Duration::from_millis(200);
        let server = server(Deadlines { age, ..Deadlines::of(USUAL) }, hello()).await;
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
        assert!(began.elapsed() >= age * 4 / 5 && answers > 1, "{answers} answers in {:?}", began.elapsed());
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
