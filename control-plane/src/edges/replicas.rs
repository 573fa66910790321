//! What concerns other replicas: what they report about an instance, and until when they may answer it.
//!
//! With SQLite there are no other replicas, and this costs nothing. See `docs/decisions/replicas.md`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use policy::{Epoch, Position, Revision};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::ended::LEAVING;
use super::{Bound, Edges, Known, Refused};
use crate::store::{Instance, InstanceRow, News, Renewed, Says, StoreError, Word};

/// The longest that one write lets a replica answer an instance.
const LONGEST: Duration = Duration::from_secs(30);

/// One write is valid for an instance's bound divided by this, if that is less than [`LONGEST`]. The others learn that
/// much later that the instance denies.
const BOUND_PART: u32 = 4;

/// Clocks may drift apart: such a time, divided by this, is subtracted for the replica that answers, and added for the
/// others.
const DRIFT_PART: u32 = 1_000;

/// How long a request that waits for an answer waits for the database.
const LOOK: Duration = Duration::from_secs(2);

/// The part of an instance's state that concerns other replicas.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    /// The number of its row's last change that is known here; 0 before there is one.
    pub(super) row: i64,
    /// Until when its requests may be answered here because of what was written; `None`: it must be written first.
    answers_until: Option<Duration>,
    /// Until when other replicas may answer it.
    pub(super) others_until: Duration,
    /// The revision that all of its workers have, as other replicas reported.
    pub(super) applied: Option<Revision>,
    /// What this replica last reported to the others about it.
    said: Option<(Epoch, Revision)>,
    /// It has ended, and some replica has notified it.
    pub(super) is_told: bool,
}

impl Edges {
    /// Whether a request that was received at `at` may be answered without a write. The row records who may answer, so
    /// that no replica counts an instance as silent while another one answers it.
    pub(super) fn may_answer(&self, known: &Known, at: Duration) -> bool {
        !self.store.is_shared() || known.shared.answers_until.is_some_and(|until| at <= until)
    }

    /// Reads the database if an instance isn't known here: other replicas may know it.
    pub(super) async fn look_for(&self, instance: &str) -> Result<(), Refused> {
        if self.store.is_shared() && !self.lock().contains_key(instance) {
            self.store.look().await?;
        }
        Ok(())
    }

