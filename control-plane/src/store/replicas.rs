//! Several control planes over one database: what they look for in it, and what they say to each other.
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

/// How long after a look at the database was begun its answer vouches for the head.
const FRESH: Duration = Duration::from_secs(3);

/// Less than the number of any row.
pub(super) const NOTHING_READ: i64 = -1;

/// Addresses of which others can be told at once that wrong tokens came from them.
const MAX_ADDRESSES: usize = 100_000;

/// What one replica says to the others. What is lost makes them know it later, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Each worker of this instance has applied a revision.
    Applied { instance: String, epoch: Epoch, revision: Revision },
    /// Whoever hears this says again what it knows.
    SayAgain,
}

/// What a replica heard from the database.
pub(crate) enum News {
    /// What was found there by one look. Rows are what changed since the look before; all of them when `is_whole`.
    Looked { position: Position, instances: Vec<InstanceRow>, is_whole: bool, went_back: bool },
    /// What others said.
    Said(Vec<Word>),
}

/// Takes news; answers with what is to be said.
type Ear = Box<dyn Fn(News) -> Vec<Word> + Send + Sync>;

/// Takes the wrong tokens that others counted: addresses, each with a number.
type Warned = Box<dyn Fn(Vec<(IpAddr, u32)>) + Send + Sync>;

/// The wrong tokens that were counted here, by address, and that the others weren't told of yet.
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
    /// Names it in what it writes and says.
    pub(super) id: String,
    /// When the last look that succeeded was begun.
    looked_at: Mutex<Option<Instant>>,
    /// The newest number of an instance's change that was read.
    read_to: AtomicI64,
    ear: OnceLock<Ear>,
    warned: OnceLock<Warned>,
    pub(super) untold: Arc<Untold>,
    /// `None` once the store is closed.
    mouth: Mutex<Option<Sender<Word>>>,
}

impl Replica {
    /// A replica, and the other end of its mouth.
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

    /// Takes what a look brought that was begun at `began`.
    pub(super) fn looked(&self, began: Instant, news: News) {
        if let News::Looked { instances, is_whole, .. } = &news {
            let newest = instances.iter().map(|row| row.changed).max().unwrap_or(NOTHING_READ);
            // Without an ear it would be lost.
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

    /// Hands news on.
    pub(super) fn hear(&self, news: News) {
        let answers = self.ear.get().map(|ear| ear(news)).unwrap_or_default();
        answers.into_iter().for_each(|word| self.say(word));
    }

    /// Hands on what others counted.
    pub(super) fn warn(&self, guesses: Vec<(IpAddr, u32)>) {
        if let Some(warned) = self.warned.get() {
            warned(guesses);
        }
    }

    pub(super) fn say(&self, word: Word) {
        if let Some(mouth) = &*self.mouth.lock().unwrap_or_else(PoisonError::into_inner) {
            // Fails when nobody can hear it any more.
            let _ = mouth.send(word);
        }
    }

    /// Says nothing any more.
    pub(super) fn end(&self) {
        drop(self.mouth.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Store {
    /// Whether other replicas may use the same database.
    pub(crate) fn is_shared(&self) -> bool {
        self.engine.replica().is_some()
    }

    /// Names this replica. `None` where there are no others.
    pub(crate) fn replica(&self) -> Option<&str> {
        self.engine.replica().map(|replica| replica.id.as_str())
    }

    /// For how long the head in memory may be told as the newest; `None`: always, for nobody else writes.
    pub(crate) fn fresh_for(&self) -> Option<Duration> {
        let looked_at = self.engine.replica()?.looked_at();
        Some(looked_at.map(|at| FRESH.saturating_sub(at.elapsed())).unwrap_or_default())
    }

    /// That the head in memory may be told as the newest.
    pub(crate) fn fresh(&self) -> Result<(), StoreError> {
        match self.fresh_for() {
            Some(Duration::ZERO) => Err(StoreError::Unavailable(
                "PostgreSQL has not answered for some seconds, so nothing is said of what is newest".to_owned(),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Looks at what others have committed: what was committed before this is known when it returns. Those that ask at once
    /// share one look. Where nobody else writes it costs nothing.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        self.engine.look().await
    }

    /// The newest revision that is known; looked for first where `revision` is above it, for another replica may have answered a
    /// change with it. `None`: whichever is the newest.
    pub(crate) async fn newest(&self, revision: Option<Revision>) -> Result<Revision, StoreError> {
        let known = || self.head().borrow().revision;
        if revision.is_none_or(|revision| revision > known()) {
            self.look().await?;
        }
        Ok(known())
    }

    /// Has `ear` take what is heard of others from now on, beginning with all that is there.
    pub(crate) async fn listen(
        &self,
        ear: impl Fn(News) -> Vec<Word> + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let Some(replica) = self.engine.replica() else { return Ok(()) };
        // A second ear hears nothing.
        let _ = replica.ear.set(Box::new(ear));
        self.engine.look_at_all().await
    }

    /// Has `warned` take the wrong tokens that others count, by address.
    pub(crate) fn hear_of_guesses(&self, warned: impl Fn(Vec<(IpAddr, u32)>) + Send + Sync + 'static) {
        if let Some(replica) = self.engine.replica() {
            // A second one hears nothing.
            let _ = replica.warned.set(Box::new(warned));
        }
    }

    /// Tells the others of a wrong token, with more of them, within a tenth of a second. Costs no write.
    pub(crate) fn tell_guess(&self, of: IpAddr) {
        if let Some(replica) = self.engine.replica() {
            replica.untold.add(of);
        }
    }

    /// Says something to the other replicas.
    pub(crate) fn say(&self, word: Word) {
        if let Some(replica) = self.engine.replica() {
            replica.say(word);
        }
    }
}
