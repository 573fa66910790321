//! Whether this control plane is alone over its database, or one of several replicas.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use policy::Epoch;
use tokio::sync::Mutex as AsyncMutex;

use super::follow::{Follower, ReplicaLink};
use super::messages::start_sender;
use super::{Replica, ReplicaMessage};
use crate::store::db::postgres::Server;
use crate::store::history::writer::Publisher;

/// How the database is used. Whatever depends on it matches on this type.
pub(crate) enum Deployment {
    /// By this control plane alone: the database is a file, which is locked.
    Single,
    /// By any number of replicas: the database is on a server.
    Replicated(Replication),
}

impl Deployment {
    pub(crate) fn is_replicated(&self) -> bool {
        matches!(self, Self::Replicated(_))
    }
}

/// This replica's connection to the others: what it reads from them, and what it sends to them.
pub(crate) struct Replication {
    pub(in crate::store) link: Arc<ReplicaLink>,
    /// Held during a read of what other replicas committed.
    pub(in crate::store) refresh_turn: AsyncMutex<()>,
    follower: Mutex<Option<Follower>>,
    message_sender: Mutex<Option<JoinHandle<()>>>,
}

impl Replication {
    /// Starts to follow the other replicas and to send them messages. `id` is this replica's, new at each start.
    pub(in crate::store) fn start(
        server: &Arc<Server>,
        publisher: &Arc<Publisher>,
        id: Epoch,
    ) -> std::io::Result<Self> {
        let (replica, messages) = Replica::new(id.to_string());
        let pending = Arc::clone(&replica.pending_auth_failures);
        let message_sender = start_sender(Arc::clone(server), id.to_string(), messages, pending)?;
        let link = Arc::new(ReplicaLink { publisher: Arc::clone(publisher), replica });
        let follower = Follower::start(Arc::clone(server), Arc::clone(&link))?;
        Ok(Self {
            link,
            refresh_turn: AsyncMutex::default(),
            follower: Mutex::new(Some(follower)),
            message_sender: Mutex::new(Some(message_sender)),
        })
    }

    /// This replica's id.
    pub(crate) fn id(&self) -> &str {
        &self.replica().id
    }

    /// Sends a message to the other replicas.
    pub(crate) fn send(&self, message: ReplicaMessage) {
        self.replica().send(message);
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.link.replica
    }

    /// Makes both threads end; returns those that haven't been returned before, so that the caller can wait for them.
    pub(in crate::store) fn end(&self) -> Vec<JoinHandle<()>> {
        self.replica().end();
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take().and_then(Follower::end);
        let message_sender = self.message_sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        follower.into_iter().chain(message_sender).collect()
    }
}
