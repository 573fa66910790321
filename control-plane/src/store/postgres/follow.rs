//! What other replicas change: heard of by NOTIFY, and looked for each second, should that have been lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::store::connection::reading;
use crate::store::sql::{Sql, SqlError, params};
use crate::store::writer::Publish;
use crate::store::{StoreError, changes, edge_tokens};

use super::{Server, Session};

/// How often the position is looked at when nobody says anything: in so many steps of so long each.
const STEPS: u32 = 10;
const STEP: Duration = Duration::from_millis(100);

/// The thread that follows. Ends when it is dropped or asked to.
pub(in crate::store) struct Follower {
    is_ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(in crate::store) fn start(server: Arc<Server>, publish: Arc<Publish>) -> std::io::Result<Self> {
        let is_ending = Arc::<AtomicBool>::default();
        let ending = Arc::clone(&is_ending);
        let thread = std::thread::Builder::new()
            .name("store-follower".to_owned())
            .spawn(move || follow(&server, &publish, &ending))?;
        Ok(Self { is_ending, thread: Some(thread) })
    }

    /// Ends it, and answers with the thread to wait for: it needs a tenth of a second.
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

fn follow(server: &Server, publish: &Publish, ending: &AtomicBool) {
    let mut was_lost = false;
    while !ending.load(Ordering::Relaxed) {
        match server.connect().and_then(listen) {
            Ok(connection) => {
                if was_lost {
                    info!("PostgreSQL is there again");
                }
                if let Err(cause) = hear(&connection, publish, ending) {
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
    session.execute_batch("LISTEN latchkey")?;
    Ok(session)
}

fn hear(session: &Session, publish: &Publish, ending: &AtomicBool) -> Result<(), StoreError> {
    loop {
        look(session, publish)?;
        for _ in 0..STEPS {
            if ending.load(Ordering::Relaxed) {
                return Ok(());
            }
            if session.hears(STEP)? {
                break;
            }
        }
    }
}

/// Tells of what is committed, where this replica doesn't know it yet.
fn look(session: &Session, publish: &Publish) -> Result<(), StoreError> {
    // Before the transaction begins: all that this replica knows is in what it sees.
    let known = publish.position();
    let sql = Sql::Postgres(session);
    if changes::position(sql)? == known {
        return Ok(());
    }
    let tokens_of = publish.tokens_of();
    let (position, tokens) = reading(sql, |sql| {
        let position = changes::position(sql)?;
        let differ = "SELECT EXISTS (SELECT 1 FROM edge_tokens WHERE revision > ?1)";
        let went_back = position.epoch != known.epoch || position.revision < known.revision;
        let differ = went_back || sql.query_row(differ, params![changes::number(tokens_of)?], |row| row.get(0))?;
        let tokens = differ.then(|| edge_tokens::live(sql)).transpose()?;
        Ok((position, tokens))
    })?;
    if position.epoch != known.epoch || position.revision < known.revision {
        error!(
            revision = position.revision.0,
            known = known.revision.0,
            "the database went back: changes that were answered are gone from it"
        );
        publish.replace(position, tokens.unwrap_or_default());
    } else if !publish.tell(position, tokens) {
        return Ok(());
    }
    publish.wake();
    Ok(())
}
