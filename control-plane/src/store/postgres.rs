//! PostgreSQL: a server that may be unavailable for a while, and the connections to it.
//!
//! See `docs/decisions/postgres.md`.

mod address;
mod follow;
mod schema;
mod session;
mod tls;
mod words;

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use policy::Epoch;
use postgres::NoTls;
use tracing::warn;

use self::address::Address;
pub(super) use self::address::shown;
pub(super) use self::follow::{Follower, Following, Reads, look};
pub(super) use self::schema::{is_idle, is_ours, prepare_uncommitted, versions};
pub(super) use self::session::Session;
pub(super) use self::words::speak;
use super::lock::OpenError;
use super::sql::SqlError;

/// Settings of each connection. A change that was answered is on disk, and on a synchronous standby's disk if there is
/// one. A holder of the position's lock that is cut off or stalls loses it after some seconds.
const SETTINGS: &str = "
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local');
    SET jit = off;
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '5s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 1;
    SET tcp_keepalives_count = 5;
    SET tcp_user_timeout = 10000;";

/// The first and the longest backoff after a failed attempt.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A server, reachable or not.
pub(super) struct Server {
    address: Address,
    /// Its URL in messages, without the password.
    shown: String,
    waiting: Mutex<Waiting>,
}

/// Backoff after a failed attempt: without it, all replicas would rush to a server that starts.
#[derive(Default)]
struct Waiting {
    failed: u32,
    until: Option<Instant>,
    cause: String,
}

impl Server {
    /// Connects to the server, and migrates the schema to this version; the history of a new database begins with
    /// `epoch`. Also returns a first connection.
    pub(super) fn open(url: &str, password_file: Option<&Path>, epoch: Epoch) -> Result<(Self, Session), OpenError> {
        let server = Self::at(url, password_file)?;
        let session = server.connect().map_err(|error| server.failed(&error))?;
        schema::prepare(&session, &server.shown, epoch)?;
        Ok((server, session))
    }

    /// The server that a URL names. Doesn't connect.
    pub(super) fn at(url: &str, password_file: Option<&Path>) -> Result<Self, OpenError> {
        let shown = shown(url);
        match Address::parse(url, password_file) {
            Ok(address) => Ok(Self { address, shown, waiting: Mutex::default() }),
            Err(cause) => Err(OpenError::Server { database: shown, cause }),
        }
    }

    /// A new connection. Fails immediately during the backoff.
    pub(super) fn connect(&self) -> Result<Session, SqlError> {
        let now = Instant::now();
        {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.until.is_some_and(|until| now < until) {
                return Err(SqlError::Unreachable(waiting.cause.clone()));
            }
        }
        let connected = match self.connected() {
            // The server was there, and may have cut all connections at that moment: that is no reason to back off.
            Err(error) if error.is_cut() => self.connected(),
            connected => connected,
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match connected {
            Ok(session) => {
                *waiting = Waiting::default();
                Ok(session)
            }
            Err(error) => {
                let cause = error.to_string();
                if waiting.failed == 0 {
                    warn!(database = self.shown, %cause, "cannot connect to PostgreSQL");
                }
                let longest = FIRST_WAIT.saturating_mul(1 << waiting.failed.min(6)).min(LONGEST_WAIT);
                *waiting = Waiting {
                    failed: waiting.failed.saturating_add(1),
                    until: Some(Instant::now() + jittered(longest)),
                    cause: cause.clone(),
                };
                Err(SqlError::Unreachable(cause))
            }
        }
    }

    /// A new connection; retries until `deadline`.
    pub(super) fn connect_until(&self, deadline: Instant) -> Result<Session, SqlError> {
        loop {
            match self.connect() {
                Err(_) if Instant::now() < deadline => std::thread::park_timeout(FIRST_WAIT),
                connected => return connected,
            }
        }
    }

    pub(super) fn failed(&self, error: &SqlError) -> OpenError {
        OpenError::Server { database: self.shown.clone(), cause: error.to_string() }
    }

    fn connected(&self) -> Result<Session, SqlError> {
        let Address { config, tls } = &self.address;
        let mut client = match tls {
            Some(tls) => config.connect(tls.clone())?,
            None => config.connect(NoTls)?,
        };
        client.batch_execute(SETTINGS)?;
        Ok(Session::new(client))
    }
}

/// A random time between half of it and all of it.
fn jittered(longest: Duration) -> Duration {
    // The standard library's random seed for maps; nothing secret depends on it.
    let random = u32::try_from(RandomState::new().hash_one(()) % 1_000).unwrap_or_default();
    let half = longest / 2;
    half.saturating_add(half.saturating_mul(random) / 1_000)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_connection_cut_while_it_is_made_is_retried_once_before_the_backoff() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::at(&format!("postgres://u@{}/x", listener.local_addr().unwrap()), None).unwrap();
        let (cut, cuts) = channel();
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                // Cut once the client has sent something.
                let _ = client.read(&mut [0; 8]);
                cut.send(()).unwrap();
            }
        });
        assert!(server.connect().is_err());
        assert_eq!(cuts.try_iter().count(), 2);
        assert!(server.connect().is_err());
        assert_eq!(cuts.try_iter().count(), 0);
    }
}
