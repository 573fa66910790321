//! What to ask the control plane next, and what to make of its answers.
//!
//! Knows no Envoy and no clock: time comes as an argument, calls go out as [`Fetch`]es. After a snapshot's manifest come
//! the changes since it, then its pages; it counts only once the control plane has said that nothing is newer.

use policy::protocol::feed::FeedRequest;
use policy::protocol::page_path;
use policy::protocol::timing::{
    ANSWER_GRACE_MS, CROWDED_RETRY_AFTER_SECS, MAX_BACKOFF_MS, MAX_CROWDED_BACKOFF_MS, RETIRED_PAUSE_MS, wait_secs,
};
use policy::table::Loading;
use policy::wire::{Delta, FORMAT, WireError};
use policy::{Position, Revision, Table};

use crate::keys::{Clocks, Heard, Keys};

#[cfg(test)]
mod tests;

/// The backoff in milliseconds after a first failure, before jitter. It doubles with each failure, up to [`MAX_BACKOFF_MS`].
const MIN_BACKOFF_MS: u64 = 400;

/// How often a page is asked for that isn't there, before the snapshot is taken for gone: of several control planes only the one
/// that made it has its pages, and Envoy asks now this one and now that one. A miss costs no more than its way.
const PAGE_TRIES: u32 = 48;

/// A GET to the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub path: String,
    pub timeout_ms: u64,
}

/// An answer of the control plane, or of somebody between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None`: no answer came.
    pub status: Option<u16>,
    /// The control plane's clock, milliseconds since 1970; without it an answer isn't the control plane's.
    pub time_ms: Option<i64>,
    /// The newest revision at the control plane, if it said so.
    pub head: Option<u64>,
    /// With a 503: in how many seconds it is worth a try, if it said so.
    pub retry_after_secs: Option<u64>,
    pub body: Vec<u8>,
}

/// What an answer led to, for the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing that anybody would want to read of.
    Quiet,
    /// A newer table serves.
    Serves(Position),
    /// It didn't work; it is tried again.
    Failed(Failure),
}

/// What an answer brought, for whoever hands it on to the other workers of this Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing but, perhaps, that nothing is newer.
    Nothing,
    /// A snapshot begins here.
    Snapshot(Position),
    /// A delta that was applied.
    Delta(Vec<u8>),
    /// This page of the snapshot was taken.
    Page(usize),
}

/// What came of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub progress: Progress,
    pub news: News,
}

/// Why an answer was of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error(
        "Envoy gives no random numbers, so this worker has no name to ask under; allow `random_get` in its capability list"
    )]
    NoName,
    #[error("no answer from the control plane")]
    NoAnswer,
    #[error("the control plane was not asked: Envoy has no such cluster, or no host in it")]
    NotSent,
    #[error("the control plane refused the edge token; check the token that this edge was given")]
    Token,
    #[error("this instance was retired at the control plane; it goes on under a new id")]
    Retired,
    #[error("the control plane did not take what the workers have applied: status {0}")]
    NotAcknowledged(u16),
    #[error("the control plane can't read what was counted of keys (status {0}); it is lost: their use is incomplete")]
    UsageRefused(u16),
    #[error("the control plane does not speak feed format {FORMAT}; update the older of the two")]
    Format,
    #[error(
        "the control plane can't be reached (status {0} on the way to it); is it up, and does Envoy's cluster lead there?"
    )]
    Unreachable(u16),
    #[error("the control plane has no place for another connection; it is asked again within half a minute")]
    Crowded,
    #[error("the control plane answered with status {0}")]
    Status(u16),
    #[error("an answer that is not the control plane's: it has no `latchkey-time`")]
    NotOurs,
    #[error("an answer that can't be used: {0}")]
    Wire(#[from] WireError),
}

/// The calls to the control plane, one at a time.
pub struct Subscription {
    edge: String,
    /// A snapshot is wanted, because there is no table or it can't be trusted to lead on.
    is_wanted: bool,
    /// The last delta didn't lead to the newest revision: more is waiting.
    is_behind: bool,
    flight: Option<Flight>,
    retry_at_ms: u64,
    failures: u32,
    /// How often in a row a page wasn't there.
    misses: u32,
}

/// Who asks, and what the answers are for.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Names this subscriber to the control plane.
    pub instance: &'a str,
    /// The largest staleness bound in seconds of those that use the answers; `None`: one of them has none.
    pub largest_bound: Option<u64>,
    /// The smallest of them.
    pub smallest_bound: Option<u64>,
    /// What all workers have applied, if the feed is to be told so.
    pub applied: Option<u64>,
}

