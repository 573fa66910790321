//! The subscription to the control plane: which request to send next, and how to apply the responses.
//!
//! It has no Envoy and no clock: time is an argument, and calls are returned as [`Fetch`]es. After a snapshot's
//! manifest it fetches the changes since, then the pages. The snapshot serves only once the control plane has confirmed
//! that nothing is newer.

use policy::protocol::feed::FeedRequest;
use policy::protocol::page_path;
use policy::protocol::timing::{
    ANSWER_GRACE_MS, CROWDED_RETRY_AFTER_SECS, MAX_BACKOFF_MS, MAX_CROWDED_BACKOFF_MS, RETIRED_PAUSE_MS, wait_secs,
};
use policy::table::Loading;
use policy::wire::{Delta, FORMAT, WireError};
use policy::{Position, Revision, Table};

use crate::keys::{Clocks, ControlPlaneTime, Keys};

#[cfg(test)]
mod tests;

/// The backoff in milliseconds after a first failure, before jitter. It doubles with each failure, up to
/// [`MAX_BACKOFF_MS`].
const MIN_BACKOFF_MS: u64 = 400;

/// How often a missing page is requested before the snapshot is given up. Of several control planes only the one that
/// made a snapshot has its pages, and Envoy sends requests to any of them. A miss costs only a round trip.
const PAGE_TRIES: u32 = 48;

/// A GET to the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The value of `:path`, with the query.
    pub path: String,
    /// How long the answer may take: the wait that the request allows, and [`ANSWER_GRACE_MS`].
    pub timeout_ms: u64,
}

/// A response of the control plane, or of a proxy on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedResponse {
    /// `None`: there was no response.
    pub status: Option<u16>,
    /// The control plane's clock, milliseconds since 1970. A response without it is not the control plane's.
    pub time_ms: Option<i64>,
    /// The newest revision at the control plane, if the response contains it.
    pub head: Option<u64>,
    /// With a 503: after how many seconds to retry, if the response contains it.
    pub retry_after_secs: Option<u64>,
    /// With a 200: a snapshot's manifest, a delta or a page, as in [`policy::wire`]. Not validated.
    pub body: Vec<u8>,
}

/// The effect of a response on the table, for the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedProgress {
    /// Nothing to report.
    NoChange,
    /// A newer table serves.
    Updated(Position),
    /// The request failed, and is retried.
    Failed(Failure),
}

/// The update in a response, for a leader to publish to the other workers of this Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedUpdate {
    /// No update; perhaps the confirmation that nothing is newer.
    None,
    /// A snapshot begins here.
    Snapshot(Position),
    /// A delta that was applied.
    Delta(Vec<u8>),
    /// The page of the snapshot with this number was added.
    Page(usize),
}

/// The result of handling a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedOutcome {
    /// What has changed for this worker.
    pub progress: FeedProgress,
    /// What has changed for its peers; [`FeedUpdate::None`] after a failure.
    pub update: FeedUpdate,
}

