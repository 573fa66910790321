//! Several control planes on one database: what they read from it, and the messages between them.
//!
//! See `docs/decisions/replicas.md`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use policy::{Epoch, Position, Revision};

use super::instances::InstanceRow;
use super::{Store, StoreError};

/// For how long a read of the database, counted from its start, confirms the head in memory as the newest.
const FRESH: Duration = Duration::from_secs(3);

/// Less than the number of any row.
pub(super) const NOTHING_READ: i64 = -1;

/// The most addresses in one report of wrong tokens.
const MAX_ADDRESSES: usize = 100_000;

/// A message from one replica to the others. If it is lost, they learn of it later, and nothing else happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Each worker of this instance has applied a revision.
    Applied { instance: String, epoch: Epoch, revision: Revision },
    /// Asks each receiver to repeat all that it knows.
    SayAgain,
}

/// What a replica learns from the database.
pub(crate) enum News {
    /// The result of one read. `instances` are the rows changed since the read before, or all of them if `is_whole`.
    Looked { position: Position, instances: Vec<InstanceRow>, is_whole: bool, went_back: bool },
    /// Messages of other replicas.
    Said(Vec<Word>),
}

/// Receives news; returns messages to send.
type Ear = Box<dyn Fn(News) -> Vec<Word> + Send + Sync>;

/// Receives the wrong tokens that others counted: addresses, each with a number.
type Warned = Box<dyn Fn(Vec<(IpAddr, u32)>) + Send + Sync>;

/// Wrong tokens that were counted here, by address, and are not yet reported to the others.
#[derive(Default)]
pub(super) struct Untold(Mutex<HashMap<IpAddr, u32>>);

impl Untold {
    fn add(&self, of: IpAddr) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_ADDRESSES || all.contains_key(&of) {
            let number = all.entry(of).or_default();
            *number = number.saturating_add(1);
        }
    }

    pub(super) fn take(&self) -> HashMap<IpAddr, u32> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// This replica among the others.
pub(super) struct Replica {
    /// Identifies it in its writes and messages.
    pub(super) id: String,
    /// When the last successful read began.
    looked_at: Mutex<Option<Instant>>,
    /// The number of the newest change of an instance that was read.
    read_to: AtomicI64,
    ear: OnceLock<Ear>,
    warned: OnceLock<Warned>,
    pub(super) untold: Arc<Untold>,
    /// `None` once the store is closed.
    mouth: Mutex<Option<Sender<Word>>>,
}

impl Replica {
    /// A replica, and the receiver of the messages that it sends.
    pub(super) fn new(id: String) -> (Arc<Self>, Receiver<Word>) {
        let (mouth, words) = channel();
        let replica = Self {
            id,
            looked_at: Mutex::default(),
            read_to: AtomicI64::new(NOTHING_READ),
            ear: OnceLock::new(),
            warned: OnceLock::new(),
            untold: Arc::default(),
            mouth: Mutex::new(Some(mouth)),
        };
        (Arc::new(replica), words)
    }

    pub(super) fn read_to(&self) -> i64 {
        self.read_to.load(Ordering::SeqCst)
    }

    pub(super) fn looked_at(&self) -> Option<Instant> {
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the result of a read that began at `began`.
    pub(super) fn looked(&self, began: Instant, news: News) {
        if let News::Looked { instances, is_whole, .. } = &news {
            let newest = instances.iter().map(|row| row.changed).max().unwrap_or(NOTHING_READ);
            // Without a listener the rows are lost, so they must be read again.
            match (self.ear.get(), is_whole) {
                (None, _) => {}
                (Some(_), true) => self.read_to.store(newest, Ordering::SeqCst),
                (Some(_), false) => drop(self.read_to.fetch_max(newest, Ordering::SeqCst)),
            }
        }
        self.hear(news);
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        *looked_at = (*looked_at).max(Some(began));
    }

    /// Passes news to the listener, and sends its answers.
    pub(super) fn hear(&self, news: News) {
        let answers = self.ear.get().map(|ear| ear(news)).unwrap_or_default();
        answers.into_iter().for_each(|word| self.say(word));
    }

    /// Passes on what others counted.
    pub(super) fn warn(&self, guesses: Vec<(IpAddr, u32)>) {
        if let Some(warned) = self.warned.get() {
            warned(guesses);
        }
    }

    pub(super) fn say(&self, word: Word) {
        if let Some(mouth) = &*self.mouth.lock().unwrap_or_else(PoisonError::into_inner) {
            // Fails if the thread that sends has ended.
            let _ = mouth.send(word);
        }
    }

    /// Stops sending messages.
    pub(super) fn end(&self) {
        drop(self.mouth.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Store {
    /// Whether other replicas may use the same database.
    pub(crate) fn is_shared(&self) -> bool {
        self.engine.replica().is_some()
    }

    /// This replica's id; `None` if there are no others.
    pub(crate) fn replica(&self) -> Option<&str> {
        self.engine.replica().map(|replica| replica.id.as_str())
    }

    /// For how long the head in memory may be reported as the newest; `None`: always, because nobody else writes.
    pub(crate) fn fresh_for(&self) -> Option<Duration> {
        let looked_at = self.engine.replica()?.looked_at();
        Some(looked_at.map(|at| FRESH.saturating_sub(at.elapsed())).unwrap_or_default())
    }

    /// Checks that the head in memory may be reported as the newest.
    pub(crate) fn fresh(&self) -> Result<(), StoreError> {
        match self.fresh_for() {
            Some(Duration::ZERO) => Err(StoreError::Unavailable(
                "PostgreSQL has not answered for some seconds, so nothing is said of what is newest".to_owned(),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads what other replicas have committed: all that was committed before the call is known when it returns.
    /// Concurrent calls share one read. Costs nothing where nobody else writes.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        self.engine.look().await
    }

    /// The newest known revision. Reads the database first if `revision` is above it, because another replica may have
    /// answered a change with it, or if `revision` is `None`.
    pub(crate) async fn newest(&self, revision: Option<Revision>) -> Result<Revision, StoreError> {
        let known = || self.head().borrow().revision;
        if revision.is_none_or(|revision| revision > known()) {
            self.look().await?;
        }
        Ok(known())
    }

    /// Registers the listener for news of other replicas, from now on and beginning with the present state.
    pub(crate) async fn listen(
        &self,
        ear: impl Fn(News) -> Vec<Word> + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let Some(replica) = self.engine.replica() else { return Ok(()) };
        // A second listener is ignored.
        let _ = replica.ear.set(Box::new(ear));
        self.engine.look_at_all().await
    }

    /// Registers `warned` for the wrong tokens that others count, by address.
    pub(crate) fn hear_of_guesses(&self, warned: impl Fn(Vec<(IpAddr, u32)>) + Send + Sync + 'static) {
        if let Some(replica) = self.engine.replica() {
            // A second one is ignored.
            let _ = replica.warned.set(Box::new(warned));
        }
    }

    /// Reports a wrong token to the others within a tenth of a second, in a batch. Costs no write.
    pub(crate) fn tell_guess(&self, of: IpAddr) {
        if let Some(replica) = self.engine.replica() {
            replica.untold.add(of);
        }
    }

    /// Sends a message to the other replicas.
    pub(crate) fn say(&self, word: Word) {
        if let Some(replica) = self.engine.replica() {
            replica.say(word);
        }
    }
}
