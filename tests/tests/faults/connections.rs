//! Slow clients: thousands send a byte at a time and never finish, and all others are still served.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use end_to_end::{Connection, Stack, eventually_within};

/// The number of connections; fewer if the limit on open files is lower.
const MOST: usize = 10_000;

/// The pause between two bytes of a connection.
const PAUSE: Duration = Duration::from_secs(1);

/// How long any other client may wait for an answer, on a busy machine.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(5);

/// How many connections this process may open. Leaves some files for everything else.
fn connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("the limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("that of open files");
    let soft = line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(MOST * 2);
    MOST.min(soft.saturating_sub(500))
}

/// Sends a byte on each connection, a second apart, while `others` runs.
fn with_slow_clients(port: u16, others: impl FnOnce(&AtomicUsize)) {
    let mut open: Vec<TcpStream> = (0..connections())
        .map(|number| {
            TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|error| panic!("connection {number}: {error}"))
        })
        .collect();
    let head = b"GET /v1/reviews HTTP/1.1\r\nhost: api.example\r\nx-slow: ";
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // Ends with `others`, even if that panics.
        let (_open, is_over) = mpsc::channel::<()>();
        let rounds = &rounds;
        scope.spawn(move || {
            for byte in head.iter().chain(std::iter::repeat(&b'a')) {
                // Drops connections that the server has closed.
                open.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
                rounds.fetch_add(1, Ordering::Relaxed);
                if is_over.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        });
        others(rounds);
    });
}

#[test]
fn thousands_of_slow_clients_block_nobody_from_the_control_plane_or_the_edge() {
    let stack = Stack::start();
    let bearer = format!("Bearer {}", stack.control_plane.admin_token());
    let mut slowest = Duration::ZERO;
    let mut within = |what: &str, step: &mut dyn FnMut() -> Result<(), String>| {
        let start = Instant::now();
        eventually_within(RESPONSE_DEADLINE, what, step);
        slowest = slowest.max(start.elapsed());
    };
    for (port, others) in [(stack.control_plane.port, "the control plane"), (stack.envoy.port, "the edge")] {
        with_slow_clients(port, |rounds| {
            let mut number = 0;
            while rounds.load(Ordering::Relaxed) < 5 || number < 20 {
                number += 1;
                // From the same address, so only its token sets the admin apart.
                within("an admin is answered, on a new connection", &mut || {
                    let mut connection = Connection::try_open(stack.control_plane.port)?;
                    let seen = connection.try_get("/v1/workspaces", &[("authorization", &bearer)])?.verdict();
                    if seen == "200 -" { Ok(()) } else { Err(seen) }
                });
                let key = stack.admin.create_key("acme", &number.to_string());
                within("a new key passes, on a new connection", &mut || {
                    let mut connection = Connection::try_open(stack.envoy.port)?;
                    let seen = connection.try_get("/v1/reviews", &[("x-api-key", &key.secret)])?.verdict();
                    if seen == "200 -" { Ok(()) } else { Err(seen) }
                });
                stack.admin.delete(&key);
                within("a deleted key is refused, on a new connection", &mut || {
                    let mut connection = Connection::try_open(stack.envoy.port)?;
                    let seen = connection.try_get("/v1/reviews", &[("x-api-key", &key.secret)])?.verdict();
                    if seen == "401 unknown-key" { Ok(()) } else { Err(seen) }
                });
            }
            println!(
                "{} slow connections at {others}: {number} times an admin was answered, and a key made, used and deleted",
                connections()
            );
        });
    }
    println!("the slowest of them took {slowest:?}");
    stack.envoy.assert_no_vm_failed();
}
