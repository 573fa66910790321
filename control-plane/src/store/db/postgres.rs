//! PostgreSQL: a server that may be unavailable for a while, and the connections to it.
//!
//! See `docs/decisions/postgres.md`.

mod address;
pub(crate) mod notifications;
pub(crate) mod schema;
mod tls;
pub(crate) mod transaction;

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use policy::Epoch;
use postgres::NoTls;
use tracing::warn;

use self::address::Address;
pub(crate) use self::address::display_url;
pub(crate) use self::notifications::notify_change;
pub(crate) use self::schema::{is_idle, is_ours, prepare_uncommitted, versions};
use super::lock::OpenError;
use super::sql::{Session, SqlError};

/// Settings of each connection. A change that was answered is on disk, and on a synchronous standby's disk if there is
/// one. A replica that holds the position's lock, and is disconnected or stalls, loses the lock after some seconds.
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
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// A server, reachable or not.
pub(crate) struct Server {
    address: Address,
    /// Its URL in messages, without the password.
    display_url: String,
    backoff: Mutex<Backoff>,
}

/// Backoff after a failed attempt: without it, all replicas would connect at once to a server that starts.
#[derive(Default)]
struct Backoff {
    failures: u32,
    until: Option<Instant>,
    cause: String,
}

impl Server {
    /// Connects to the server, and migrates the schema to this version; the history of a new database begins with
    /// `epoch`. Also returns a first connection.
    pub(crate) fn open(url: &str, password_file: Option<&Path>, epoch: Epoch) -> Result<(Self, Session), OpenError> {
        let server = Self::at(url, password_file)?;
        let session = server.connect().map_err(|error| server.open_error(&error))?;
        schema::prepare(&session, &server.display_url, epoch)?;
        Ok((server, session))
    }

    /// The server that a URL names. Doesn't connect.
    pub(crate) fn at(url: &str, password_file: Option<&Path>) -> Result<Self, OpenError> {
        let display_url = display_url(url);
        match Address::parse(url, password_file) {
            Ok(address) => Ok(Self { address, display_url, backoff: Mutex::default() }),
            Err(cause) => Err(OpenError::Server { database: display_url, cause }),
        }
    }

    /// A new connection. Fails immediately during the backoff.
    pub(crate) fn connect(&self) -> Result<Session, SqlError> {
        let now = Instant::now();
        {
            let backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
            if backoff.until.is_some_and(|until| now < until) {
                return Err(SqlError::Unreachable(backoff.cause.clone()));
            }
        }
        let connected = match self.connect_once() {
            // The server was running, and may have cut all connections at that moment: no reason to back off.
            Err(error) if error.is_cut() => self.connect_once(),
            connected => connected,
        };
        let mut backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        match connected {
            Ok(session) => {
                *backoff = Backoff::default();
                Ok(session)
            }
            Err(error) => {
                let cause = error.to_string();
                if backoff.failures == 0 {
                    warn!(database = self.display_url, %cause, "cannot connect to PostgreSQL");
                }
                let longest = FIRST_BACKOFF.saturating_mul(1 << backoff.failures.min(6)).min(MAX_BACKOFF);
                *backoff = Backoff {
                    failures: backoff.failures.saturating_add(1),
                    until: Some(Instant::now() + with_jitter(longest)),
                    cause: cause.clone(),
                };
                Err(SqlError::Unreachable(cause))
            }
        }
    }

    /// A new connection; retries until `deadline`.
    pub(crate) fn connect_until(&self, deadline: Instant) -> Result<Session, SqlError> {
        loop {
            match self.connect() {
                Err(_) if Instant::now() < deadline => std::thread::park_timeout(FIRST_BACKOFF),
                connected => return connected,
            }
        }
    }

    pub(crate) fn open_error(&self, error: &SqlError) -> OpenError {
        OpenError::Server { database: self.display_url.clone(), cause: error.to_string() }
    }

    fn connect_once(&self) -> Result<Session, SqlError> {
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
fn with_jitter(longest: Duration) -> Duration {
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
    fn a_connection_cut_while_it_opens_is_retried_once_before_the_backoff() {
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