struct Flight {
    sent: Clocks,
    deadline_ms: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Feed,
    Page(usize),
}

impl Subscription {
    /// A subscription of this edge that has asked nothing yet.
    pub fn new(edge: &str) -> Self {
        Self {
            edge: edge.to_owned(),
            is_wanted: false,
            is_behind: false,
            flight: None,
            retry_at_ms: 0,
            failures: 0,
            misses: 0,
        }
    }

    /// From now on this worker asks, with what it holds: a snapshot that somebody else began is left.
    pub fn take_up(&mut self, keys: &mut Keys) {
        self.flight = None;
        self.is_wanted = keys.holding.table().is_none();
    }

    /// The next question is for a snapshot, whatever this worker holds.
    pub fn want_snapshot(&mut self) {
        self.is_wanted = true;
    }

    /// The control plane retired the id that was asked under: nothing is asked under another one for some seconds. Most who are
    /// retired end then, and a new id that is never heard again would have to be waited for. `random` adds up to a third.
    pub fn rests(&mut self, now: Clocks, random: u8) {
        let pause = RETIRED_PAUSE_MS.saturating_add(RETIRED_PAUSE_MS.saturating_mul(u64::from(random)) / 768);
        self.retry_at_ms = now.monotonic_ms.saturating_add(pause);
    }

    /// Whether a snapshot was asked for, not the changes since a position.
    pub fn wants_snapshot(&self) -> bool {
        self.is_wanted
    }

    /// Whether the control plane had more than its last answer brought.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether it is time to ask.
    pub fn is_due(&self, now: Clocks) -> bool {
        let is_in_flight = self.flight.as_ref().is_some_and(|flight| now.monotonic_ms < flight.deadline_ms);
        !is_in_flight && now.monotonic_ms >= self.retry_at_ms
    }

    /// What to ask now, if it is time. The caller sends it, then hands in [`Self::answered`] once.
    pub fn next_fetch(&mut self, keys: &Keys, asking: Asking<'_>, now: Clocks) -> Option<Fetch> {
        if !self.is_due(now) {
            return None;
        }
        let outgrown = keys.holding.table().is_some_and(Table::is_outgrown);
        self.is_wanted |= outgrown || keys.holding.newest().is_none();
        let (kind, path, wait_secs) = if self.is_wanted {
            (Kind::Feed, self.feed_request(asking, None, 0).path(), 0)
        } else if let (Some(page), Some(Position { epoch, .. }), Some(revision)) =
            (keys.holding.wanted(), keys.holding.newest(), keys.holding.snapshot_revision())
        {
            (Kind::Page(page), page_path(epoch, revision, page), 0)
        } else {
            // A word that is needed now isn't waited for.
            let is_urgent = keys.holding.is_loading() || keys.vouched().is_none();
            let wait = if is_urgent { 0 } else { wait_secs(asking.smallest_bound) };
            (Kind::Feed, self.feed_request(asking, keys.holding.newest(), wait).path(), wait)
        };
        let timeout_ms = wait_secs.saturating_mul(1_000).saturating_add(ANSWER_GRACE_MS);
        // Envoy reports each call's end by itself; the deadline is for a call whose context went away.
        let deadline_ms = now.monotonic_ms.saturating_add(timeout_ms).saturating_add(MAX_BACKOFF_MS);
        self.flight = Some(Flight { sent: now, deadline_ms, kind });
        Some(Fetch { path, timeout_ms })
    }

    /// The call in flight will never be answered here: ask again.
    pub fn abandon(&mut self) {
        self.flight = None;
    }

    /// The call could not be sent.
    pub fn not_sent(&mut self, now: Clocks, random: u8) -> Failure {
        self.flight = None;
        self.failed(now, random, &Failure::NotSent);
        Failure::NotSent
    }

    /// The answer to the last fetch. `random` jitters the retry of a failure.
    pub fn answered(&mut self, keys: &mut Keys, now: Clocks, random: u8, answer: Answer) -> Outcome {
        let quiet = Outcome { progress: Progress::Quiet, news: News::Nothing };
        let Some(flight) = self.flight.take() else { return quiet };
        self.is_behind = false;
        let before = keys.holding.position();
        match self.take(keys, now, &flight, answer) {
            Ok(news) => {
                self.failures = 0;
                self.retry_at_ms = 0;
                let reached = keys.holding.position().filter(|reached| Some(*reached) != before);
                Outcome { progress: reached.map_or(Progress::Quiet, Progress::Serves), news }
            }
            Err(failure) => {
                self.failed(now, random, &failure);
                Outcome { progress: Progress::Failed(failure), ..quiet }
            }
        }
    }

