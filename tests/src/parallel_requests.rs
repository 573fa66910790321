//! Many requests in a short time, over a few keep-alive connections.

use crate::connection::{Connection, Response};

/// Connections that are used in parallel.
const CONNECTIONS: usize = 6;

/// Sends each request unchanged to `port`; returns the answers in the same order. `None`: the connection was closed
/// without an answer.
///
/// Each connection has one request in flight: Envoy closes a connection on which it answers itself while there is more
/// to read.
pub fn send_all(port: u16, requests: &[Vec<u8>]) -> Vec<Option<Response>> {
    let share = requests.len().div_ceil(CONNECTIONS).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            requests.chunks(share).map(|part| scope.spawn(move || send_in_order(port, part))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of requests")).collect()
    })
}

fn send_in_order(port: u16, requests: &[Vec<u8>]) -> Vec<Option<Response>> {
    let mut reusable = None;
    requests.iter().map(|request| send(port, request, &mut reusable)).collect()
}

/// Sends a request on the keep-alive connection, or on a new one if that has been closed.
fn send(port: u16, request: &[u8], reusable: &mut Option<Connection>) -> Option<Response> {
    let answered = reusable.take().and_then(|mut connection| Some((connection.try_raw(request).ok()?, connection)));
    let (answer, connection) = answered.or_else(|| {
        let mut connection = Connection::open(port);
        Some((connection.try_raw(request).ok()?, connection))
    })?;
    let closes = answer.headers.get("connection").is_some_and(|value| value == "close");
    *reusable = (!closes).then_some(connection);
    Some(answer)
}
