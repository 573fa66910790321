//! Load on both Envoys, from before a fault until after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use end_to_end::{Connection, eventually};

use crate::stack::Stack;

/// Pause between two requests of a client, because each key has a rate limit.
const PAUSE: Duration = Duration::from_millis(5);

const UNKNOWN: &str = "lk_live_000000000000000000000000000000004cjNQE";

/// Clients of both Envoys, as behind a load balancer: an Envoy that doesn't answer, or answers 503, is skipped.
pub struct Load {
    clients: Vec<JoinHandle<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Load {
    /// Three clients, each with its own valid key, an inactive key, and an unknown one.
    pub fn start(stack: &Stack) -> Self {
        let dead = stack.create_key("dead");
        stack.wait_enforced_at(2);
        let (enforcement, _) = stack.change("POST", &format!("{}/deactivate", dead.path()), 30);
        assert!(enforcement.starts_with("enforced=true, edges=2"), "{enforcement}");
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: usize| {
            let own = stack.create_key(&format!("client {number}")).secret;
            let requests =
                [(own, "200 -"), (dead.secret.clone(), "401 inactive-key"), (UNKNOWN.to_owned(), "401 unknown-key")];
            let (envoys, is_over, answered) = (stack.envoys, Arc::clone(&is_over), Arc::clone(&answered));
            std::thread::spawn(move || {
                let (mut wrong, mut connections) = (Vec::new(), [None, None]);
                let (_sender, receiver) = channel::<()>();
                for turn in number.. {
                    let (secret, expected) = &requests[turn % requests.len()];
                    let seen = balanced(&mut connections, envoys, turn % 2, secret);
                    if seen != *expected {
                        wrong.push(format!("{seen} instead of {expected}"));
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    if is_over.load(Ordering::Relaxed)
                        || receiver.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected)
                    {
                        break;
                    }
                }
                wrong
            })
        };
        let clients = (0..3).map(client).collect();
        Self { clients, is_over, answered }
    }

    pub fn wait_for(&self, more: u64) {
        let until = self.answered.load(Ordering::Relaxed) + more;
        eventually("requests are answered", || match self.answered.load(Ordering::Relaxed) {
            answered if answered >= until => Ok(()),
            answered => Err(format!("{} to go", until - answered)),
        });
    }

    pub fn assert_no_wrong_verdict(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let wrong: Vec<String> = self.clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        assert!(wrong.is_empty(), "{} wrong verdicts: {:?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    }
}

/// The verdict of the first Envoy that gives one.
fn balanced(connections: &mut [Option<Connection>; 2], ports: [u16; 2], first: usize, secret: &str) -> String {
    let mut why = Vec::new();
    for at in [first, 1 - first] {
        let connection = connections[at].take().map_or_else(|| Connection::try_open(ports[at]), Ok);
        let answer = connection.and_then(|mut connection| {
            let answer = connection.try_get("/v1/reviews", &[("x-api-key", secret)])?;
            Ok((connection, answer))
        });
        match answer {
            Ok((connection, answer)) => {
                if answer.headers.get("connection").is_none_or(|value| value != "close") {
                    connections[at] = Some(connection);
                }
                if answer.status != 503 {
                    return answer.verdict();
                }
                why.push(answer.verdict());
            }
            Err(error) => why.push(error),
        }
    }
    why.join("; ")
}