    /// Writes an instance to the database, and takes over what others wrote there. From then on this replica may answer
    /// it for a while, with nothing older than what the others knew when they counted it as silent.
    pub(super) async fn renew(&self, id: &str, edge: &str, says: Option<Says>) -> Result<(), Refused> {
        // Not tried while the database doesn't answer: the instance should soon ask another replica.
        self.store.fresh()?;
        let began = self.clock.monotonic();
        let (known, of) = (Arc::clone(&self.known), id.to_owned());
        let current = move || {
            let all = known.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&of).map(|known| (known.instance.clone(), known.shared.row, known.version))
        };
        let (renewed, version) = self.store.renew_instance(says, current).await?.ok_or(Refused::Unknown)?;
        let Renewed { row, others_wrote, missing } = renewed;
        let news = {
            let mut all = self.lock();
            let known = all.get_mut(id).ok_or(Refused::Unknown)?;
            let now = self.clock.monotonic();
            let bound = row.instance.bound;
            if others_wrote {
                known.shared.others_until = known.shared.others_until.max(others_until(now, bound));
            }
            if row.instance.ended_at.is_none() {
                known.shared.answers_until = known.shared.answers_until.max(Some(answers_until(began, bound)));
            }
            known.saved = known.saved.max(version);
            let news = known.read(row, By::Me, now);
            known.admits(edge)?;
            news
        };
        if news == Some(Ended::Told) {
            tokio::spawn(self.clone().leave(id.to_owned()));
        }
        missing.map_or(Ok(()), |id| Err(Refused::MissingWorker(id)))
    }

    /// Records, once requests are no longer answered, that this replica answers no instance, so that the others, and
    /// the next start, needn't wait for it.
    pub async fn release(&self) {
        if !self.store.is_shared() {
            return;
        }
        let now = self.clock.monotonic();
        let release = |(id, known): (&String, &mut Known)| {
            known.shared.answers_until = None;
            // An instance that others may answer must not look as if nobody did.
            (!known.is_others(now)).then(|| id.clone())
        };
        let ids: Vec<_> = self.lock().iter_mut().filter_map(release).collect();
        // The store has logged a failure; the others wait then.
        let _ = self.store.release_instances(ids).await;
    }

    /// Records that an instance is being notified of its end. Other replicas wait for that.
    pub(crate) fn tells(&self, id: &str) {
        let is_news = self.lock().get(id).is_some_and(|known| known.is_leaving && !known.shared.is_told);
        if is_news && self.store.is_shared() {
            let (store, id) = (self.store.clone(), id.to_owned());
            // The store has logged a failure; the instance is notified again then.
            tokio::spawn(async move { store.note_told(id).await });
        }
    }

    /// Reports to the others which revision all workers of an instance have, if it changed.
    pub(super) fn tell_applied(&self, id: &str, epoch: Epoch) {
        if !self.store.is_shared() {
            return;
        }
        if let Some(known) = self.lock().get_mut(id)
            && let Some(revision) = known.applied.values().min().copied()
            && known.shared.said != Some((epoch, revision))
        {
            known.shared.said = Some((epoch, revision));
            self.store.say(Word::Applied { instance: id.to_owned(), epoch, revision });
        }
    }

    /// Checks that the instances in memory were read at an instant at which the revision was committed: then one that
    /// isn't known here, or counts as silent, gets nothing older from any replica.
    pub(crate) async fn knows_all_at(&self, revision: Revision) -> Result<(), StoreError> {
        if self.store.has_foreign_commits() {
            return Err(StoreError::Unavailable("another program has committed to the database".to_owned()));
        }
        let is_known = || !self.store.is_shared() || self.read_at.load(Ordering::SeqCst) >= revision.0;
        if is_known() {
            return Ok(());
        }
        let unknown = || StoreError::Unavailable("what other replicas know is not known here".to_owned());
        timeout(LOOK, self.store.look()).await.map_err(|_| unknown())??;
        if is_known() { Ok(()) } else { Err(unknown()) }
    }

    /// The handler of news from the database and other replicas.
    pub(super) fn ear(&self) -> impl Fn(News) -> Vec<Word> + Send + Sync + 'static {
        let (known, me) = (Arc::downgrade(&self.known), self.store.replica().unwrap_or_default().to_owned());
        let (clock, changed, read_at) = (self.clock.clone(), self.changed.clone(), Arc::clone(&self.read_at));
        let (head, runtime) = (self.store.head(), Handle::current());
        move |news| {
            // Weak, because the store holds this and we hold the store.
            let Some(known) = known.upgrade() else { return Vec::new() };
            let mut all = known.lock().unwrap_or_else(PoisonError::into_inner);
            let answers = match news {
                News::Looked { position, instances, is_whole, went_back } => {
                    let reads = if is_whole { Reads::All } else { Reads::Changes };
                    for id in read(&mut all, instances, reads, &me, clock.monotonic()) {
                        runtime.spawn(leave(Arc::clone(&known), changed.clone(), id));
                    }
                    if went_back {
                        // What was applied of the lost history proves nothing. Instances report again.
                        all.values_mut().for_each(Known::forget_applied);
                        read_at.store(position.revision.0, Ordering::SeqCst);
                    } else {
                        read_at.fetch_max(position.revision.0, Ordering::SeqCst);
                    }
                    let again = std::iter::once(Word::SayAgain).chain(said(&all));
                    if is_whole { again.collect() } else { Vec::new() }
                }
                News::Said(words) => {
                    let head = *head.borrow();
                    words.into_iter().flat_map(|word| hear(&mut all, word, head)).collect()
                }
            };
            drop(all);
            changed.send_replace(());
            answers
        }
    }
}

/// Processes another replica's message. Returns the messages to send.
fn hear(all: &mut HashMap<String, Known>, word: Word, head: Position) -> Vec<Word> {
    match word {
        // A report of another epoch, or of a revision that isn't known here, is ignored.
        Word::Applied { instance, epoch, revision } if epoch == head.epoch && revision <= head.revision => {
            if let Some(known) = all.get_mut(&instance) {
                known.shared.applied = known.shared.applied.max(Some(revision));
            }
            Vec::new()
        }
        Word::SayAgain => said(all).collect(),
        Word::Applied { .. } => Vec::new(),
    }
}

