//! The writer thread: it takes the queued changes, commits them in one transaction (group commit), and then answers.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use policy::{Position, Revision};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error};

use super::changes::Write;
use super::edge_token_index::{self, EdgeTokenIndex};
use crate::store::StoreError;
use crate::store::db::connection::WriteConnection;

/// The most changes in one transaction, so that the first of them doesn't wait for too many others.
const MAX_GROUP: usize = 256;

/// What is published after a COMMIT, and before the answers of its group.
pub(crate) struct Publisher {
    head: watch::Sender<Position>,
    edge_tokens: watch::Sender<Arc<EdgeTokenIndex>>,
    counters: Arc<WriterCounters>,
    /// The revision as of which the edge tokens were read. Locked while anything is published: in PostgreSQL, another
    /// thread publishes what other replicas commit, and the older of two must never come last.
    tokens_revision: Mutex<Revision>,
}

/// The writer's counters.
#[derive(Default)]
pub(crate) struct WriterCounters {
    pub(crate) changes: AtomicU64,
    pub(crate) commits: AtomicU64,
    /// Changes that the storage refused.
    pub(crate) refused: AtomicU64,
}

impl Publisher {
    pub(crate) fn new(
        head: watch::Sender<Position>,
        edge_tokens: watch::Sender<Arc<EdgeTokenIndex>>,
        counters: Arc<WriterCounters>,
    ) -> Self {
        let tokens_revision = Mutex::new(head.borrow().revision);
        Self { head, edge_tokens, counters, tokens_revision }
    }

    pub(crate) fn position(&self) -> Position {
        *self.head.borrow()
    }

    pub(crate) fn tokens_revision(&self) -> Revision {
        *self.tokens_revision.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what is committed, without waking subscribers yet. `edge_tokens` is `None` if they are unchanged.
    /// Returns whether the position is new.
    pub(crate) fn publish(&self, position: Position, edge_tokens: Option<EdgeTokenIndex>) -> bool {
        let mut tokens_revision = self.tokens_revision.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.position();
        let is_new = position.epoch != known.epoch || position.revision > known.revision;
        if is_new || (position == known && edge_tokens.is_some()) {
            self.store(&mut tokens_revision, position, edge_tokens);
        }
        is_new
    }

    /// Publishes the present position even though a newer one was published before.
    pub(crate) fn replace(&self, position: Position, edge_tokens: EdgeTokenIndex) {
        let mut tokens_revision = self.tokens_revision.lock().unwrap_or_else(PoisonError::into_inner);
        self.store(&mut tokens_revision, position, Some(edge_tokens));
    }

    fn store(&self, tokens_revision: &mut Revision, position: Position, edge_tokens: Option<EdgeTokenIndex>) {
        // Tokens come first: a subscriber whose token was revoked gets no more data when the head wakes it.
        if let Some(tokens) = edge_tokens {
            self.edge_tokens.send_replace(Arc::new(tokens));
            *tokens_revision = position.revision;
        }
        self.head.send_if_modified(|head| {
            *head = position;
            false
        });
        debug!(revision = position.revision.0, "committed");
    }

    /// Wakes all subscribers of the head.
    pub(crate) fn wake(&self) {
        self.head.send_modify(|_| {});
    }
}

/// The result of a group.
struct GroupCommit {
    position: Position,
    changes: u64,
    /// `None`: unchanged.
    edge_tokens: Option<EdgeTokenIndex>,
}

pub(crate) enum Job {
    Change(Box<Work>),
    Close,
}

/// Runs in a savepoint, or gets the error that prevents it; returns the outcome.
pub(crate) type Work = dyn FnOnce(Result<&Write<'_>, StoreError>) -> WorkOutcome + Send;

pub(crate) struct WorkOutcome {
    /// False: the savepoint is rolled back.
    pub(crate) keep: bool,
    /// Called once the transaction's outcome is known.
    pub(crate) answer: Answer,
}

/// The writer thread. Ends when the queue is closed and empty.
pub(crate) fn run_writer(mut sql: WriteConnection, mut queue: mpsc::Receiver<Job>, publisher: &Publisher) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Change(work) => group.push(work),
                // No more changes are accepted; those that are in the queue are still received.
                Job::Close => queue.close(),
            }
            next = if group.len() < MAX_GROUP { queue.try_recv().ok() } else { None };
        }
        commit_group(&mut sql, group, publisher);
    }
}

pub(crate) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Runs the group in one transaction. Answers are sent last, when the outcome of all is known.
fn commit_group(sql: &mut WriteConnection, group: Vec<Box<Work>>, publisher: &Publisher) {
    if group.is_empty() {
        return;
    }
    let mut answers = Vec::with_capacity(group.len());
    let mut moved = false;
    let mut group = group.into_iter();
    let committed = run_group(sql, &mut group, &mut answers, publisher).map(|committed| {
        // Before the answers, so that a client that was answered finds the feed at that revision or above.
        moved = publisher.publish(committed.position, committed.edge_tokens);
        publisher.counters.changes.fetch_add(committed.changes, Ordering::Relaxed);
        publisher.counters.commits.fetch_add(1, Ordering::Relaxed);
    });
    if let Err(error) = &committed {
        answers.extend(group.map(|work| work(Err(error.clone())).answer));
        if let Err(cause) = sql.roll_back() {
            error!(%cause, "the store cannot roll back");
        }
    }
    for answer in answers {
        answer(committed.clone());
    }
    if moved {
        // Waiting edges are woken last: the answers would queue behind thousands of wake-ups. What records nothing (a
        // token's last use, a probe) wakes nobody.
        publisher.wake();
    }
}

/// If it fails, the work that wasn't run stays in `group`.
fn run_group(
    writing: &mut WriteConnection,
    group: &mut std::vec::IntoIter<Box<Work>>,
    answers: &mut Vec<Answer>,
    publisher: &Publisher,
) -> Result<GroupCommit, StoreError> {
    writing.begin()?;
    let sql = writing.sql()?;
    let before = super::changes::position(sql)?;
    if let Err(error) = writing.check_sole_writer() {
        // The feed still publishes what others have committed: it may be a revocation.
        if publisher.publish(before, Some(edge_token_index::load_index(sql)?)) {
            publisher.wake();
        }
        return Err(error);
    }
    // If another replica has committed, the tokens may have changed, too.
    let edge_tokens_differ = Cell::new(before != publisher.position());
    let mut changes = 0_u64;
    for work in group {
        sql.execute_batch("SAVEPOINT change")?;
        let done = work(Ok(&Write::new(sql, &edge_tokens_differ)));
        answers.push(done.answer);
        if writing.has_ended() {
            return Err(StoreError::Unavailable("the transaction was rolled back".to_owned()));
        }
        changes = changes.saturating_add(u64::from(done.keep));
        sql.execute_batch(if done.keep { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" })?;
    }
    let position = super::changes::position(sql)?;
    // Before COMMIT: if the tokens can't be read, the group fails, and those in memory are never older than the disk.
    let edge_tokens = edge_tokens_differ.get().then(|| edge_token_index::load_index(sql)).transpose()?;
    writing.commit(position != before)?;
    Ok(GroupCommit { position, changes, edge_tokens })
}
