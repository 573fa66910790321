//! Continuous load on an Envoy, from before a fault until after it, with every wrong verdict recorded.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{JoinHandle, yield_now};

use crate::connection::Connection;
use crate::wait::eventually;

/// A key and the verdict that every request with it must get, such as `200 -` or `401 unknown-key`.
#[derive(Clone)]
pub struct Expected {
    pub secret: String,
    pub verdict: &'static str,
}

/// Threads that send requests on connections of their own until [`Self::stop`].
pub struct LoadGenerator {
    threads: Vec<JoinHandle<Vec<String>>>,
    /// A thread holds a read lock while its requests are in flight.
    expected: Arc<RwLock<Vec<Expected>>>,
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl LoadGenerator {
    /// Sends requests on these connections, each in its own thread. A connection that Envoy closes is opened again on
    /// `port`, as soon as something listens there.
    pub fn start(connections: Vec<Connection>, port: u16, expected: &[Expected]) -> Self {
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let expected = Arc::new(RwLock::new(expected.to_vec()));
        let spawn = |mut connection: Connection| {
            let (is_over, answered, expected) = (Arc::clone(&is_over), Arc::clone(&answered), Arc::clone(&expected));
            std::thread::spawn(move || {
                let mut wrong = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let expected = expected.read().expect("no thread has panicked");
                    if expected.is_empty() {
                        drop(expected);
                        yield_now();
                        continue;
                    }
                    for Expected { secret, verdict } in expected.iter() {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        match connection.try_get("/v1/reviews", &[("x-api-key", secret)]) {
                            Ok(answer) => {
                                let seen = answer.verdict();
                                if seen != *verdict {
                                    wrong.push(format!("{seen} instead of {verdict}"));
                                }
                                answered.fetch_add(1, Ordering::Relaxed);
                                if answer.headers.get("connection").is_some_and(|value| value == "close") {
                                    reopen(&mut connection, port);
                                }
                            }
                            Err(_) => reopen(&mut connection, port),
                        }
                    }
                }
                wrong
            })
        };
        let threads = connections.into_iter().map(spawn).collect();
        Self { threads, expected, is_over, answered }
    }

    /// From now on requests are sent with these keys only. Returns when no earlier request is in flight.
    pub fn expect(&self, expected: &[Expected]) {
        *self.expected.write().expect("no thread has panicked") = expected.to_vec();
    }

    /// Waits until `more` further requests are answered.
    pub fn wait_for(&self, more: u64) {
        let until = self.answered() + more;
        eventually("requests are answered", || match self.answered() {
            answered if answered >= until => Ok(()),
            answered => Err(format!("{} to go", until - answered)),
        });
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Stops the threads; returns the wrong answers.
    pub fn stop(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a load thread")).collect()
    }
}

/// Replaces a connection with a new one. If nothing listens, the old one stays and fails again.
fn reopen(connection: &mut Connection, port: u16) {
    match Connection::try_open(port) {
        Ok(new) => *connection = new,
        Err(_) => yield_now(),
    }
}
