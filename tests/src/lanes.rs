//! Many requests in a short time, over a few keep-alive connections.

use crate::connection::{Connection, Response};

/// Connections that are used in parallel.
const LANES: usize = 6;

/// Sends each request unchanged to `port`; returns the answers in the same order. `None`: the connection was closed
/// without an answer.
///
/// Each connection has one request in flight: Envoy closes a connection on which it answers itself while there is more
/// to read.
pub fn send_all(port: u16, requests: &[Vec<u8>]) -> Vec<Option<Response>> {
    let share = requests.len().div_ceil(LANES).max(1);
    std::thread::scope(|scope| {
        let lanes: Vec<_> = requests.chunks(share).map(|lane| scope.spawn(move || send_lane(port, lane))).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane of requests")).collect()
    })
}

fn send_lane(port: u16, requests: &[Vec<u8>]) -> Vec<Option<Response>> {
    let mut kept = None;
    requests.iter().map(|request| send(port, request, &mut kept)).collect()
}

/// Sends a request on the kept connection, or on a new one if that has been closed.
fn send(port: u16, request: &[u8], kept: &mut Option<Connection>) -> Option<Response> {
    let answered = kept.take().and_then(|mut connection| Some((connection.try_raw(request).ok()?, connection)));
    let (answer, connection) = answered.or_else(|| {
        let mut connection = Connection::open(port);
        Some((connection.try_raw(request).ok()?, connection))
    })?;
    let closes = answer.headers.get("connection").is_some_and(|value| value == "close");
    *kept = (!closes).then_some(connection);
    Some(answer)
}
