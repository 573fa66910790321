//! Follows other replicas' changes: by NOTIFY, and by a query each second in case a notification is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use policy::{ChainHash, Epoch, Position};
use tracing::{error, info, warn};

use self::Reads::{All, News};
use super::{Server, Session, schema, words};
use crate::store::replicas::{self, NOTHING_READ, Replica};
use crate::store::sql::{Sql, SqlError, params};
use crate::store::writer::Publish;
use crate::store::{StoreError, changes, edge_tokens, instances};

/// The channel on which changes are announced.
const CHANNEL: &str = "latchkey";

/// How often to read the position if no notification arrives.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest that a wait lasts, so that the thread soon notices that it must end.
const STEP: Duration = Duration::from_millis(100);

/// What receives the changes of other replicas.
pub(in crate::store) struct Following {
    pub(in crate::store) publish: Arc<Publish>,
    pub(in crate::store) replica: Arc<Replica>,
}

/// The thread that follows. It ends when this is dropped, or by [`Self::end`].
pub(in crate::store) struct Follower {
    is_ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(in crate::store) fn start(server: Arc<Server>, following: Arc<Following>) -> std::io::Result<Self> {
        let is_ending = Arc::<AtomicBool>::default();
        let ending = Arc::clone(&is_ending);
        let thread = std::thread::Builder::new()
            .name("store-follower".to_owned())
            .spawn(move || follow(&server, &following, &ending))?;
        Ok(Self { is_ending, thread: Some(thread) })
    }

    /// Makes the thread end, and returns it so that the caller can wait for it: that takes a tenth of a second.
    pub(in crate::store) fn end(mut self) -> Option<JoinHandle<()>> {
        self.is_ending.store(true, Ordering::Relaxed);
        self.thread.take()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }
}

fn follow(server: &Server, following: &Following, ending: &AtomicBool) {
    let mut was_lost = false;
    while !ending.load(Ordering::Relaxed) {
        match server.connect().and_then(listen) {
            Ok(connection) => {
                if was_lost {
                    info!("PostgreSQL is there again");
                }
                if let Err(cause) = hear(&connection, following, ending) {
                    warn!(%cause, "lost the connection to PostgreSQL; changes of other replicas aren't heard of until it is back");
                    was_lost = true;
                }
            }
            Err(_) => {
                was_lost = true;
                std::thread::park_timeout(STEP);
            }
        }
    }
}

fn listen(session: Session) -> Result<Session, SqlError> {
    schema::serve(&session)?;
    session.execute_batch(&format!("LISTEN {CHANNEL}"))?;
    words::listen(&session)?;
    Ok(session)
}

fn hear(session: &Session, following: &Following, ending: &AtomicBool) -> Result<(), StoreError> {
    let Following { publish, replica } = following;
    let mut looked_at = Instant::now();
    // Notifications are lost while there is no connection.
    look(Sql::Postgres(session), publish, replica, All)?;
    while !ending.load(Ordering::Relaxed) {
        let (mut is_told, mut said, mut guesses) = (false, Vec::new(), Vec::new());
        session.hears(STEP, |channel, payload| match channel {
            words::CHANNEL => {
                said.extend(words::read(payload, &replica.id));
                guesses.extend(words::guesses(payload, &replica.id));
            }
            _ => is_told = true,
        })?;
        if is_told || looked_at.elapsed() >= LOOK_EVERY {
            looked_at = Instant::now();
            look(Sql::Postgres(session), publish, replica, News)?;
        }
        if !said.is_empty() {
            replica.hear(replicas::News::Said(said));
        }
        if !guesses.is_empty() {
            replica.warn(guesses);
        }
    }
    Ok(())
}

/// Which instances [`look`] reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Reads {
    /// Those that changed since the last read.
    News,
    All,
}

/// Reads what is committed, and publishes what this replica doesn't know yet. Instances are read after the position, so
/// as of an instant at which that revision was committed.
pub(in crate::store) fn look(
    sql: Sql<'_>,
    publish: &Publish,
    replica: &Replica,
    reads: Reads,
) -> Result<(), StoreError> {
    let began = Instant::now();
    // Taken before the query, so that the query sees everything that this replica knows.
    let (known, read_to) = (publish.position(), replica.read_to());
    let statement = "SELECT epoch, revision, head, (SELECT max(changed) FROM instances),
                         EXISTS (SELECT 1 FROM edge_tokens WHERE revision > ?1)
                     FROM position WHERE one = 1";
    let tokens_of = changes::number(publish.tokens_of())?;
    let (position, newest, tokens_differ) = sql.query_row(statement, params![tokens_of], |row| {
        let (epoch, head) = (Epoch::from_bytes(row.get(0)?), ChainHash(row.get(2)?));
        let position = Position { epoch, revision: changes::revision(row.get(1)?), head };
        Ok((position, row.get::<Option<i64>>(3)?, row.get::<bool>(4)?))
    })?;
    let is_other =
        || Ok::<_, StoreError>(changes::chain_hash(sql, known.revision)?.is_some_and(|head| head != known.head));
    let went_back = position.epoch != known.epoch
        || position.revision < known.revision
        || (reads == All && position != known && is_other()?);
    let tokens = (went_back || tokens_differ).then(|| edge_tokens::known(sql)).transpose()?;
    let is_news = if went_back {
        error!(
            revision = position.revision.0,
            known = known.revision.0,
            "the database went back: changes that were answered are gone from it"
        );
        publish.replace(position, tokens.unwrap_or_default());
        true
    } else {
        publish.tell(position, tokens)
    };
    let is_whole = reads == All || went_back;
    let instances = match newest {
        Some(newest) if is_whole || newest > read_to => {
            instances::changed_since(sql, if is_whole { NOTHING_READ } else { read_to })?
        }
        Some(_) | None => Vec::new(),
    };
    if is_news {
        publish.wake();
    }
    replica.looked(began, replicas::News::Looked { position, instances, is_whole, went_back });
    Ok(())
}