/// Why a request to the control plane failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing is sent: a request has to name its instance, by a random id.
    #[error(
        "Envoy provides no random numbers, so this worker can't draw an id; allow `random_get` in its capability list"
    )]
    NoName,
    /// There was no response, or one without a status.
    #[error("no answer from the control plane")]
    NoAnswer,
    /// [`Host::dispatch`](crate::host::Host::dispatch) failed.
    #[error("the request to the control plane was not sent: Envoy has no such cluster, or the cluster has no host")]
    NotSent,
    /// 401 or 403: the token is missing, unknown, revoked, or for another edge.
    #[error("the control plane refused the edge token; check the token of this edge")]
    Token,
    /// 410 to an acknowledgement, or to a feed request with the control plane's time. For a page, 410 is no failure.
    #[error("the control plane has retired this instance; it continues under a new id")]
    Retired,
    /// Any status but 200, 410, 503 and 504. With a 409, the message lacks a worker that the control plane counts.
    #[error("the control plane refused an acknowledgement of applied revisions: status {0}")]
    NotAcknowledged(u16),
    /// 400, 413 or 422: sending the batch again would not help.
    #[error("the control plane refused a usage batch (status {0}); its counts are lost, so usage is incomplete")]
    UsageRefused(u16),
    /// 406: the control plane reads and writes another wire format.
    #[error("the control plane does not support feed format {FORMAT}; update the older of the two")]
    Format,
    /// Another status without the control plane's time: Envoy or a proxy has answered in its place.
    #[error(
        "the control plane can't be reached (status {0} on the way to it); check that it runs and Envoy's cluster is right"
    )]
    Unreachable(u16),
    /// 503 with a `retry-after` of at least [`CROWDED_RETRY_AFTER_SECS`]; the backoff may be as long as that.
    #[error("the control plane has no place for another connection; this worker retries within 30 s")]
    Crowded,
    /// Another status with the control plane's time.
    #[error("the control plane answered with status {0}")]
    Status(u16),
    /// 200 or 204 without the control plane's time, for instance from another server.
    #[error("a response that is not from the control plane: it has no `latchkey-time`; check Envoy's cluster")]
    NotOurs,
    /// A body that is damaged, or that can't be applied to this worker's table.
    #[error("invalid response from the control plane: {0}")]
    Wire(#[from] WireError),
}

/// The subscription: one call to the control plane at a time.
pub struct Subscription {
    edge: String,
    /// A snapshot is needed, because there is no table or deltas can't be applied to it.
    needs_snapshot: bool,
    /// The last delta didn't reach the newest revision: there are more.
    is_behind: bool,
    in_flight: Option<InFlightFetch>,
    retry_at_ms: u64,
    failures: u32,
    /// How many times in a row a page was missing.
    page_misses: u32,
}

/// The subscriber's parameters in a feed request.
#[derive(Clone, Copy, Debug)]
pub struct FeedParameters<'a> {
    /// The subscriber's id at the control plane.
    pub instance: &'a str,
    /// The largest staleness bound in seconds of the configurations that use the responses; `None`: one of them has
    /// none.
    pub largest_bound: Option<u64>,
    /// The smallest of these bounds.
    pub smallest_bound: Option<u64>,
    /// The piggybacked acknowledgement: the revision that all workers have applied.
    pub applied: Option<u64>,
}

/// A fetch whose response hasn't arrived.
struct InFlightFetch {
    sent: Clocks,
    deadline_ms: u64,
    kind: FetchKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FetchKind {
    Feed,
    Page(usize),
}

impl Subscription {
    /// A subscription of this edge that has sent no request yet.
    pub fn new(edge: &str) -> Self {
        Self {
            edge: edge.to_owned(),
            needs_snapshot: false,
            is_behind: false,
            in_flight: None,
            retry_at_ms: 0,
            failures: 0,
            page_misses: 0,
        }
    }

    /// This worker subscribes from now on, beginning with its own table.
    pub fn become_subscriber(&mut self, keys: &mut Keys) {
        self.in_flight = None;
        self.needs_snapshot = keys.live_table.table().is_none();
    }

    /// The next request is for a snapshot, whatever table this worker has.
    pub fn request_snapshot(&mut self) {
        self.needs_snapshot = true;
    }

    /// The control plane has retired this instance: sends no request under the new id for some seconds. Most retired
    /// instances end soon, and changes would have to wait for a new id that never acknowledges. `random` adds up to a
    /// third.
    pub fn pause_after_retirement(&mut self, now: Clocks, random: u8) {
        let pause = RETIRED_PAUSE_MS.saturating_add(RETIRED_PAUSE_MS.saturating_mul(u64::from(random)) / 768);
        self.retry_at_ms = now.monotonic_ms.saturating_add(pause);
    }

    /// Whether this worker requests a snapshot, not the changes since a position.
    pub fn wants_snapshot(&self) -> bool {
        self.needs_snapshot
    }

    /// Whether the control plane had more changes than its last response contained.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether a request is due.
    pub fn is_due(&self, now: Clocks) -> bool {
        let is_in_flight = self.in_flight.as_ref().is_some_and(|fetch| now.monotonic_ms < fetch.deadline_ms);
        !is_in_flight && now.monotonic_ms >= self.retry_at_ms
    }

