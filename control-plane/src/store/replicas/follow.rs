//! Follows other replicas' changes: by NOTIFY, and by a query each second in case a notification is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use policy::Position;
use tracing::{error, info, warn};

use self::ReadMode::{Full, Incremental};
use super::messages;
use crate::store::StoreError;
use crate::store::db::postgres::notifications::{self, Notification};
use crate::store::db::postgres::{Server, schema};
use crate::store::db::sql::{Session, Sql, SqlError, params};
use crate::store::history::writer::Publisher;
use crate::store::history::{changes, edge_token_index};
use crate::store::records::instances;
use crate::store::replicas::{self, NOTHING_READ, Replica};

/// How often to read the position if no notification arrives.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The longest that one wait lasts, so that the thread soon notices that it must end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Where the changes and messages of other replicas go.
pub(crate) struct ReplicaLink {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) replica: Arc<Replica>,
}

/// The thread that follows other replicas. It ends when this is dropped, or by [`Self::end`].
pub(crate) struct Follower {
    is_ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(crate) fn start(server: Arc<Server>, replica_link: Arc<ReplicaLink>) -> std::io::Result<Self> {
        let is_ending = Arc::<AtomicBool>::default();
        let ending = Arc::clone(&is_ending);
        let thread = std::thread::Builder::new()
            .name("store-follower".to_owned())
            .spawn(move || follow(&server, &replica_link, &ending))?;
        Ok(Self { is_ending, thread: Some(thread) })
    }

    /// Makes the thread end, and returns it so that the caller can wait for it: that takes a tenth of a second.
    pub(crate) fn end(mut self) -> Option<JoinHandle<()>> {
        self.is_ending.store(true, Ordering::Relaxed);
        self.thread.take()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }
}

fn follow(server: &Server, replica_link: &ReplicaLink, ending: &AtomicBool) {
    let mut is_disconnected = false;
    while !ending.load(Ordering::Relaxed) {
        match server.connect().and_then(start_listening) {
            Ok(connection) => {
                if is_disconnected {
                    info!("PostgreSQL is available again");
                }
                if let Err(cause) = follow_connection(&connection, replica_link, ending) {
                    warn!(%cause, "lost the connection to PostgreSQL; changes of other replicas arrive when it is back");
                    is_disconnected = true;
                }
            }
            Err(_) => {
                is_disconnected = true;
                std::thread::park_timeout(POLL_INTERVAL);
            }
        }
    }
}

fn start_listening(session: Session) -> Result<Session, SqlError> {
    schema::serve(&session)?;
    notifications::listen(&session)?;
    Ok(session)
}

fn follow_connection(session: &Session, replica_link: &ReplicaLink, ending: &AtomicBool) -> Result<(), StoreError> {
    let ReplicaLink { publisher, replica } = replica_link;
    let mut refreshed_at = Instant::now();
    // Notifications are lost while there is no connection.
    refresh(Sql::Postgres(session), publisher, replica, Full)?;
    while !ending.load(Ordering::Relaxed) {
        let (mut is_notified, mut received, mut auth_failures) = (false, Vec::new(), Vec::new());
        session.receive_notifications(POLL_INTERVAL, |channel, payload| match Notification::of(channel, payload) {
            Notification::Message(payload) => {
                received.extend(messages::parse_messages(payload, &replica.id));
                auth_failures.extend(messages::parse_auth_failures(payload, &replica.id));
            }
            Notification::Change => is_notified = true,
        })?;
        if is_notified || refreshed_at.elapsed() >= REFRESH_INTERVAL {
            refreshed_at = Instant::now();
            refresh(Sql::Postgres(session), publisher, replica, Incremental)?;
        }
        if !received.is_empty() {
            replica.notify(replicas::ReplicaEvent::Messages(received));
        }
        if !auth_failures.is_empty() {
            replica.notify_auth_failures(auth_failures);
        }
    }
    Ok(())
}

/// Which instances [`refresh`] reads from the database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Those that changed since the last read.
    Incremental,
    Full,
}

/// Reads what is committed, and publishes what this replica doesn't know yet. Instances are read after the position, so
/// as of an instant at which that revision was committed.
pub(crate) fn refresh(
    sql: Sql<'_>,
    publisher: &Publisher,
    replica: &Replica,
    mode: ReadMode,
) -> Result<(), StoreError> {
    let began = Instant::now();
    // Taken before the query, so that the query sees everything that this replica knows.
    let (known, read_to) = (publisher.position(), replica.read_to());
    let statement = "SELECT epoch, revision, head, (SELECT max(changed) FROM instances),
                         EXISTS (SELECT 1 FROM edge_tokens WHERE revision > ?1)
                     FROM position WHERE one = 1";
    let (position, newest, tokens_differ) = sql.query_row(statement, params![publisher.tokens_revision()], |row| {
        let position = Position { epoch: row.get(0)?, revision: row.get(1)?, head: row.get(2)? };
        Ok((position, row.get::<Option<i64>>(3)?, row.get::<bool>(4)?))
    })?;
    let has_other_history =
        || Ok::<_, StoreError>(changes::chain_hash(sql, known.revision)?.is_some_and(|head| head != known.head));
    let went_back = position.epoch != known.epoch
        || position.revision < known.revision
        || (mode == Full && position != known && has_other_history()?);
    let tokens = (went_back || tokens_differ).then(|| edge_token_index::load_index(sql)).transpose()?;
    let is_new = if went_back {
        error!(
            revision = position.revision.0,
            known = known.revision.0,
            "the database went back: it lacks changes that were acknowledged"
        );
        publisher.replace(position, tokens.unwrap_or_default());
        true
    } else {
        publisher.publish(position, tokens)
    };
    let is_whole = mode == Full || went_back;
    let instances = match newest {
        Some(newest) if is_whole || newest > read_to => {
            instances::changed_since(sql, if is_whole { NOTHING_READ } else { read_to })?
        }
        Some(_) | None => Vec::new(),
    };
    if is_new {
        publisher.wake();
    }
    replica.record_refresh(began, replicas::ReplicaEvent::StateRead { position, instances, is_whole, went_back });
    Ok(())
}
