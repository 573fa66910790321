//! Several control planes on one database: what they read from it, and the messages between them.
//!
//! See `docs/decisions/replicas.md`.

pub(super) mod deployment;
pub(super) mod follow;
pub(super) mod messages;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use policy::{Epoch, Position, Revision};

use self::deployment::{Deployment, Replication};
use super::{Store, StoreError};
use crate::store::records::instances::InstanceRow;

/// For how long a read of the database, counted from its start, confirms the head in memory as the newest.
const FRESHNESS: Duration = Duration::from_secs(3);

/// Below the change number of every row.
pub(super) const NOTHING_READ: i64 = -1;

/// The most addresses in one report of wrong tokens.
const MAX_ADDRESSES: usize = 100_000;

/// A message from one replica to the others. If it is lost, they read the same facts from the database later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaMessage {
    /// Each worker of this instance has applied a revision.
    Applied { instance: String, epoch: Epoch, revision: Revision },
    /// Asks each receiver to send its `Applied` messages again.
    ResendRequest,
}

/// What a replica learns from the database, or from the others.
pub(crate) enum ReplicaEvent {
    /// The result of one read. `instances` are the rows changed since the read before, or all of them if `is_whole`.
    StateRead { position: Position, instances: Vec<InstanceRow>, is_whole: bool, went_back: bool },
    /// Messages of other replicas.
    Messages(Vec<ReplicaMessage>),
}

/// Receives events; returns messages to send.
type ReplicaSubscriber = Box<dyn Fn(ReplicaEvent) -> Vec<ReplicaMessage> + Send + Sync>;

/// Receives the wrong tokens that other replicas counted: addresses, each with a number.
type AuthFailureSubscriber = Box<dyn Fn(Vec<(IpAddr, u32)>) + Send + Sync>;

/// Wrong tokens that this replica counted, by address, and hasn't reported to the others yet.
#[derive(Default)]
pub(super) struct PendingAuthFailures(Mutex<HashMap<IpAddr, u32>>);

impl PendingAuthFailures {
    fn add(&self, address: IpAddr) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_ADDRESSES || all.contains_key(&address) {
            let number = all.entry(address).or_default();
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
    refreshed_at: Mutex<Option<Instant>>,
    /// The number of the newest change of an instance that was read.
    read_to: AtomicI64,
    subscriber: OnceLock<ReplicaSubscriber>,
    on_auth_failures: OnceLock<AuthFailureSubscriber>,
    pub(super) pending_auth_failures: Arc<PendingAuthFailures>,
    /// `None` once the store is closed.
    outbox: Mutex<Option<Sender<ReplicaMessage>>>,
}

impl Replica {
    /// A replica, and the receiver of the messages that it sends.
    pub(super) fn new(id: String) -> (Arc<Self>, Receiver<ReplicaMessage>) {
        let (outbox, messages) = channel();
        let replica = Self {
            id,
            refreshed_at: Mutex::default(),
            read_to: AtomicI64::new(NOTHING_READ),
            subscriber: OnceLock::new(),
            on_auth_failures: OnceLock::new(),
            pending_auth_failures: Arc::default(),
            outbox: Mutex::new(Some(outbox)),
        };
        (Arc::new(replica), messages)
    }

    pub(super) fn read_to(&self) -> i64 {
        self.read_to.load(Ordering::SeqCst)
    }