    /// The next request, if one is due. The caller sends it, then calls [`Self::answered`] once.
    pub fn next_fetch(&mut self, keys: &Keys, parameters: FeedParameters<'_>, now: Clocks) -> Option<Fetch> {
        if !self.is_due(now) {
            return None;
        }
        let outgrown = keys.live_table.table().is_some_and(Table::is_outgrown);
        self.needs_snapshot |= outgrown || keys.live_table.newest().is_none();
        let (kind, path, wait_secs) = if self.needs_snapshot {
            (FetchKind::Feed, self.feed_request(parameters, None, 0).path(), 0)
        } else if let (Some(page), Some(Position { epoch, .. }), Some(revision)) =
            (keys.live_table.wanted(), keys.live_table.newest(), keys.live_table.snapshot_revision())
        {
            (FetchKind::Page(page), page_path(epoch, revision, page), 0)
        } else {
            // No long poll if a confirmation is needed now.
            let is_urgent = keys.live_table.is_loading() || keys.confirmed_at().is_none();
            let wait = if is_urgent { 0 } else { wait_secs(parameters.smallest_bound) };
            (FetchKind::Feed, self.feed_request(parameters, keys.live_table.newest(), wait).path(), wait)
        };
        let timeout_ms = wait_secs.saturating_mul(1_000).saturating_add(ANSWER_GRACE_MS);
        // Envoy reports the end of each call, except when the context that sent it has ended: hence the deadline.
        let deadline_ms = now.monotonic_ms.saturating_add(timeout_ms).saturating_add(MAX_BACKOFF_MS);
        self.in_flight = Some(InFlightFetch { sent: now, deadline_ms, kind });
        Some(Fetch { path, timeout_ms })
    }

    /// The answer to the call in flight will never arrive: the next request is due.
    pub fn abandon(&mut self) {
        self.in_flight = None;
    }

    /// The call could not be sent.
    pub fn not_sent(&mut self, now: Clocks, random: u8) -> Failure {
        self.in_flight = None;
        self.schedule_retry(now, random, &Failure::NotSent);
        Failure::NotSent
    }

    /// Handles the response to the last fetch. `random` is the jitter of the retry after a failure.
    pub fn answered(&mut self, keys: &mut Keys, now: Clocks, random: u8, response: FeedResponse) -> FeedOutcome {
        let no_change = FeedOutcome { progress: FeedProgress::NoChange, update: FeedUpdate::None };
        let Some(fetch) = self.in_flight.take() else { return no_change };
        self.is_behind = false;
        let before = keys.live_table.position();
        match self.handle_response(keys, now, &fetch, response) {
            Ok(update) => {
                self.failures = 0;
                self.retry_at_ms = 0;
                let reached = keys.live_table.position().filter(|reached| Some(*reached) != before);
                FeedOutcome { progress: reached.map_or(FeedProgress::NoChange, FeedProgress::Updated), update }
            }
            Err(failure) => {
                self.schedule_retry(now, random, &failure);
                FeedOutcome { progress: FeedProgress::Failed(failure), ..no_change }
            }
        }
    }

    fn schedule_retry(&mut self, now: Clocks, random: u8, failure: &Failure) {
        let max_ms = if matches!(failure, Failure::Crowded) { MAX_CROWDED_BACKOFF_MS } else { MAX_BACKOFF_MS };
        let pause = MIN_BACKOFF_MS.saturating_mul(1 << self.failures.min(7)).min(max_ms);
        self.failures = self.failures.saturating_add(1);
        // Half of it, and up to as much again by chance, so that edges that failed together don't retry together.
        let jittered = (pause / 2).saturating_add(pause.saturating_mul(u64::from(random)) / 512);
        self.retry_at_ms = now.monotonic_ms.saturating_add(jittered);
    }