    fn failed(&mut self, now: Clocks, random: u8, failure: &Failure) {
        let most = if matches!(failure, Failure::Crowded) { MAX_CROWDED_BACKOFF_MS } else { MAX_BACKOFF_MS };
        let pause = MIN_BACKOFF_MS.saturating_mul(1 << self.failures.min(7)).min(most);
        self.failures = self.failures.saturating_add(1);
        // Half of it and as much again by chance, so that edges that failed together don't come back together.
        let jittered = (pause / 2).saturating_add(pause.saturating_mul(u64::from(random)) / 512);
        self.retry_at_ms = now.monotonic_ms.saturating_add(jittered);
    }

    fn take(&mut self, keys: &mut Keys, now: Clocks, flight: &Flight, answer: Answer) -> Result<News, Failure> {
        let status = answer.status.ok_or(Failure::NoAnswer)?;
        match status {
            200 | 204 => {}
            401 | 403 => return Err(Failure::Token),
            406 => return Err(Failure::Format),
            // It may be at another control plane. When it is gone, the feed knows a newer one.
            410 if matches!(flight.kind, Kind::Page(_)) => {
                self.misses = self.misses.saturating_add(1);
                if self.misses >= PAGE_TRIES {
                    (self.misses, self.is_wanted) = (0, true);
                }
                return Ok(News::Nothing);
            }
            // Before anything of the feed is reached, so without its time; Envoy's own 503 has none.
            503 if answer.retry_after_secs.is_some_and(|secs| secs >= CROWDED_RETRY_AFTER_SECS) => {
                return Err(Failure::Crowded);
            }
            other if answer.time_ms.is_none() => return Err(Failure::Unreachable(other)),
            410 => return Err(Failure::Retired),
            other => return Err(Failure::Status(other)),
        }
        let time_ms = answer.time_ms.ok_or(Failure::NotOurs)?;
        keys.hear(Heard { time_ms, at_ms: now.monotonic_ms });
        match flight.kind {
            Kind::Page(number) => self.take_page(keys, number, answer.body),
            Kind::Feed if status == 204 => Ok(self.take_no_change(keys, flight.sent)),
            Kind::Feed => self.take_change(keys, flight.sent, answer),
        }
    }

    fn take_page(&mut self, keys: &mut Keys, number: usize, page: Vec<u8>) -> Result<News, Failure> {
        if keys.holding.wanted() != Some(number) {
            return Ok(News::Nothing);
        }
        self.misses = 0;
        // A page that doesn't fit: the snapshot is asked for anew.
        keys.holding.add(page).inspect_err(|_| self.is_wanted = true)?;
        keys.settle();
        Ok(News::Page(number))
    }

    /// Nothing is newer: a snapshot that was catching up has caught up.
    fn take_no_change(&mut self, keys: &mut Keys, sent: Clocks) -> News {
        // Whoever asked for a snapshot isn't told that nothing is newer.
        if !self.is_wanted
            && let Some(newest) = keys.holding.newest()
        {
            keys.holding.caught_up();
            keys.vouch(newest, sent);
        }
        News::Nothing
    }

    fn take_change(&mut self, keys: &mut Keys, sent: Clocks, answer: Answer) -> Result<News, Failure> {
        let Answer { head, body, .. } = answer;
        if !Delta::is_delta(&body) {
            let loading = Loading::start(&body)?;
            let position = loading.position();
            keys.holding.begin(loading);
            (self.misses, self.is_wanted) = (0, false);
            return Ok(News::Snapshot(position));
        }
        if self.is_wanted {
            return Err(Failure::Wire(WireError::Kind));
        }
        // When it doesn't fit, the old table serves on, but no delta leads on from it: a snapshot does.
        keys.holding.apply(&body).inspect_err(|_| self.is_wanted = true)?;
        let newest = keys.holding.newest();
        self.is_behind = head.zip(newest).is_some_and(|(head, newest)| head > newest.revision.0);
        // One that doesn't lead to the newest revision says nothing of how fresh the table is.
        if let Some(newest) = newest.filter(|_| !self.is_behind) {
            keys.vouch(newest, sent);
        }
        Ok(News::Delta(body))
    }

    fn feed_request<'a>(&'a self, asking: Asking<'a>, position: Option<Position>, wait_secs: u64) -> FeedRequest<'a> {
        FeedRequest {
            edge: self.edge.as_str().into(),
            instance: asking.instance.into(),
            wait_secs,
            max_staleness_secs: asking.largest_bound,
            position,
            applied: asking.applied.map(Revision),
        }
    }
}
