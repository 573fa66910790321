//! The thread that writes: it takes the changes that wait, commits them in one transaction, and then answers.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use policy::Position;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error};

use super::StoreError;
use super::changes::Change;
use super::edge_tokens::{self, LiveTokens};

/// The most changes in one transaction, so that the first of them doesn't wait for too many others.
const GROUP: usize = 256;

/// What is told after a COMMIT, and before the answers of its group.
pub(super) struct Publish {
    pub(super) head: watch::Sender<Position>,
    pub(super) edge_tokens: watch::Sender<Arc<LiveTokens>>,
    pub(super) counted: Arc<Counted>,
}

/// What the writer counts.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) changes: AtomicU64,
    pub(super) commits: AtomicU64,
    /// Changes that the storage couldn't take.
    pub(super) refused: AtomicU64,
    /// The last change was one of these.
    pub(super) is_refusing: AtomicBool,
}

/// What a group led to.
struct Committed {
    position: Position,
    changes: u64,
    /// `None`: as they were.
    edge_tokens: Option<LiveTokens>,
}

pub(super) enum Job {
    Change(Box<Work>),
    Close,
}

/// Runs in a savepoint; answers how it went.
pub(super) type Work = dyn FnOnce(&Change<'_>) -> Done + Send;

pub(super) struct Done {
    /// False: the savepoint is rolled back.
    pub(super) keep: bool,
    /// Called once the transaction's fate is known.
    pub(super) answer: Answer,
}

/// The writer thread. Ends when the queue is closed and empty.
pub(super) fn write(sql: &Connection, mut queue: mpsc::Receiver<Job>, publish: &Publish) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Change(work) => group.push(work),
                // No more get in; those that have a place in the queue are still received.
                Job::Close => queue.close(),
            }
            next = if group.len() < GROUP { queue.try_recv().ok() } else { None };
        }
        commit_group(sql, group, publish);
    }
}

pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// One transaction for all of the group. Answers go out last, when the fate of all is known.
fn commit_group(sql: &Connection, group: Vec<Box<Work>>, publish: &Publish) {
    if group.is_empty() {
        return;
    }
    let mut answers = Vec::with_capacity(group.len());
    let mut moved = false;
    let committed = run_group(sql, group, &mut answers).map(|committed| {
        // Tokens come first: who is woken by the head and was revoked gets nothing more.
        if let Some(tokens) = committed.edge_tokens {
            publish.edge_tokens.send_replace(Arc::new(tokens));
        }
        // There before the answers, so that whoever was answered finds the feed at that revision or above.
        publish.head.send_if_modified(|head| {
            moved = *head != committed.position;
            if moved {
                debug!(revision = committed.position.revision.0, "committed");
            }
            *head = committed.position;
            false
        });
        publish.counted.changes.fetch_add(committed.changes, Ordering::Relaxed);
        publish.counted.commits.fetch_add(1, Ordering::Relaxed);
        if moved {
            // What moves the head was written.
            publish.counted.is_refusing.store(false, Ordering::Relaxed);
        }
    });
    match &committed {
        Ok(()) => {}
        Err(_) if sql.is_autocommit() => {}
        Err(_) => {
            if let Err(cause) = sql.execute_batch("ROLLBACK") {
                error!(%cause, "the store cannot roll back");
            }
        }
    }
    for answer in answers {
        answer(committed.clone());
    }
    if moved {
        // Waiting edges are woken last: the answers would stand in the queue behind thousands of them. What records nothing
        // (a token's last use, a probe) wakes nobody.
        publish.head.send_modify(|_| {});
    }
}

/// Work that isn't run because of an error is dropped; that answers it, as unavailable.
fn run_group(sql: &Connection, group: Vec<Box<Work>>, answers: &mut Vec<Answer>) -> Result<Committed, StoreError> {
    sql.execute_batch("BEGIN IMMEDIATE")?;
    let edge_tokens_differ = Cell::new(false);
    let mut changes = 0_u64;
    for work in group {
        sql.execute_batch("SAVEPOINT change")?;
        let done = work(&Change::new(sql, &edge_tokens_differ));
        answers.push(done.answer);
        // SQLite ends the whole transaction by itself on some errors, such as a full disk.
        if sql.is_autocommit() {
            return Err(StoreError::Unavailable("the transaction was rolled back".to_owned()));
        }
        changes = changes.saturating_add(u64::from(done.keep));
        sql.execute_batch(if done.keep { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" })?;
    }
    let position = super::changes::position(sql)?;
    // Before COMMIT: a set that can't be read fails the group, and none in memory is older than the disk.
    let edge_tokens = edge_tokens_differ.get().then(|| edge_tokens::live(sql)).transpose()?;
    sql.execute_batch("COMMIT")?;
    Ok(Committed { position, changes, edge_tokens })
}