    pub(super) fn refreshed_at(&self) -> Option<Instant> {
        *self.refreshed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the result of a read that began at `began`, and passes it to the subscriber.
    pub(super) fn record_refresh(&self, began: Instant, event: ReplicaEvent) {
        if let ReplicaEvent::StateRead { instances, is_whole, .. } = &event {
            let newest = instances.iter().map(|row| row.changed).max().unwrap_or(NOTHING_READ);
            // Without a subscriber the rows are lost, so they must be read again.
            match (self.subscriber.get(), is_whole) {
                (None, _) => {}
                (Some(_), true) => self.read_to.store(newest, Ordering::SeqCst),
                (Some(_), false) => drop(self.read_to.fetch_max(newest, Ordering::SeqCst)),
            }
        }
        self.notify(event);
        let mut refreshed_at = self.refreshed_at.lock().unwrap_or_else(PoisonError::into_inner);
        *refreshed_at = (*refreshed_at).max(Some(began));
    }

    /// Passes an event to the subscriber, and sends the messages that it returns.
    pub(super) fn notify(&self, event: ReplicaEvent) {
        let answers = self.subscriber.get().map(|subscriber| subscriber(event)).unwrap_or_default();
        answers.into_iter().for_each(|message| self.send(message));
    }

    /// Passes on the wrong tokens that other replicas counted.
    pub(super) fn notify_auth_failures(&self, failures: Vec<(IpAddr, u32)>) {
        if let Some(on_auth_failures) = self.on_auth_failures.get() {
            on_auth_failures(failures);
        }
    }

    pub(super) fn send(&self, message: ReplicaMessage) {
        if let Some(outbox) = &*self.outbox.lock().unwrap_or_else(PoisonError::into_inner) {
            // Fails if the thread that sends has ended.
            let _ = outbox.send(message);
        }
    }

    /// Stops sending messages.
    pub(super) fn end(&self) {
        drop(self.outbox.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Store {
    /// Whether this control plane is alone over its database, or one of several replicas.
    pub(crate) fn deployment(&self) -> &Deployment {
        self.engine.deployment()
    }

    /// For how long the head in memory may be reported as the newest; `None`: always, because nobody else writes.
    pub(crate) fn fresh_for(&self) -> Option<Duration> {
        match self.deployment() {
            Deployment::Single => None,
            Deployment::Replicated(replication) => {
                let refreshed_at = replication.replica().refreshed_at();
                Some(refreshed_at.map(|at| FRESHNESS.saturating_sub(at.elapsed())).unwrap_or_default())
            }
        }
    }

    /// Checks that the head in memory may be reported as the newest.
    pub(crate) fn check_freshness(&self) -> Result<(), StoreError> {
        match self.fresh_for() {
            Some(Duration::ZERO) => Err(StoreError::Unavailable(
                "PostgreSQL has not answered for some seconds, so the newest revision is unknown".to_owned(),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads what other replicas have committed: all that was committed before the call is known when it returns.
    /// Concurrent calls share one read. Costs nothing where nobody else writes.
    pub(crate) async fn refresh(&self) -> Result<(), StoreError> {
        self.engine.refresh().await
    }

    /// The newest known revision. Reads the database first if `revision` is above it, because another replica may have
    /// answered a change with it, or if `revision` is `None`.
    pub(crate) async fn newest(&self, revision: Option<Revision>) -> Result<Revision, StoreError> {
        let known = || self.head().borrow().revision;
        if revision.is_none_or(|revision| revision > known()) {
            self.refresh().await?;
        }
        Ok(known())
    }

    /// Registers the subscriber for events of other replicas. It gets the present state first.
    pub(crate) async fn subscribe_replicas(
        &self,
        replication: &Replication,
        subscriber: impl Fn(ReplicaEvent) -> Vec<ReplicaMessage> + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        // A second subscriber is ignored.
        let _ = replication.replica().subscriber.set(Box::new(subscriber));
        self.engine.refresh_all(replication).await
    }

    /// Registers `on_auth_failures` for the wrong tokens that other replicas count, by address.
    pub(crate) fn subscribe_auth_failures(
        &self,
        on_auth_failures: impl Fn(Vec<(IpAddr, u32)>) + Send + Sync + 'static,
    ) {
        if let Deployment::Replicated(replication) = self.deployment() {
            // A second one is ignored.
            let _ = replication.replica().on_auth_failures.set(Box::new(on_auth_failures));
        }
    }

    /// Reports a wrong token to the other replicas within a tenth of a second, in a batch. Costs no write.
    pub(crate) fn report_auth_failure(&self, address: IpAddr) {
        if let Deployment::Replicated(replication) = self.deployment() {
            replication.replica().pending_auth_failures.add(address);
        }
    }
}
