//! Keeping the table up to date: what to ask the control plane next, and what to make of its answers.
//!
//! Knows no Envoy and no clock: time comes as an argument, calls go out as [`Fetch`]es. A new table serves only once the
//! control plane has said that nothing is newer; until then the old one does.

use policy::decide::Knowledge;
use policy::table::Loading;
use policy::wire::{Delta, FORMAT, WireError};
use policy::{Position, Table, UnixSeconds};

use crate::metrics::Report;

#[cfg(test)]
mod tests;

/// The longest the control plane may hold a request that waits for changes, in seconds.
const MAX_WAIT_SECS: u64 = 20;

/// Milliseconds before the first retry; doubled with each failure up to [`MAX_RETRY_MS`], and jittered.
const MIN_RETRY_MS: u64 = 200;
const MAX_RETRY_MS: u64 = 2_000;

/// Milliseconds an answer may take beyond the wait that was asked for.
const GRACE_MS: u64 = 10_000;

/// Both clocks of the edge at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Milliseconds since 1970; may be set back and forward.
    pub wall_ms: i64,
    /// Milliseconds since some instant; never set.
    pub monotonic_ms: u64,
}

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
    #[error("the control plane does not speak feed format {FORMAT}; update the older of the two")]
    Format,
    #[error(
        "the control plane can't be reached (status {0} on the way to it); is it up, and does Envoy's cluster lead there?"
    )]
    Unreachable(u16),
    #[error("the control plane answered with status {0}")]
    Status(u16),
    #[error("an answer that is not the control plane's: it has no `latchkey-time`")]
    NotOurs,
    #[error("an answer that can't be used: {0}")]
    Wire(#[from] WireError),
}

/// What a worker knows of keys, and how it learns more.
pub struct Subscription {
    edge: String,
    /// Names this subscriber to the control plane.
    instance: Option<String>,
    max_staleness_secs: Option<u64>,
    table: Option<Table>,
    next: Next,
    flight: Option<Flight>,
    /// When the control plane's last word was asked for that the table stands on.
    vouched: Option<Clocks>,
    /// The control plane's clock when its last answer came, and our monotonic clock then.
    heard: Option<(i64, u64)>,
    retry_at_ms: u64,
    failures: u32,
}

/// What a new table is made of, beside the one that serves.
enum Next {
    /// Nothing: deltas go to the table that serves.
    Serving,
    /// A snapshot is wanted, because there is no table or it can't be trusted to lead on.
    Wanted,
    Loading(Box<Loading>),
    /// A loaded snapshot that may be older than the last change.
    CatchingUp(Box<Table>),
}

struct Flight {
    sent: Clocks,
    deadline_ms: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Feed,
    Page,
}

impl Subscription {
    /// A subscription that knows nothing yet, and asks nothing before [`Self::name`] was called.
    pub fn new(edge: &str, max_staleness_secs: Option<u64>) -> Self {
        Self {
            edge: edge.to_owned(),
            instance: None,
            max_staleness_secs,
            table: None,
            next: Next::Wanted,
            flight: None,
            vouched: None,
            heard: None,
            retry_at_ms: 0,
            failures: 0,
        }
    }

