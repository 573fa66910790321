//! The thread that writes: it takes the changes that wait, commits them in one transaction, and then answers.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use policy::{Position, Revision};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error};

use super::StoreError;
use super::changes::Change;
use super::connection::Writing;
use super::edge_tokens::{self, KnownTokens};

/// The most changes in one transaction, so that the first of them doesn't wait for too many others.
const GROUP: usize = 256;

/// What is published after a COMMIT, and before the answers of its group.
pub(super) struct Publish {
    head: watch::Sender<Position>,
    edge_tokens: watch::Sender<Arc<KnownTokens>>,
    counted: Arc<Counted>,
    /// The revision as of which the edge tokens were read. Locked while anything is published: in PostgreSQL, another
    /// thread publishes what other replicas commit, and the older of two must never come last.
    tokens_of: Mutex<Revision>,
}

/// The writer's counters.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) changes: AtomicU64,
    pub(super) commits: AtomicU64,
    /// Changes that the storage couldn't take.
    pub(super) refused: AtomicU64,
}

impl Publish {
    pub(super) fn new(
        head: watch::Sender<Position>,
        edge_tokens: watch::Sender<Arc<KnownTokens>>,
        counted: Arc<Counted>,
    ) -> Self {
        let tokens_of = Mutex::new(head.borrow().revision);
        Self { head, edge_tokens, counted, tokens_of }
    }

    pub(super) fn position(&self) -> Position {
        *self.head.borrow()
    }

    pub(super) fn tokens_of(&self) -> Revision {
        *self.tokens_of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what is committed, without waking anybody yet. `edge_tokens` is `None` if they are unchanged. Returns
    /// whether the position is new.
    pub(super) fn tell(&self, position: Position, edge_tokens: Option<KnownTokens>) -> bool {
        let mut tokens_of = self.tokens_of.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.position();
        let is_news = position.epoch != known.epoch || position.revision > known.revision;
        if is_news || (position == known && edge_tokens.is_some()) {
            self.put(&mut tokens_of, position, edge_tokens);
        }
        is_news
    }

    /// Publishes the present position even though a newer one was published before.
    pub(super) fn replace(&self, position: Position, edge_tokens: KnownTokens) {
        let mut tokens_of = self.tokens_of.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut tokens_of, position, Some(edge_tokens));
    }

    fn put(&self, tokens_of: &mut Revision, position: Position, edge_tokens: Option<KnownTokens>) {
        // Tokens come first: a subscriber whose token was revoked gets nothing more when the head wakes it.
        if let Some(tokens) = edge_tokens {
            self.edge_tokens.send_replace(Arc::new(tokens));
            *tokens_of = position.revision;
        }
        self.head.send_if_modified(|head| {
            *head = position;
            false
        });
        debug!(revision = position.revision.0, "committed");
    }

    /// Wakes all that wait for the head.
    pub(super) fn wake(&self) {
        self.head.send_modify(|_| {});
    }
}

/// The result of a group.
struct Committed {
    position: Position,
    changes: u64,
    /// `None`: unchanged.
    edge_tokens: Option<KnownTokens>,
}

pub(super) enum Job {
    Change(Box<Work>),
    Close,
}

/// Runs in a savepoint, or gets the error that prevents it; returns the outcome.
pub(super) type Work = dyn FnOnce(Result<&Change<'_>, StoreError>) -> Done + Send;

pub(super) struct Done {
    /// False: the savepoint is rolled back.
    pub(super) keep: bool,
    /// Called once the transaction's outcome is known.
    pub(super) answer: Answer,
}

/// The writer thread. Ends when the queue is closed and empty.
pub(super) fn write(mut sql: Writing, mut queue: mpsc::Receiver<Job>, publish: &Publish) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Change(work) => group.push(work),
                // No more are accepted; those that have a place in the queue are still received.
                Job::Close => queue.close(),
            }
            next = if group.len() < GROUP { queue.try_recv().ok() } else { None };
        }
        commit_group(&mut sql, group, publish);
    }
}

pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Runs the group in one transaction. Answers are sent last, when the outcome of all is known.
fn commit_group(sql: &mut Writing, group: Vec<Box<Work>>, publish: &Publish) {
    if group.is_empty() {
        return;
    }
    let mut answers = Vec::with_capacity(group.len());
    let mut moved = false;
    let mut group = group.into_iter();
    let committed = run_group(sql, &mut group, &mut answers, publish).map(|committed| {
        // Before the answers, so that a client that was answered finds the feed at that revision or above.
        moved = publish.tell(committed.position, committed.edge_tokens);
        publish.counted.changes.fetch_add(committed.changes, Ordering::Relaxed);
        publish.counted.commits.fetch_add(1, Ordering::Relaxed);
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
        publish.wake();
    }
}

/// Work that isn't run because of an error stays in `group`.
fn run_group(
    writing: &mut Writing,
    group: &mut std::vec::IntoIter<Box<Work>>,
    answers: &mut Vec<Answer>,
    publish: &Publish,
) -> Result<Committed, StoreError> {
    writing.begin()?;
    let sql = writing.sql()?;
    let before = super::changes::position(sql)?;
    if let Err(error) = writing.is_sole() {
        // The feed still publishes what others have committed: it may be a revocation.
        if publish.tell(before, Some(edge_tokens::known(sql)?)) {
            publish.wake();
        }
        return Err(error);
    }
    // If another replica has committed, the tokens may have changed, too.
    let edge_tokens_differ = Cell::new(before != publish.position());
    let mut changes = 0_u64;
    for work in group {
        sql.execute_batch("SAVEPOINT change")?;
        let done = work(Ok(&Change::new(sql, &edge_tokens_differ)));
        answers.push(done.answer);
        if writing.has_ended() {
            return Err(StoreError::Unavailable("the transaction was rolled back".to_owned()));
        }
        changes = changes.saturating_add(u64::from(done.keep));
        sql.execute_batch(if done.keep { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" })?;
    }
    let position = super::changes::position(sql)?;
    // Before COMMIT: if the tokens can't be read, the group fails, and those in memory are never older than the disk.
    let edge_tokens = edge_tokens_differ.get().then(|| edge_tokens::known(sql)).transpose()?;
    writing.commit(position != before)?;
    Ok(Committed { position, changes, edge_tokens })
}
