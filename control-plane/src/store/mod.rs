//! The store: its types, its errors, and the handle that all callers use.
//!
//! Each kind of object has a file with its functions and their SQL. A change goes through [`Store::change`], and is
//! on disk when that returns; see `docs/decisions/store.md`.

mod db;
mod engine;
mod history;
mod model;
mod records;
mod replicas;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use policy::{Epoch, Position, Revision, WorkspaceId};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

pub use self::db::database::Database;
pub use self::db::file_watch::Unwritable;
pub use self::db::lock::OpenError;
pub use self::history::audit::{AuditEvent, AuditEventJson, AuditHead};
pub use self::history::audit_list::{AuditActor, AuditFilter, AuditQuery, Order};
pub use self::history::audit_verify::{VerifiedLog, VerifyError, verify_audit};
pub use self::history::edge_token_index::{LiveToken, RevokedToken};
pub use self::history::feed::ChangesSince;
pub use self::history::once::{OnceGuard, OnceKey, OnceResult};
pub use self::records::admin_tokens::{AdminToken, NewAdminToken};
pub use self::records::edge_tokens::{EdgeToken, NewEdgeToken};
pub use self::records::identify::{DigestOwner, SecretRecord, SecretStatus};
pub use self::records::import::{Import, ImportedKey};
pub(crate) use self::records::instances::{AcknowledgedState, InstanceRemoval, InstanceRow, RenewalResult};
pub use self::records::instances::{Instance, Worker};
pub use self::records::keys::NewKey;
pub use self::records::list::{KeyQuery, Page, Sort, WorkspaceQuery};
pub use self::records::matching::{CleanUpAction, KeyFilter, KeyMatches, MatchingKey};
pub use self::records::roles::{MayMake, Role, RoleName};
pub use self::records::secrets::{NewSecret, Rotation};
pub use self::records::sessions::{SESSION_SECS, Session};
pub use self::records::tokens::TokenQuery;
pub use self::records::usage::{KeyUse, Period, Usage};
pub(crate) use self::records::usage_delta::{ALLOWED, BatchName, DAY_SECS, Denial, KeyDelta};
pub(crate) use self::records::usage_rounds::{BatchAdmission, SlicePosition};
pub use self::records::workspaces::NewWorkspace;
pub use self::upkeep::backup::{BackupError, BackupSummary, back_up};
pub use self::upkeep::copy::{CopyError, CopyStep, CopySummary, TableDigest, TableSummary, copy};
pub use self::upkeep::restore::{
    LogError, LostChanges, ReplaySummary, Restore, RestoreError, RestorePlan, RestoreSummary, restore, restore_in_place,
};
#[cfg(test)]
pub(crate) use model::merge;
pub use model::{
    Actor, ActorKind, AtRevision, ChangeContext, Key, KeyPatch, Metadata, Precondition, Status, TOKEN_FILE_ID,
    TOKEN_FILE_NAME, Workspace, WorkspaceName,
};
pub(crate) use replicas::deployment::{Deployment, Replication};
pub(crate) use replicas::{ReplicaEvent, ReplicaMessage};

use self::history::{changes, id_catalogue, once, retention};
use self::records::import;
use crate::base::config::{Config, Limits};
use crate::base::limit::Limit;

/// The most bytes of a key's metadata, as JSON without spaces.
pub const MAX_METADATA_BYTES: usize = 4096;

/// How long a rotated-out digest stays at the edges, to answer `rotated-key`.
pub const ROTATED_AT_EDGE_SECS: i64 = 30 * 86_400;

/// The most rotated-out digests of a key that stay at the edges: the newest.
pub const ROTATED_AT_EDGE: i64 = 8;

/// How long the database keeps digests of deleted keys and revoked tokens, so that a leaked secret can be identified.
pub const DELETED_KEPT_SECS: i64 = 365 * 86_400;

/// How often [`Store::watch`] checks that the file still accepts changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the store refuses a request, or can't serve it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("not found")]
    NotFound,
    #[error("the slug is taken")]
    SlugTaken,
    #[error("the secret's digest is known already")]
    SecretTaken,
    /// Lines of an import with known digests: of a key in the workspace, or of a token (`None`). Nothing was imported.
    #[error("{} digests are known already", lines.len())]
    DigestsTaken { lines: Vec<(usize, Option<WorkspaceId>)> },
    /// A change that is made only once was made before.
    #[error("the change was made before")]
    AlreadyMade,
    #[error("a request with the same idempotency key is running")]
    InProgress,
    #[error("the key has expired")]
    ExpiredKey,
    #[error("it is at revision {current} now")]
    Stale { current: Revision },
    /// The workspace would exceed one of its limits. Nothing was changed.
    #[error("`{}` of {} is reached", .0.name, .0.maximum)]
    LimitReached(Limit),
    #[error("the metadata would have {bytes} bytes, above {MAX_METADATA_BYTES}")]
    MetadataTooLarge { bytes: usize },
    /// The disk, the file, the server or the process can't serve now. Nothing was changed; but if the connection to
    /// PostgreSQL was lost at a commit, and the outcome can't be queried either, it is unknown.
    #[error("the storage is unavailable: {0}")]
    Unavailable(String),
    /// The file must not be written to any more. Nothing was changed.
    #[error(transparent)]
    Unwritable(Unwritable),
    /// The data that was read is damaged: a page of the file, or a part of PostgreSQL's. Nothing was changed.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A bug in Latchkey, or a file with impossible contents. Nothing was changed.
    #[error("the store is at fault: {0}")]
    Fault(String),
}

