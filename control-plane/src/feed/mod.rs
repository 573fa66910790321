//! What edges ask for: changes as they happen, and snapshots to begin with.

mod access;
mod acknowledge;
mod deltas;
#[cfg(fuzzing)]
pub mod fuzzing;
mod log;
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

use crate::clock::Clock;
use crate::edges::{Edges, Refused};
use crate::guesses::Guesses;
use crate::problem::Problem;
use crate::store::Store;
use crate::tokens::Token;
use crate::usage::Folding;

const LATCHKEY_TIME: HeaderName = HeaderName::from_static(TIME_HEADER);
const LATCHKEY_HEAD: HeaderName = HeaderName::from_static(HEAD_HEADER);

/// Our wire format's media type.
const MEDIA_TYPE: &str = "application/vnd.latchkey.feed";

/// What the feed works with. Clones share it.
#[derive(Clone)]
pub struct Feed {
    store: Store,
    clock: Clock,
    /// Serves any edge.
    edge_token: Token,
    guesses: Guesses,
    edges: Edges,
    usage: Folding,
    snapshots: Arc<snapshots::Snapshots>,
    deltas: Arc<deltas::Deltas>,
    /// True once it was told that the database went back.
    went_back: Arc<AtomicBool>,
    /// The newest revisions that the log keeps.
    log_revisions: u64,
    /// True when waiting has to end.
    ending: watch::Receiver<bool>,
}

impl Feed {
    /// A feed of `store`, whose log keeps the newest `log_revisions`; it begins to fold usage. Requests that wait are answered
    /// when `ending` becomes true.
    pub fn new(
        store: Store,
        clock: Clock,
        edge_token: Token,
        guesses: Guesses,
        edges: Edges,
        log_revisions: u64,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let (deltas, went_back) = (Arc::default(), Arc::default());
        let snapshots = Arc::new(snapshots::Snapshots::new(log_revisions));
        let usage = Folding::start(store.clone(), clock.clone(), ending.clone());
        Self { store, clock, edge_token, guesses, edges, usage, snapshots, deltas, went_back, log_revisions, ending }
    }

    /// Where it reads.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The instances that use it.
    pub(crate) fn edges(&self) -> &Edges {
        &self.edges
    }

    /// What workers report.
    pub(crate) fn usage(&self) -> &Folding {
        &self.usage
    }

    /// Whether an edge has shown that the database file is an older copy of the one that served before.
    pub(crate) fn went_back(&self) -> bool {
        self.went_back.load(Ordering::Relaxed)
    }

    /// Why an instance is refused. One that has ended learns it thereby.
    fn refused(&self, instance: &str, refused: Refused) -> Problem {
        if refused == Refused::Retired {
            self.edges.tells(instance);
        }
        refused.into()
    }

    /// 200 with a message of the wire format. Where nobody knows what is newest the head is one that no message leads to: so
    /// the message is taken, and makes no table fresh.
    fn message(&self, bytes: Bytes, cache: &'static str) -> Response {
        let is_fresh = self.store.fresh().is_ok();
        let head = self.store.head().borrow().revision.0;
        let head = if is_fresh { head } else { u64::MAX };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)),
            (header::CACHE_CONTROL, HeaderValue::from_static(cache)),
            (LATCHKEY_HEAD, head.into()),
        ];
        (headers, bytes).into_response()
    }

    /// 204: the position that was asked from is still the head.
    fn nothing_new(&self) -> Result<Response, Problem> {
        self.store.fresh()?;
        let head = HeaderValue::from(self.store.head().borrow().revision.0);
        Ok((StatusCode::NO_CONTENT, [(LATCHKEY_HEAD, head)]).into_response())
    }
}

/// Says the control plane's time on each answer, refusals included: an answer without it is somebody's between.
pub(crate) async fn timed(State(feed): State<Feed>, mut response: Response) -> Response {
    response.headers_mut().insert(LATCHKEY_TIME, HeaderValue::from(feed.clock.unix_millis()));
    response
}
