//! The feed for edges: changes as they happen, and snapshots to start from.

mod access;
mod acknowledge;
mod compaction;
mod delta_cache;
#[cfg(fuzzing)]
pub mod fuzzing;
mod page;
mod poll;
mod query;
mod retire;
mod snapshots;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use policy::protocol::{HEAD_HEADER, TIME_HEADER};
use tokio::sync::watch;

pub(crate) use acknowledge::acknowledge;
pub(crate) use page::page;
pub(crate) use poll::poll;
pub(crate) use retire::retire;
pub(crate) use usage::usage;

use crate::base::clock::Clock;
use crate::base::tokens::Token;
use crate::edges::{Edges, InstanceError};
use crate::store::Store;
use crate::usage::UsageFolder;
use crate::web::auth_failures::AuthFailureLimiter;
use crate::web::problem::Problem;

const LATCHKEY_TIME: HeaderName = HeaderName::from_static(TIME_HEADER);
const LATCHKEY_HEAD: HeaderName = HeaderName::from_static(HEAD_HEADER);

/// Our wire format's media type.
const MEDIA_TYPE: &str = "application/vnd.latchkey.feed";

/// The feed, with everything that its handlers need. Clones share it.
#[derive(Clone)]
pub struct Feed {
    store: Store,
    clock: Clock,
    /// The token file's token, which is valid for any edge.
    edge_token: Token,
    auth_failures: AuthFailureLimiter,
    edges: Edges,
    usage: UsageFolder,
    snapshots: Arc<snapshots::Snapshots>,
    deltas: Arc<delta_cache::DeltaCache>,
    /// Becomes true when an edge shows that the database went back.
    went_back: Arc<AtomicBool>,
    /// The newest revisions that the log keeps.
    log_revisions: u64,
    /// Becomes true at shutdown, when waiting must end.
    ending: watch::Receiver<bool>,
}

impl Feed {
    /// A feed of `store`, whose log keeps the newest `log_revisions`. Starts the task that folds usage. Waiting
    /// requests are answered when `ending` becomes true.
    pub fn new(
        store: Store,
        clock: Clock,
        edge_token: Token,
        auth_failures: AuthFailureLimiter,
        edges: Edges,
        log_revisions: u64,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let (deltas, went_back) = (Arc::default(), Arc::default());
        let snapshots = Arc::new(snapshots::Snapshots::new(log_revisions));
        let usage = UsageFolder::start(store.clone(), clock.clone(), ending.clone());
        Self {
            store,
            clock,
            edge_token,
            auth_failures,
            edges,
            usage,
            snapshots,
            deltas,
            went_back,
            log_revisions,
            ending,
        }
    }

    /// The store that it reads.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The instances that use it.
    pub(crate) fn edges(&self) -> &Edges {
        &self.edges
    }

    /// The task that folds the usage that workers report.
    pub(crate) fn usage(&self) -> &UsageFolder {
        &self.usage
    }

    /// Whether an edge has shown that the database file is an older copy of the one that served before.
    pub(crate) fn went_back(&self) -> bool {
        self.went_back.load(Ordering::Relaxed)
    }

    /// The problem for a refused instance. For one that has ended, this is its notice.
    fn instance_problem(&self, instance: &str, refused: InstanceError) -> Problem {
        if refused == InstanceError::Retired {
            self.edges.record_end_notice(instance);
        }
        refused.into()
    }

    /// 200 with a message of the wire format. If the newest revision isn't known, the head is one that no message leads
    /// to: the edge applies the message, but its table doesn't count as fresh.
    fn message(&self, bytes: Bytes, cache: &'static str) -> Response {
        let is_fresh = self.store.check_freshness().is_ok();
        let head = self.store.head().borrow().revision.0;
        let head = if is_fresh { head } else { u64::MAX };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)),
            (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
            (LATCHKEY_HEAD, head.into()),
        ];
        (headers, bytes).into_response()
    }

    /// 204: the edge's position is still the head.
    fn nothing_new(&self) -> Result<Response, Problem> {
        self.store.check_freshness()?;
        let head = HeaderValue::from(self.store.head().borrow().revision.0);
        Ok((StatusCode::NO_CONTENT, [(LATCHKEY_HEAD, head)]).into_response())
    }
}

/// Adds the control plane's time to each response, errors included: a response without it is from an intermediary.
pub(crate) async fn add_time_header(State(feed): State<Feed>, mut response: Response) -> Response {
    response.headers_mut().insert(LATCHKEY_TIME, HeaderValue::from(feed.clock.unix_millis()));
    response
}