/// All that this replica last reported.
fn said(all: &HashMap<String, Known>) -> impl Iterator<Item = Word> {
    all.iter().filter_map(|(id, known)| {
        let (epoch, revision) = known.shared.said?;
        Some(Word::Applied { instance: id.clone(), epoch, revision })
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Changes,
    All,
}

/// Who wrote a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// This replica, or one that no longer answers.
    Me,
    Others,
}

/// What a row states about the end of an instance, if that wasn't known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was notified, and counts for a moment more.
    Told,
    /// It counts until it is notified.
    Untold,
}

/// Merges what was read from the database. Returns the instances that count for a moment more.
fn read(
    all: &mut HashMap<String, Known>,
    rows: Vec<InstanceRow>,
    reads: Reads,
    me: &str,
    now: Duration,
) -> Vec<String> {
    if reads == Reads::All {
        let found: HashMap<_, _> = rows.iter().map(|row| (row.instance.id.as_str(), row.changed)).collect();
        // This replica knows a later change, which was lost with a server: the instance is written again.
        for (id, known) in &mut *all {
            let found = found.get(id.as_str()).copied().unwrap_or_default();
            if found < known.shared.row {
                (known.shared.answers_until, known.shared.row) = (None, found);
                known.must_save();
            }
        }
    }
    let mut leaving = Vec::new();
    for row in rows {
        let id = row.instance.id.clone();
        let by = if row.is_by_another(me) { By::Others } else { By::Me };
        let known = all.entry(id.clone()).or_insert_with(|| {
            let living = Instance { ended_at: None, ..row.instance.clone() };
            Known::new(living, now, 0)
        });
        if known.read(row, by, now) == Some(Ended::Told) {
            leaving.push(id);
        }
    }
    leaving
}

/// How long one write lets a replica answer an instance.
fn one_write(bound: Bound) -> Duration {
    match bound {
        Bound::Secs(secs) => LONGEST.min(Duration::from_secs(secs) / BOUND_PART),
        Bound::Never => LONGEST,
    }
}

/// Until when the replica may answer that began to write at `began`.
fn answers_until(began: Duration, bound: Bound) -> Duration {
    let length = one_write(bound);
    began.saturating_add(length.saturating_sub(length / DRIFT_PART))
}

/// Until when others may answer whose write was read at `now`.
fn others_until(now: Duration, bound: Bound) -> Duration {
    let length = one_write(bound);
    now.saturating_add(length).saturating_add(length / DRIFT_PART)
}

/// Stops counting an instance that has ended, after [`LEAVING`].
async fn leave(known: Arc<Mutex<HashMap<String, Known>>>, changed: watch::Sender<()>, id: String) {
    sleep(LEAVING).await;
    if let Some(known) = known.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
        known.is_leaving = false;
    }
    changed.send_replace(());
}

impl Known {
    /// What it acknowledged.
    pub(super) fn says(&self, ended: &[String]) -> Says {
        let (workers, version) = (self.instance.workers.clone(), self.instance.version.clone());
        Says { workers, ended: ended.to_vec(), version }
    }

    /// Whether another replica may answer it.
    pub(super) fn is_others(&self, now: Duration) -> bool {
        now < self.shared.others_until
    }

    fn forget_applied(&mut self) {
        self.applied.clear();
        (self.shared.applied, self.shared.said) = (None, None);
    }

    /// Merges its row. An older row changes nothing.
    fn read(&mut self, row: InstanceRow, by: By, now: Duration) -> Option<Ended> {
        let InstanceRow { instance, changed, is_told, .. } = row;
        if changed < self.shared.row || (changed == self.shared.row && changed > 0) {
            return None;
        }
        self.shared.row = changed;
        if by == By::Others && instance.ended_at.is_none() {
            self.shared.others_until = self.shared.others_until.max(others_until(now, instance.bound));
        }
        let (was_living, was_told) = (self.instance.ended_at.is_none(), self.shared.is_told);
        let has_ended = instance.ended_at.is_some();
        // What still has to be written here stays.
        let (bound, ended_at) = (instance.bound.max(self.instance.bound), instance.ended_at.or(self.instance.ended_at));
        self.instance = Instance { bound, ended_at, ..instance };
        if !has_ended {
            return None;
        }
        self.shared.is_told = is_told;
        self.is_leaving |= was_living;
        self.gone.send_replace(true);
        match is_told {
            true if !was_told && self.is_leaving => Some(Ended::Told),
            true => None,
            false => Some(Ended::Untold),
        }
    }
}
