//! Many requests in little time: several connections, and on each of them requests that don't wait for each other's answers.

use crate::connection::{Connection, Response};

/// Connections that are used side by side.
const LANES: usize = 6;
/// Requests of one connection that are under way.
const WINDOW: usize = 32;

/// Sends each request, as it is, to `port`; answers in the same order. `None`: the connection was closed without an answer.
pub fn send_all(port: u16, requests: &[Vec<u8>]) -> Vec<Option<Response>> {
    let share = requests.len().div_ceil(LANES).max(1);
    std::thread::scope(|scope| {
        let lanes: Vec<_> = requests.chunks(share).map(|lane| scope.spawn(move || send_lane(port, lane))).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane of requests")).collect()
    })
}

fn send_lane(port: u16, requests: &[Vec<u8>]) -> Vec<Option<Response>> {
    let mut answers: Vec<Option<Response>> = Vec::with_capacity(requests.len());
    while answers.len() < requests.len() {
        let (mut connection, before) = (Connection::open(port), answers.len());
        while let Some(left) = requests.get(answers.len()..).filter(|left| !left.is_empty()) {
            if send_window(&mut connection, &left[..left.len().min(WINDOW)], &mut answers) == After::Closed {
                break;
            }
        }
        // Only of the first on a connection is it known that it was read, and left without an answer.
        if answers.len() == before {
            answers.push(None);
        }
    }
    answers
}

/// How a window left its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Open,
    Closed,
}

/// Adds the answers of a window's requests, or of the first of them where the connection is closed before.
fn send_window(connection: &mut Connection, window: &[Vec<u8>], answers: &mut Vec<Option<Response>>) -> After {
    // A connection that is closed while this is written may have answers to read all the same.
    let _ = connection.send(&window.concat());
    for _ in window {
        let Ok(answer) = connection.read_answer() else { return After::Closed };
        let closes = answer.headers.get("connection").is_some_and(|value| value == "close");
        answers.push(Some(answer));
        if closes {
            return After::Closed;
        }
    }
    After::Open
}