    /// What may be decided with now, under a staleness bound in seconds. The table's age counts by either clock: a clock
    /// that was set back makes no table young.
    pub fn knowledge(&self, now: Clocks, max_staleness_secs: Option<u64>) -> Knowledge<'_> {
        let (Some(table), Some(age_ms)) = (&self.table, self.age_ms(now)) else { return Knowledge::NotReady };
        let is_stale = max_staleness_secs.is_some_and(|bound| age_ms > bound.saturating_mul(1_000));
        if is_stale { Knowledge::Stale } else { Knowledge::Serving(table) }
    }

    /// The later of the wall clock and the control plane's clock as we know it, so that a wall clock that was set back
    /// revives no expired key.
    pub fn now(&self, clocks: Clocks) -> UnixSeconds {
        let theirs = self.heard.map(|(time_ms, at_ms)| {
            let since = clocks.monotonic_ms.saturating_sub(at_ms);
            time_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
        });
        UnixSeconds(theirs.map_or(clocks.wall_ms, |theirs| theirs.max(clocks.wall_ms)).div_euclid(1_000))
    }

    /// The table that serves.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Gives the subscriber its name, unless it has one. Without one it asks nothing, and so decides nothing.
    pub fn name(&mut self, instance: impl FnOnce() -> Option<String>) -> Progress {
        if self.instance.is_none() {
            self.instance = instance();
        }
        if self.instance.is_some() { Progress::Quiet } else { Progress::Failed(Failure::NoName) }
    }

    /// What this worker knows, for its gauges.
    pub fn report(&self, now: Clocks, max_staleness_secs: Option<u64>) -> Report {
        let Some(table) = &self.table else { return Report::default() };
        Report {
            revision: table.position().revision.0,
            keys: table.len(),
            age_secs: self.age_ms(now).unwrap_or_default() / 1_000,
            is_ready: matches!(self.knowledge(now, max_staleness_secs), Knowledge::Serving(_)),
        }
    }

    /// How long ago the control plane was asked for the word that the table stands on, by the clock that says more.
    fn age_ms(&self, now: Clocks) -> Option<u64> {
        let vouched = self.vouched?;
        let by_wall = u64::try_from(now.wall_ms.saturating_sub(vouched.wall_ms)).unwrap_or(0);
        Some(by_wall.max(now.monotonic_ms.saturating_sub(vouched.monotonic_ms)))
    }

    /// What to ask now, if it is time. The caller sends it, then hands in [`Self::answered`] once.
    pub fn next_fetch(&mut self, now: Clocks) -> Option<Fetch> {
        if self.flight.as_ref().is_some_and(|flight| now.monotonic_ms < flight.deadline_ms) {
            return None;
        }
        if now.monotonic_ms < self.retry_at_ms {
            return None;
        }
        let instance = self.instance.as_deref()?;
        if matches!(self.next, Next::Serving) && self.table.as_ref().is_some_and(Table::is_outgrown) {
            self.next = Next::Wanted;
        }
        let (kind, path, wait_ms) = match &self.next {
            Next::Loading(loading) => {
                let Position { epoch, revision, .. } = loading.position();
                let page = loading.wanted()?;
                (Kind::Page, format!("/edge/v1/snapshots/{epoch}/{revision}/{page}"), 0)
            }
            Next::Wanted => (Kind::Feed, self.feed_path(instance, None, 0), 0),
            Next::CatchingUp(table) => (Kind::Feed, self.feed_path(instance, Some(table.position()), 0), 0),
            Next::Serving => {
                let wait = self.wait_secs();
                let position = self.table.as_ref().map(Table::position);
                (Kind::Feed, self.feed_path(instance, position, wait), wait.saturating_mul(1_000))
            }
        };
        let timeout_ms = wait_ms.saturating_add(GRACE_MS);
        // Envoy reports each call's end by itself; the deadline is for a call whose context went away.
        let deadline_ms = now.monotonic_ms.saturating_add(timeout_ms).saturating_add(MAX_RETRY_MS);
        self.flight = Some(Flight { sent: now, deadline_ms, kind });
        Some(Fetch { path, timeout_ms })
    }

    /// The call in flight will never be answered here: ask again.
    pub fn abandon(&mut self) {
        self.flight = None;
    }

    /// The call could not be sent.
    pub fn not_sent(&mut self, now: Clocks, random: u8) -> Progress {
        self.flight = None;
        self.failed(now, random, Failure::NotSent)
    }

    /// The answer to the last fetch. `random` jitters the retry of a failure.
    pub fn answered(&mut self, now: Clocks, random: u8, answer: Answer) -> Progress {
        let Some(flight) = self.flight.take() else { return Progress::Quiet };
        match self.take(now, &flight, answer) {
            Ok(progress) => {
                self.failures = 0;
                self.retry_at_ms = 0;
                progress
            }
            Err(failure) => self.failed(now, random, failure),
        }
    }

    fn failed(&mut self, now: Clocks, random: u8, failure: Failure) -> Progress {
        let pause = MIN_RETRY_MS.saturating_mul(1 << self.failures.min(4)).min(MAX_RETRY_MS);
        self.failures = self.failures.saturating_add(1);
        // Half of it and as much again by chance, so that edges that failed together don't come back together.
        let jittered = (pause / 2).saturating_add(pause.saturating_mul(u64::from(random)) / 512);
        self.retry_at_ms = now.monotonic_ms.saturating_add(jittered.max(MIN_RETRY_MS));
        Progress::Failed(failure)
    }

    fn take(&mut self, now: Clocks, flight: &Flight, answer: Answer) -> Result<Progress, Failure> {
        let status = answer.status.ok_or(Failure::NoAnswer)?;
        match status {
            200 | 204 => {}
            401 | 403 => return Err(Failure::Token),
            406 => return Err(Failure::Format),
            // The snapshot is gone: the feed knows a newer one.
            410 if flight.kind == Kind::Page => {
                self.next = Next::Wanted;
                return Ok(Progress::Quiet);
            }
            other if answer.time_ms.is_none() => return Err(Failure::Unreachable(other)),
            other => return Err(Failure::Status(other)),
        }
        let time_ms = answer.time_ms.ok_or(Failure::NotOurs)?;
        self.heard = Some((time_ms, now.monotonic_ms));
        match flight.kind {
            Kind::Page => self.take_page(answer.body),
            Kind::Feed if status == 204 => Ok(self.take_no_change(flight.sent)),
            Kind::Feed => self.take_change(flight.sent, &answer.body),
        }
    }

    fn take_page(&mut self, page: Vec<u8>) -> Result<Progress, Failure> {
        let Next::Loading(mut loading) = std::mem::replace(&mut self.next, Next::Wanted) else {
            return Ok(Progress::Quiet);
        };
        // A page that doesn't fit leaves `Wanted`: the snapshot is asked for anew.
        loading.add(page)?;
        self.next = if loading.wanted().is_some() {
            Next::Loading(loading)
        } else {
            loading.finish().map_or(Next::Wanted, |table| Next::CatchingUp(Box::new(table)))
        };
        Ok(Progress::Quiet)
    }

    /// Nothing is newer: a table that was catching up has caught up.
    fn take_no_change(&mut self, sent: Clocks) -> Progress {
        match std::mem::replace(&mut self.next, Next::Serving) {
            Next::CatchingUp(table) => {
                let position = table.position();
                self.table = Some(*table);
                self.vouched = Some(sent);
                Progress::Serves(position)
            }
            Next::Serving => {
                self.vouched = Some(sent);
                Progress::Quiet
            }
            // Whoever holds nothing isn't told that nothing is newer.
            Next::Wanted | Next::Loading(_) => {
                self.next = Next::Wanted;
                Progress::Quiet
            }
        }
    }

    fn take_change(&mut self, sent: Clocks, body: &[u8]) -> Result<Progress, Failure> {
        if !Delta::is_delta(body) {
            let loading = Loading::start(body)?;
            self.next = Next::Loading(Box::new(loading));
            return Ok(Progress::Quiet);
        }
        let catching_up = match &mut self.next {
            Next::CatchingUp(table) => Some(table.apply(body)),
            Next::Serving => None,
            Next::Wanted | Next::Loading(_) => return Err(Failure::Wire(WireError::Kind)),
        };
        let applied = match (catching_up, &mut self.table) {
            (Some(applied), _) => applied.map(|()| Progress::Quiet),
            (None, Some(table)) => table.apply(body).map(|()| Progress::Serves(table.position())),
            (None, None) => Err(WireError::Position),
        };
        match &applied {
            Ok(Progress::Serves(_)) => self.vouched = Some(sent),
            Ok(_) => {}
            // The old table serves on, but no delta leads on from it: a snapshot does.
            Err(_) => self.next = Next::Wanted,
        }
        Ok(applied?)
    }

    /// Work that can wait: to be called now and then. Merges changes into pages, one at a time.
    pub fn tidy(&mut self) {
        if let Some(table) = &mut self.table {
            table.rebase_a_page();
        }
    }

    fn wait_secs(&self) -> u64 {
        self.max_staleness_secs.map_or(MAX_WAIT_SECS, |bound| MAX_WAIT_SECS.min(bound / 3))
    }

    fn feed_path(&self, instance: &str, position: Option<Position>, wait_secs: u64) -> String {
        let edge = &self.edge;
        let mut path = format!("/edge/v1/feed?format={FORMAT}&edge={edge}&instance={instance}&wait={wait_secs}");
        if let Some(bound) = self.max_staleness_secs {
            path.push_str(&format!("&max_staleness={bound}"));
        }
        if let Some(Position { epoch, revision, head }) = position {
            path.push_str(&format!("&epoch={epoch}&since={revision}&head={head}"));
        }
        path
    }
}
