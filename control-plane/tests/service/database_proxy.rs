//! A proxy for connections to PostgreSQL, which breaks them on command.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

/// What the proxy does with the next COMMIT.
pub(crate) const PASS: u8 = 0;
pub(crate) const LOSE_THE_ANSWER: u8 = 1;
pub(crate) const LOSE_THE_COMMIT: u8 = 2;
pub(crate) const HOLD_THE_COMMIT: u8 = 3;
pub(crate) const HELD: u8 = 4;

/// A proxy for the server's socket that breaks connections on command.
pub(crate) struct DatabaseProxy {
    pub order: Arc<AtomicU8>,
    /// The connections that were let through; `None` while connections are cut.
    clients: Arc<Mutex<Option<Vec<TcpStream>>>>,
    /// The database through this proxy.
    pub url: String,
}

impl DatabaseProxy {
    pub(crate) fn to(direct: &str) -> Self {
        let folder = direct.split_once("host=").unwrap().1.split('&').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = direct.replace("@/", &format!("@{address}/")).replace(&format!("host={folder}"), "sslmode=disable");
        let (order, clients) = (Arc::new(AtomicU8::new(PASS)), Arc::new(Mutex::new(Some(Vec::new()))));
        let (shared_order, passed) = (Arc::clone(&order), Arc::clone(&clients));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut passed = passed.lock().unwrap();
                let Some(passed) = passed.as_mut() else { continue };
                passed.push(client.try_clone().unwrap());
                let server = UnixStream::connect(format!("{folder}/.s.PGSQL.5432")).unwrap();
                let (shared_order, both) =
                    (Arc::clone(&shared_order), (client.try_clone().unwrap(), server.try_clone().unwrap()));
                std::thread::spawn(move || forward_answers(both.1, both.0));
                std::thread::spawn(move || forward_requests(client, server, &shared_order));
            }
        });
        Self { order, clients, url }
    }

    /// Cuts all connections, and lets none through.
    pub(crate) fn cut(&self) {
        for client in self.clients.lock().unwrap().take().into_iter().flatten() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub(crate) fn reconnect(&self) {
        *self.clients.lock().unwrap() = Some(Vec::new());
    }
}

fn forward_answers(mut server: UnixStream, mut client: TcpStream) {
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
}

fn forward_requests(mut client: TcpStream, mut server: UnixStream, order: &AtomicU8) {
    let mut bytes = [0; 65_536];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        let bytes = &bytes[..count];
        let is_commit = bytes.windows(7).any(|word| word == b"COMMIT\0");
        match if is_commit { order.swap(PASS, Ordering::SeqCst) } else { PASS } {
            LOSE_THE_COMMIT => break,
            HOLD_THE_COMMIT => return order.store(HELD, Ordering::SeqCst),
            LOSE_THE_ANSWER => {
                // None of its answer gets through, and it notices the closed connection only after the commit.
                client.shutdown(Shutdown::Both).unwrap();
                let _ = server.write_all(bytes);
                return;
            }
            _ if server.write_all(bytes).is_err() => break,
            _ => {}
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}