/// Counters since the store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStats {
    pub revision: Revision,
    /// Changes that were committed, including those that recorded nothing.
    pub changes: u64,
    /// Transactions that were committed.
    pub commits: u64,
    /// Changes that the storage refused.
    pub refused: u64,
    /// Changes in the writer's queue.
    pub queued: u64,
}

/// The state, in a file or in PostgreSQL. Clones share it.
#[derive(Clone)]
pub struct Store {
    engine: Arc<engine::Engine>,
    catalogue: Arc<id_catalogue::IdCatalogue>,
    limits: Limits,
    retention: Arc<retention::Retention>,
    /// Held while an import is checked, decided and carried out.
    import_lock: Arc<AsyncMutex<()>>,
    /// Requests with an idempotency key that are in flight in this process.
    in_progress: once::RequestsInProgress,
}

impl Store {
    /// Opens the database, creates its file if there is none, and migrates it to this version's schema. Only one
    /// process at a time may have a file open. A new database gets `epoch`; an existing one has its own. Scopes and
    /// environments that are new in `config` become a change.
    pub async fn open(
        database: impl Into<Database>,
        epoch: Epoch,
        config: &Config,
        context: ChangeContext,
    ) -> Result<Self, OpenError> {
        let database = database.into();
        let failed = |error: StoreError| OpenError::Failed(error.to_string());
        let (limits, config) = (config.limits, config.clone());
        let engine = tokio::task::spawn_blocking(move || engine::Engine::open(&database, epoch));
        let engine = engine.await.map_err(|error| OpenError::Failed(error.to_string()))??;
        let begin = move |write: &changes::Write<'_>| {
            // First, so that the newest change in the history isn't one of this start.
            let retention = retention::Retention::begin(write.sql(), context.at)?;
            Ok((id_catalogue::define(write, &config, &context)?, retention))
        };
        let (catalogue, retention) = engine.write(begin).await.map_err(failed)?;
        let (engine, catalogue, retention) = (Arc::new(engine), Arc::new(catalogue), Arc::new(retention));
        let store =
            Self { engine, catalogue, limits, retention, import_lock: Arc::default(), in_progress: Arc::default() };
        store.finish_imports(import::ImportSpeed::AtOnce).await.map_err(failed)?;
        Ok(store)
    }

    /// The position of the history. Each change updates it before its answer is sent.
    pub fn head(&self) -> watch::Receiver<Position> {
        self.engine.head()
    }

    /// Checks that changes are accepted. After a change was refused, or a read failed, two writing probes in a row must
    /// succeed, one a second for all callers together. After damage only a restart helps.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.check_freshness()?;
        self.engine.ready().await
    }

    /// Checks that the feed can be served: the newest revision is known, and can be read.
    pub async fn feed_ready(&self) -> Result<(), StoreError> {
        self.check_freshness()?;
        self.engine.check_readable().await
    }

    /// Whether the database had no history when it was opened.
    pub fn was_new(&self) -> bool {
        self.engine.was_new()
    }

    /// Whether another program has committed to the database's file since it was opened. If so, nothing counts as
    /// enforced: its commit may have undone anything.
    pub(crate) fn has_foreign_commits(&self) -> bool {
        self.engine.has_foreign_commits()
    }

    /// Checks each second that the file still accepts changes, as [`Self::ready`] does, until `ending` becomes true.
    /// Logs when it stops accepting them and when it starts again. Does nothing where replicas share a database.
    pub async fn watch(self, mut ending: watch::Receiver<bool>) {
        match self.deployment() {
            Deployment::Single => {}
            Deployment::Replicated(_) => return,
        }
        let mut seconds = tokio::time::interval(CHECK_INTERVAL);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_refusing = false;
        loop {
            tokio::select! {
                _ = seconds.tick() => {}
                _ = ending.wait_for(|ending| *ending) => return,
            }
            let ready = self.engine.ready().await;
            match &ready {
                Err(cause) if !is_refusing => error!(%cause, "the database accepts no changes"),
                Ok(()) if is_refusing => info!("the database accepts changes again"),
                Err(_) | Ok(()) => {}
            }
            is_refusing = ready.is_err();
        }
    }

    /// The store's counters. Costs a few reads of memory.
    pub fn stats(&self) -> StoreStats {
        self.engine.stats()
    }

    /// Carries out accepted changes, then closes the database. Later calls fail with `Unavailable`.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}