    fn handle_response(
        &mut self,
        keys: &mut Keys,
        now: Clocks,
        fetch: &InFlightFetch,
        response: FeedResponse,
    ) -> Result<FeedUpdate, Failure> {
        let status = response.status.ok_or(Failure::NoAnswer)?;
        match status {
            200 | 204 => {}
            401 | 403 => return Err(Failure::Token),
            406 => return Err(Failure::Format),
            // Another control plane may have the snapshot. If it is gone, the feed has a newer one.
            410 if matches!(fetch.kind, FetchKind::Page(_)) => {
                self.page_misses = self.page_misses.saturating_add(1);
                if self.page_misses >= PAGE_TRIES {
                    (self.page_misses, self.needs_snapshot) = (0, true);
                }
                return Ok(FeedUpdate::None);
            }
            // Sent before the request reached the feed, so without its time. Envoy's own 503 has no `retry-after`.
            503 if response.retry_after_secs.is_some_and(|secs| secs >= CROWDED_RETRY_AFTER_SECS) => {
                return Err(Failure::Crowded);
            }
            other if response.time_ms.is_none() => return Err(Failure::Unreachable(other)),
            410 => return Err(Failure::Retired),
            other => return Err(Failure::Status(other)),
        }
        let time_ms = response.time_ms.ok_or(Failure::NotOurs)?;
        keys.set_control_plane_time(ControlPlaneTime { time_ms, at_ms: now.monotonic_ms });
        match fetch.kind {
            FetchKind::Page(number) => self.add_page(keys, number, response.body),
            FetchKind::Feed if status == 204 => Ok(self.confirm_unchanged(keys, fetch.sent)),
            FetchKind::Feed => self.apply_change(keys, fetch.sent, response),
        }
    }

    fn add_page(&mut self, keys: &mut Keys, number: usize, page: Vec<u8>) -> Result<FeedUpdate, Failure> {
        if keys.live_table.wanted() != Some(number) {
            return Ok(FeedUpdate::None);
        }
        self.page_misses = 0;
        // After an invalid page, the snapshot is requested again.
        keys.live_table.add(page).inspect_err(|_| self.needs_snapshot = true)?;
        keys.apply_confirmation();
        Ok(FeedUpdate::Page(number))
    }

    /// Nothing is newer: a snapshot that was catching up is up to date.
    fn confirm_unchanged(&mut self, keys: &mut Keys, sent: Clocks) -> FeedUpdate {
        // The response to a request for a snapshot can't confirm a position.
        if !self.needs_snapshot
            && let Some(newest) = keys.live_table.newest()
        {
            keys.live_table.mark_caught_up();
            keys.confirm(newest, sent);
        }
        FeedUpdate::None
    }

    fn apply_change(&mut self, keys: &mut Keys, sent: Clocks, response: FeedResponse) -> Result<FeedUpdate, Failure> {
        let FeedResponse { head, body, .. } = response;
        if !Delta::is_delta(&body) {
            let loading = Loading::start(&body)?;
            let position = loading.position();
            keys.live_table.begin(loading);
            (self.page_misses, self.needs_snapshot) = (0, false);
            return Ok(FeedUpdate::Snapshot(position));
        }
        if self.needs_snapshot {
            return Err(Failure::Wire(WireError::Kind));
        }
        // If the delta can't be applied, the old table still serves, but only a snapshot can replace it.
        keys.live_table.apply(&body).inspect_err(|_| self.needs_snapshot = true)?;
        let newest = keys.live_table.newest();
        self.is_behind = head.zip(newest).is_some_and(|(head, newest)| head > newest.revision.0);
        // A delta that doesn't reach the newest revision confirms nothing.
        if let Some(newest) = newest.filter(|_| !self.is_behind) {
            keys.confirm(newest, sent);
        }
        Ok(FeedUpdate::Delta(body))
    }

    fn feed_request<'a>(
        &'a self,
        parameters: FeedParameters<'a>,
        position: Option<Position>,
        wait_secs: u64,
    ) -> FeedRequest<'a> {
        FeedRequest {
            edge: self.edge.as_str().into(),
            instance: parameters.instance.into(),
            wait_secs,
            max_staleness_secs: parameters.largest_bound,
            position,
            applied: parameters.applied.map(Revision),
        }
    }
}
