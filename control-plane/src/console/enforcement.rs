//! The part of a page that shows whether a change is enforced, which refreshes automatically.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{Revision, UnixSeconds};
use tokio::time::Instant;

use super::page::html;
use super::query::{Asked, Done};
use super::session::Visit;
use super::words::{Moment, counted};
use crate::api::Api;
use crate::edges::{Bounded, State as EdgeState};
use crate::problem::Problem;

/// How long a page after a change waits until it is enforced: connected edges take some milliseconds.
const MOMENT: Duration = Duration::from_millis(400);

/// How long an automatic refresh waits.
const LONG: Duration = Duration::from_secs(10);

/// What was done, and whether edges enforce it.
#[derive(Clone)]
pub(super) struct Banner {
    pub(super) sentence: &'static str,
    pub(super) enforcement: Option<Told>,
}

/// Whether a revision is enforced.
#[derive(Clone, Template)]
#[template(path = "enforcement.html")]
pub(super) struct Told {
    pub(super) revision: Revision,
    pub(super) is_enforced: bool,
    /// No edge is known.
    pub(super) is_alone: bool,
    pub(super) sentence: String,
    pub(super) behind: Vec<Behind>,
    /// When it is certain to be enforced everywhere; `None` if it is already, or if no bound is known.
    pub(super) bounded: Option<Moment>,
}

/// An instance that lacks the revision.
#[derive(Clone)]
pub(super) struct Behind {
    pub(super) edge: String,
    pub(super) instance: String,
    pub(super) why: String,
}

impl Banner {
    /// For a page that a change with `done` redirected to.
    pub(super) async fn of(api: &Api, done: Option<Done>) -> Option<Self> {
        let Done { sentence, revision } = done?;
        let enforcement = match revision {
            // Shown only if it exists and can be looked up.
            Some(revision) if api.store.newest(Some(revision)).await.is_ok_and(|newest| revision <= newest) => {
                Some(Told::after(api, revision, MOMENT).await)
            }
            Some(_) | None => None,
        };
        Some(Self { sentence, enforcement })
    }
}

impl Told {
    /// The state now, without waiting.
    pub(super) async fn now(api: &Api, revision: Revision) -> Self {
        Self::after(api, revision, Duration::ZERO).await
    }

    /// The state of a change that was just made.
    pub(super) async fn of(api: &Api, revision: Revision) -> Self {
        Self::after(api, revision, MOMENT).await
    }

    /// Waits until the revision is enforced, at most for `wait`, and returns the state.
    async fn after(api: &Api, revision: Revision, wait: Duration) -> Self {
        let found = api.edges.enforced_by(revision, Instant::now().checked_add(wait)).await.enforcement;
        let (mut has, mut behind) = (0_usize, Vec::new());
        for seen in api.edges.seen(revision) {
            let of_instance = seen.instance.workers.len();
            let have = seen.applied.iter().filter(|applied| applied.is_some_and(|applied| applied >= revision)).count();
            has = has.saturating_add(if seen.is_enforced { of_instance } else { have });
            if !seen.is_enforced {
                let why = match seen.state {
                    EdgeState::Disconnected => {
                        format!("not heard of since {}", super::words::full(seen.instance.last_seen_at))
                    }
                    EdgeState::Current | EdgeState::Behind | EdgeState::Stale if of_instance == 0 => {
                        "its workers haven't reported yet".to_owned()
                    }
                    EdgeState::Current | EdgeState::Behind | EdgeState::Stale => {
                        format!("{have} of {} have it", counted(of_instance, "worker"))
                    }
                };
                behind.push(Behind { edge: seen.instance.edge, instance: seen.instance.id, why });
            }
        }
        let (edges, workers) = (counted(found.edges, "edge"), counted(found.workers, "worker"));
        let sentence = match (found.is_enforced(), api.edges.took(revision)) {
            (true, Some(took)) => format!("Enforced on {has} of {workers} of {edges}, after {}.", elapsed(took)),
            (true, None) => format!("Enforced on {has} of {workers} of {edges}."),
            (false, _) if found.edges == 0 => "No edge is known, so nobody enforces it yet.".to_owned(),
            (false, _) => format!("Not enforced everywhere yet: {has} of {workers} of {edges} have it."),
        };
        let now: UnixSeconds = api.clock.now();
        let bounded = match found.bounded {
            Bounded::At(at) => Some(Moment::new(api.edges.wall(at), now)),
            Bounded::Already | Bounded::Never => None,
        };
        let (is_enforced, is_alone) = (found.is_enforced(), found.edges == 0);
        Self { revision, is_enforced, is_alone, sentence, behind, bounded }
    }

    /// Whether refreshing may show a change.
    pub(super) fn may_change(&self) -> bool {
        !self.is_enforced && !self.is_alone
    }
}

/// `9 ms`, `1.4 s`, `3 minutes`
fn elapsed(took: Duration) -> String {
    match took.as_millis() {
        millis @ ..1_000 => format!("{millis} ms"),
        millis @ 1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => super::words::length(took.as_secs()),
    }
}

/// The same part, once the revision is enforced, or after [`LONG`].
pub(super) async fn fragment(State(api): State<Api>, _: Visit, mut asked: Asked) -> Result<Response, Problem> {
    let revision = asked.take("of").and_then(|text| text.parse().ok()).map(Revision);
    let head = api.store.newest(revision).await?;
    let revision = revision.filter(|revision| *revision <= head).ok_or_else(|| Problem::unknown_revision(head))?;
    html(StatusCode::OK, &Told::after(&api, revision, LONG).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_is_shown_with_the_precision_that_matters() {
        for (millis, expected) in
            [(9, "9 ms"), (999, "999 ms"), (1_450, "1.4 s"), (60_000, "1 minute"), (61_000, "61 seconds")]
        {
            assert_eq!(elapsed(Duration::from_millis(millis)), expected);
        }
    }
}
